"""One request's answer, judged by its head before any of its body is read."""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass

from yarl import URL

from curate.fetch.consent import OptOut, find_opt_out, parse_date
from curate.fetch.failures import retryable, status_reason
from curate.fetch.origins import Page
from curate.fetch.robots import LARGEST_BYTES
from curate.fetch.settings import FetchSettings
from curate.fetch.transfer import Head, Transfer

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(slots=True)
class Answer:
    """What became of one URL; `body` is set exactly when `reason` is None.

    `attempts` counts requests without redirects, `latency_seconds` is the last attempt's, `bytes_read` sums all
    attempts. Whoever uses the body gives `transfer` back to the transport afterwards.
    """

    reason: str | None = None
    status: int | None = None
    final_url: str | None = None
    content_type: str | None = None
    opt_out: OptOut | None = None
    body: bytes | None = None
    attempts: int = 0
    latency_seconds: float = 0.0
    bytes_read: int = 0
    retry_after_seconds: float = 0.0
    transfer: Transfer | None = None


class Exchange:
    """A request for a row's URL: `judge` fills `answer` and `location` from the head, `finish` from what came after it."""

    may_be_cut = False

    def __init__(self, url: str, settings: FetchSettings, today: datetime.date, reserved: OptOut | None = None) -> None:
        self.url = url
        self._settings, self._today, self._reserved = settings, today, reserved
        self.answer = Answer()
        self.location: str | None = None

    def judge(self, head: Head) -> int | None:
        """How many bytes of the body are wanted at most, None for none."""
        status, found = head.status, self._opt_out(head)
        content_type = _text(head.get("content-type"))
        location = head.get("location") if status in _REDIRECTS else None
        reason = status_reason(status) if location is None else None
        if found and (reason is None or retryable(reason, status)):
            reason, location = "opt_out", None
        reason = reason or (self._body_reason(head) if location is None else None)
        wait_seconds = _retry_after(head) if reason else 0.0
        self.answer = Answer(reason, status, content_type=content_type, opt_out=found, retry_after_seconds=wait_seconds)
        self._go_to(location)
        return self._settings.max_bytes if reason is None and location is None else None

    def _go_to(self, location: str | None) -> None:
        """Sets where a redirect leads; one that leads to no address ends here."""
        if location is None:
            return
        try:
            self.location = joined(self.url, location)
        except ValueError:
            self.answer.reason = "bad_url"

    def _opt_out(self, head: Head) -> OptOut | None:
        if not self._settings.opt_out:
            return None
        tags, reservations = head.all("x-robots-tag"), head.all("tdm-reservation")
        if not tags and not reservations:
            return self._reserved
        said = self._settings
        return find_opt_out(tags, reservations, said.opt_out_directives, said.robot_names, self._today, self._reserved)

    def _body_reason(self, head: Head) -> str | None:
        if head.words("content-encoding") - {"identity"} or head.words("transfer-encoding") - {"chunked"}:
            return "encoding_refused"
        try:
            return "too_large" if (head.length or 0) > self._settings.max_bytes else None
        except ValueError:
            return "bad_response"

    def finish(self, done: Transfer) -> None:
        """What the transport found after the head."""
        answer = self.answer
        answer.reason, answer.bytes_read = answer.reason or done.reason, done.size
        if done.body is None or answer.reason:
            return
        if done.body:
            answer.body, answer.transfer = done.body, done
        else:
            answer.reason = "empty_body"


class PageExchange(Exchange):
    """A request for one of a host's own files: opt-out headers are not about it, and its rest is left where it is long."""

    may_be_cut = True

    def judge(self, head: Head) -> int | None:
        """Only a success is read."""
        self._encoding = (head.get("content-encoding") or "").lower()
        self.answer = Answer(status=head.status)
        location = head.get("location") if head.status in _REDIRECTS else None
        self._go_to(location)
        return LARGEST_BYTES if 200 <= head.status < 300 else None

    def finish(self, done: Transfer) -> None:
        """An empty file is a file."""
        answer = self.answer
        answer.reason, answer.body, answer.transfer = answer.reason or done.reason, done.body, done

    def page(self, hops: int) -> Page:
        """What came back."""
        answer = self.answer
        encoding = self._encoding if answer.status is not None else ""
        return Page(answer.status, answer.body or b"", encoding, answer.reason, hops)


@functools.lru_cache(maxsize=4096)
def as_sent(url: str) -> URL:
    """As written where it is ASCII: re-quoting could break signed addresses."""
    return URL(url, encoded=True) if url.isascii() else URL(url)


@functools.lru_cache(maxsize=4096)
def host_as_sent(url: str) -> str | None:
    """The host of a URL as the network knows it; None where there is none, or one that can be no host."""
    try:
        address = as_sent(url)
        str(address), address.port  # what yarl finds wrong, it says when asked
        host = address.raw_host
    except ValueError:
        return None
    return host if host and host.isascii() and host != "*" and "%" not in host else None


def joined(base: str, location: str) -> str:
    """Absolute redirect target without fragment; header bytes that are not ASCII count as UTF-8, spaces are quoted."""
    text = location.encode("latin-1", "replace").decode("utf-8", "replace").strip()
    target = URL(text, encoded=True) if text.isascii() and " " not in text else URL(text)
    return str(as_sent(base).join(target).with_fragment(None))


def _text(value: str | None) -> str | None:
    """A header as storable text of at most 200 characters, None when it is not there."""
    return None if value is None else "".join(c for c in value if c.isprintable())[:200]


def _retry_after(head: Head) -> float:
    """Seconds asked for by Retry-After (RFC 9110, 10.2.3: seconds or a date); 0 without or when unreadable."""
    value = (head.get("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    moment = parse_date(value) if value else None
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds()) if moment else 0.0
