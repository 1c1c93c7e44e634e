"""Which rows are the same: canonical URLs, ids, parts and nested samples, all pure functions of URL and caption.

The canonical URL is the text of the list with surrounding blanks, the fragment and a default (or empty) port removed.
Nothing else is touched: no case folding, no percent decoding, no sorting of queries, and an IDN host stays as written
(the HTTP client turns it into punycode when it asks). Two spellings are the same only when these rules make them equal,
so an id never depends on the version of a URL library.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from yarl import URL

MAX_URL_BYTES = 8 << 10
ID_BYTES = 16
_SAMPLE_SALT = b"curate.plan.sample\n"

# Plain URLs, nearly all of a real list: lower-case host, no port, printable ASCII without blanks and fragment.
_PLAIN = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}(?:[/?][!-\"$-~]*)?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SPLIT = re.compile(r"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(\d{0,5}))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HOST_FORBIDDEN = re.compile(r"[\s\"#%<>\\^`{|}@!$&'()*+,;=~]")
_DEFAULT_PORT = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Refused:
    """Why a text is no address that curate would request; `reason` is `bad_url` or `bad_scheme`."""

    reason: str


_BAD_URL = Refused("bad_url")
_BAD_SCHEME = Refused("bad_scheme")


def canonical_url(text: str | None) -> str | Refused:
    """Canonical form of an http(s) URL, or why it is none; see the module's text for the rules."""
    if text is None:
        return _BAD_URL
    if len(text) <= MAX_URL_BYTES and _PLAIN.fullmatch(text):
        return text
    text = text.strip(" \t\r\n")
    scheme = _SCHEME.match(text)
    if scheme is None:
        return _BAD_URL
    if scheme.group(1).lower() not in _DEFAULT_PORT:
        return _BAD_SCHEME
    if len(text) > MAX_URL_BYTES or _CONTROL.search(text) or len(text.encode()) > MAX_URL_BYTES:
        return _BAD_URL
    return _rebuilt(text.partition("#")[0].rstrip(" "))  # a blank before the fragment is at the end now


def _rebuilt(text: str) -> str | Refused:
    parts = _SPLIT.fullmatch(text)
    authority = _AUTHORITY.fullmatch(parts.group(2)) if parts else None
    if parts is None or authority is None:
        return _BAD_URL
    host, port = authority.groups()
    if not _host_is_sound(host) or (port and not 0 < int(port) < 65536):
        return _BAD_URL
    default = not port or int(port) == _DEFAULT_PORT[parts.group(1).lower()]
    url = f"{parts.group(1)}://{host}{'' if default else f':{port}'}{parts.group(3)}"
    try:
        return url if URL(url).raw_host else _BAD_URL
    except ValueError:  # what the HTTP client's parser refuses cannot be requested
        return _BAD_URL


def _host_is_sound(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    return len(host) <= 254 and not _HOST_FORBIDDEN.search(host) and all(0 < len(label) <= 63 for label in labels)


def _digest(*pieces: bytes) -> bytes:
    return hashlib.sha256(b"".join(pieces)).digest()[:ID_BYTES]


def url_id(url: str) -> str:
    """128 bits of sha256 of a canonical URL, as 32 hex digits."""
    return _digest(_encoded(url)).hex()


def sample_id(url: str, caption: str | None) -> str:
    """128 bits of sha256 of canonical URL, newline, caption (empty when null), as 32 hex digits."""
    return _digest(_encoded(url), b"\n", _encoded(caption or "")).hex()


def part_of(url_id: str, parts: int) -> int:
    """Number of the part, below `parts`, that holds all rows of a URL: the id's first 64 bits modulo `parts`."""
    return int(url_id[:16], 16) % parts


def sampled(url_id: str, fraction: float) -> bool:
    """Whether a URL is in the sample of this size; a smaller fraction always gives a subset of a larger one."""
    return _position(bytes.fromhex(url_id)) < fraction


def _position(digest: bytes) -> float:
    """Place of an id in [0, 1); hashed again, so that it says nothing about the id's part."""
    return int.from_bytes(hashlib.sha256(_SAMPLE_SALT + digest).digest()[:8], "big") / 2.0**64


@dataclass(frozen=True)
class Identities:
    """Identities of a batch of rows: lists of n texts, and n x 16 bytes of each id."""

    urls: list[str | None]
    reasons: list[str | None]
    url_digests: bytes
    sample_digests: bytes

    def url_ids(self) -> pa.Array:
        """`url_id` of each row."""
        return _hex_array(self.url_digests)

    def sample_ids(self) -> pa.Array:
        """`sample_id` of each row."""
        return _hex_array(self.sample_digests)

    def parts(self, parts: int) -> npt.NDArray[np.int64]:
        """`part_of` of each row."""
        head = np.frombuffer(self.url_digests, dtype=">u8").reshape(-1, 2)[:, 0]
        return (head % np.uint64(parts)).astype(np.int64)

    def sampled(self, fraction: float) -> npt.NDArray[np.bool_]:
        """`sampled` of each row."""
        starts = range(0, len(self.url_digests), ID_BYTES)
        if fraction >= 1.0:
            return np.ones(len(starts), dtype=np.bool_)
        return np.array([_position(self.url_digests[at : at + ID_BYTES]) < fraction for at in starts], dtype=np.bool_)


def identify(
    texts: Sequence[str | None], captions: Sequence[str | None], broken: Sequence[bool], place: Callable[[int], bytes]
) -> Identities:
    """Identities of a batch.

    A row without a usable URL takes its ids from its text; a broken row, or one without any text, from its place
    (`place` of the row's position: input file and row), so that such rows never count as duplicates of each other.
    """
    urls: list[str | None] = []
    reasons: list[str | None] = []
    of_urls, of_samples, sha256 = bytearray(), bytearray(), hashlib.sha256
    for at, (text, caption, is_broken) in enumerate(zip(texts, captions, broken, strict=True)):
        url, reason = _judged(text, is_broken)
        urls.append(url)
        reasons.append(reason)
        hashed = sha256(_encoded(text if reason else url) if text else place(at))
        of_urls += hashed.digest()[:ID_BYTES]
        hashed.update(b"\n" + _encoded(caption) if caption else b"\n")
        of_samples += hashed.digest()[:ID_BYTES]
    return Identities(urls, reasons, bytes(of_urls), bytes(of_samples))


def _judged(text: str | None, is_broken: bool) -> tuple[str | None, str | None]:
    if is_broken:
        return None, "input_unparseable"
    if text is not None and len(text) <= MAX_URL_BYTES and _PLAIN.fullmatch(text):
        return text, None
    url = canonical_url(text)
    if isinstance(url, Refused):
        return (text[:MAX_URL_BYTES] if text else None), url.reason
    return url, None


def _encoded(text: str | None) -> bytes:
    return text.encode("utf-8", "surrogatepass") if text else b""


def _hex_array(digests: bytes) -> pa.Array:
    count = len(digests) // ID_BYTES
    offsets = np.arange(0, (count + 1) * 2 * ID_BYTES, 2 * ID_BYTES, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(digests.hex().encode()))
