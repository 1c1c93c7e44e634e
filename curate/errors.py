"""Everything that can go wrong, on one screen: the exception tree and the closed list of row reasons.

CurateError
├── UsageError          exit 2   the call is wrong; the message says what to change
│   ├── SettingsError            a key or value in conf/ or on the command line
│   ├── InputError               an input list; names file, column and line
│   ├── SchemaError              a table or batch is not what schemas/ says
│   ├── IdentityError            another model, stage or setting under a name the pool already knows
│   ├── Withdrawn                an older version or subset that held rows which were taken down since
│   └── MissingExtra             an optional package; names the extra that brings it
├── Stopped             exit 1   nothing is lost; the same command resumes
│   ├── PoolBusy                 another run holds the pool's lease
│   ├── RemovalUnfinished        a takedown or purge was interrupted and must be finished first
│   ├── Fenced                   a newer run took over while this one was away
│   ├── LocalFault               this machine's disk, memory or resolver
│   └── ClusterLost              the engine's cluster went away, or had no room
└── RunFailed           exit 3   the run ended, and something in it is wrong
    ├── PartsFailed              some parts could not be finished
    └── AccountingError          rows do not balance, or a file is not what was published

Exceptions are for calls and bugs. What goes wrong with a *row* is a value: one of `REASONS` in its `reason` column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


class CurateError(Exception):
    """Base of all errors raised on purpose; `str()` is one line for the person at the terminal."""

    exit_code: ClassVar[int] = 2


class UsageError(CurateError):
    """The call is wrong; nothing was changed."""


class SettingsError(UsageError):
    """A settings key or value is wrong; names the key, its file and the nearest right one."""


class InputError(UsageError):
    """An input list cannot be used; names file, column and line."""


class SchemaError(UsageError):
    """A table or batch does not have the columns or types that `schemas/` promises."""


class IdentityError(UsageError):
    """The pool already holds this name with another model, version or setting."""


class Withdrawn(UsageError):
    """What was asked for can no longer be read, since rows of it were taken down."""


class MissingExtra(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: run  pip install 'curate-vlm[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Workers send their errors to the driver as pickles."""
        return MissingExtra, (self.package, self.extra)


class Stopped(CurateError):
    """The run stopped early; the same command resumes it."""

    exit_code = 1


class PoolBusy(Stopped):
    """Another live run holds the lease of a table that this run would write."""


class RemovalUnfinished(Stopped):
    """A takedown or purge of this pool was interrupted; nothing else may write before it is finished."""


class Fenced(Stopped):
    """A newer run took this run's tables over; whatever this one had not committed is void."""


class LocalFault(Stopped):
    """This machine failed (disk, memory, descriptors, resolver), not the rows."""


class ClusterLost(Stopped):
    """The cluster that did the work cannot be reached any more, or had no room for a worker."""


class RunFailed(CurateError):
    """The run came to its end, and something in it is wrong."""

    exit_code = 3


class PartsFailed(RunFailed):
    """Some parts could not be finished after all tries; the same command tries them again."""


class AccountingError(RunFailed):
    """Rows in do not equal kept + dropped + failed + pending, or a published file's hash is wrong."""


Outcome = Literal["dropped", "failed"]


@dataclass(frozen=True)
class Reason:
    """Why a row is not kept: `dropped` means that we decided, `failed` that the world or this machine could not."""

    outcome: Outcome
    text: str
    retryable: bool = False


def _dropped(text: str) -> Reason:
    return Reason("dropped", text)


def _failed(text: str) -> Reason:
    return Reason("failed", text)


def _retry(text: str) -> Reason:
    return Reason("failed", text, retryable=True)


REASONS: dict[str, Reason] = {
    # plan
    "input_unparseable": _failed("the line of the input list could not be read as a row"),
    "bad_url": _failed("empty, malformed, over-long, or carrying credentials"),
    "bad_scheme": _failed("neither http nor https"),
    "duplicate_row": _dropped("same URL and caption as an earlier row"),
    "prefilter": _dropped("refused by the prefilter, never requested"),
    # consent and lists
    "opt_out": _dropped("the server asks not to be used (X-Robots-Tag and the like)"),
    "robots_disallowed": _dropped("robots.txt forbids the address"),
    "robots_unreachable": _retry("robots.txt could not be had, which forbids all for now (RFC 9309)"),
    "blocklisted": _dropped("on one of the user's block lists"),
    "withdrawn": _dropped("taken down, or on the list of what was"),
    "purged": _dropped("its bytes were deleted to free space; what was measured stays"),
    # network
    "blocked_address": _failed("the host resolves to a private, loopback or reserved address"),
    "dns_not_found": _failed("the host name does not exist"),
    "dns_timeout": _retry("the resolver did not answer"),
    "connect_failed": _retry("refused or unreachable"),
    "connect_timeout": _retry("no connection in time"),
    "connection_reset": _retry("the connection broke before the body was complete"),
    "tls_failed": _failed("the certificate or handshake is not acceptable"),
    "timeout_total": _retry("not complete before the total deadline"),
    "too_slow": _retry("below the byte-rate floor"),
    "too_many_redirects": _failed("more redirects than allowed, or a loop"),
    "http_not_found": _failed("status 404 or 410"),
    "http_forbidden": _failed("status 401, 403 or 451"),
    "http_rate_limited": _retry("status 429"),
    "http_server_error": _retry("status 5xx"),
    "http_status": _failed("any other status that is not 200"),
    "bad_response": _failed("not valid HTTP, or headers over the caps"),
    "encoding_refused": _failed("a content encoding that was not asked for or grows beyond the cap"),
    "too_large": _failed("more bytes than the cap"),
    "truncated": _retry("fewer bytes than announced"),
    "empty_body": _failed("no bytes"),
    "hash_mismatch": _failed("other bytes than the input list promised"),
    "hash_missing": _failed("hashes must hold (fetch.verify_hash=strict), and the input list has none that can be checked"),
    "boxes_unreadable": _failed("the boxes to blur cannot be read, so the image is not stored"),
    "deferred_politeness": _retry("its domain was over budget in this pass"),
    # decode
    "not_an_image": _failed("the bytes are no image (often a web page)"),
    "format_not_allowed": _failed("an image format outside the allow-list"),
    "too_many_pixels": _failed("the header announces more pixels than the cap"),
    "decode_failed": _failed("the image is damaged"),
    "decode_truncated": _failed("the image ends early"),
    "decode_timeout": _failed("decoding took too long"),
    "decode_memory": _failed("decoding needs more memory than the cap"),
    "decoder_crashed": _failed("the codec crashed on these bytes"),
    # this machine
    "worker_crashed": _retry("the worker died on this row"),
    "local_fault": _retry("disk, memory or descriptors of this machine"),
    # policies shipped with curate; a user's policy adds the names of its own rules
    "caption_short": _dropped("too few characters or words"),
    "caption_long": _dropped("more words or characters than the cap"),
    "caption_repeated": _dropped("the same caption stands at too many images"),
    "caption_repetitive": _dropped("the caption says the same words again and again"),
    "caption_non_words": _dropped("too much of the caption is numbers, signs, codes, addresses or file names, or its words are oddly long"),
    "caption_no_determiner": _dropped("no the, a, this or the like: a list of words, no phrase"),
    "caption_rare_word": _dropped("a word of the caption stands in hardly any other of the pool"),
    "caption_boilerplate": _dropped("most of the caption is wording that many captions of the pool share"),
    "caption_language": _dropped("not in the wanted language"),
    "image_small": _dropped("a side or the byte size is below the limit"),
    "image_aspect": _dropped("too wide or too tall"),
    "image_large": _dropped("more pixels than the limit"),
    "clip_score_low": _dropped("image and caption do not match well enough"),
    "clip_score_missing": _dropped("no score: the row was used to fit the model that would judge it"),
    "nsfw": _dropped("flagged as not safe for work"),
    "watermark": _dropped("flagged as watermarked"),
    "duplicate": _dropped("another member represents its duplicate group"),
    "contaminated": _dropped("shows or says what an item of an evaluation set does"),
    "concept_none": _dropped("the caption names no concept of the list"),
    "cluster_unnamed": _dropped("no reference image names the image's cluster"),
    "normsim_low": _dropped("too unlike the target set"),
    "sampled_out": _dropped("not drawn by a sampling rule"),
}
