"""robots.txt after RFC 9309: which of its lines address us, and what they say of a URL; the only user of protego.

Groups are chosen here, by exact product token, because several may address us and then count as one (RFC 9309, 2.2.1);
protego reads the rules of those groups: longest match, `*`, `$`, percent-encoding, the misspellings of the wild.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protego import Protego

LARGEST_BYTES = 512 << 10  # RFC 9309, 2.5: at least 500 KiB are read; what follows is ignored
MAX_REDIRECTS = 5  # RFC 9309, 2.3.1.2
MAX_CRAWL_DELAY_SECONDS = 30.0
_USER_AGENT = re.compile(r"user[- ]?agent\s*(?::|\s)\s*(.*)", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z_-]+|\*(?![^\s*])")
_DISALLOW = re.compile(r"dis[a-z]*\s*(?::|\s)\s*(\S.*)", re.IGNORECASE)
_SITE_WIDE = re.compile(r"(sitemaps?|site-map|host)\s*(:|\s)", re.IGNORECASE)
_MAX_CANDIDATES = 100


@dataclass(frozen=True)
class Rules:
    """What one robots.txt says to us; `lines` are the rules of the groups that address us."""

    parsed: Protego
    lines: tuple[str, ...]
    crawl_delay_seconds: float = 0.0

    def refusal(self, url: str) -> str | None:
        """The line that forbids `url`, or None when it may be asked for."""
        if not self.lines or self.parsed.can_fetch(url, "*"):
            return None
        candidates = (found for line in self.lines if (found := _DISALLOW.match(line)) and _may_match(found[1], url))
        for found in sorted(itertools.islice(candidates, _MAX_CANDIDATES), key=lambda found: len(found[1]), reverse=True):
            if matcher(found[1])(url):
                return found[0]
        return "Disallow"


def _may_match(pattern: str, url: str) -> bool:
    """False where the plain beginning of a pattern stands nowhere in the URL: a cheap first look."""
    plain = pattern.partition("*")[0].rstrip("$")
    return plain in url or "%" in plain or "%" in url or not (plain.isascii() and url.isascii())


def parse(text: str, names: Iterable[str]) -> Rules:
    """The rules for a robot with any of these product tokens: its own groups if there are any, else those for everyone."""
    lines = _addressed(text, {name.lower() for name in names})
    parsed = Protego.parse("\n".join(["User-agent: *", *lines]))
    delay_seconds = parsed.crawl_delay("*") or 0.0
    return Rules(parsed, tuple(lines), min(delay_seconds, MAX_CRAWL_DELAY_SECONDS))


def _addressed(text: str, names: set[str]) -> list[str]:
    """Rule lines of the groups that address us, without comments."""
    ours: list[str] | None = None
    everyone: list[str] = []
    heads: set[str] = set()
    after_rule = False
    for line in re.split(r"\r\n|\r|\n", text):
        line = line.partition("#")[0].strip()
        if not line or _SITE_WIDE.match(line):
            continue
        named = _USER_AGENT.fullmatch(line)
        if named is None:
            after_rule = True
            if "ours" in heads and ours is not None:
                ours.append(line)
            if "*" in heads:
                everyone.append(line)
            continue
        if after_rule:
            heads, after_rule = set(), False
        token = _TOKEN.match(named[1])
        if token and token[0].lower() in names:
            heads.add("ours")
            ours = [] if ours is None else ours
        elif token and token[0] == "*":
            heads.add("*")
    return everyone if ours is None else ours


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a path pattern with `*` and `$` matches a URL, as in a robots.txt rule."""
    parsed = Protego.parse(f"User-agent: *\nDisallow: {pattern.partition('#')[0].strip()}")
    return lambda url: not parsed.can_fetch(url, "*")


def text_of(body: bytes, encoding: str = "") -> str | None:
    """A body as text: at most LARGEST_BYTES, cut after a whole line; UTF-8, other bytes replaced; no BOM, no NUL.

    `encoding` is the Content-Encoding of servers that compress unasked; None when it is not one we can undo.
    """
    if encoding in ("gzip", "x-gzip", "deflate"):
        try:
            body = zlib.decompressobj(47 if "gzip" in encoding else 15).decompress(body, LARGEST_BYTES)
        except zlib.error:
            return None
    elif encoding not in ("", "identity"):
        return None
    if len(body) >= LARGEST_BYTES:
        body = body[: LARGEST_BYTES + 1]
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1] or body[:LARGEST_BYTES]
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"):
        body = body.removeprefix(mark)
    return body.replace(b"\0", b"").decode("utf-8", "replace")  # without NUL, also UTF-16 of plain letters can be read
