"""Odd addresses and headers by number, through everything that reads a text from the web or from a list."""

from __future__ import annotations

import datetime
import json
import random
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from curate.errors import REASONS
from curate.fetch import robots, tdm
from curate.fetch.consent import MAX_VALUE_CHARACTERS, OptOut, Rule, find_opt_out, parse, parse_date
from curate.fetch.entries import NoEntry, host_name, plain_url, url_entry
from curate.fetch.exchange import Exchange, PageExchange, as_sent, joined
from curate.fetch.guard import Guard, check_url
from curate.fetch.settings import FetchSettings
from curate.fetch.transfer import Head
from curate.fetch.wish import Wish
from curate.media.blur import BadBoxes, parse_boxes
from curate.media.url import redacted, site
from curate.plan.identity import Refused, canonical_url, sample_id, url_id

_ROBOTS = "User-agent: ?\nDisallow: ?\nUser-agent: curate\nuser-agent: *\nAllow: /?$\nDisallow: *?*?\nCrawl-delay: ?\n?: ?\n"
TODAY = datetime.date(2026, 1, 1)
SETTINGS = FetchSettings()
DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex", "none")
_GUARD = Guard(("127.0.0.0/8",))

_URLS = (
    "http://example.com/a.jpg", "https://user:pass@host.example:443/p?q=1&sig=abc#f", "HTTP://EXAMPLE.com:80/%zz/%41",
    "//host/x", "http://[::1]:8080/", "http://[fe80::1%25eth0]/", "http://127.1/", "http://0x7f000001/",
    "http://2130706433/", "http://0177.0.0.1/", "http://bücher.example/ä?ö=ü", "http://xn--bcher-kva.example/",
    "http://a_b.example/", "http://-a.example./", "ftp://x/y", "data:image/png,", "javascript:alert(1)", "http:/x",
    "http:///x", "http://", "http://host:99999/", "http://host:0/", "http://host:/x", "http://。example/",
    "http://例え.テスト/画像.png", "http://host\\@evil/", "http://host/../../x", "http://1.2.3.4.5/",
    "http://[::ffff:10.0.0.1]/", "http://x.co.uk./", "http://" + "a" * 300 + ".example/", "../next", "?q=2", "#frag",
    "/abs", "http://①②⑦.⓪.⓪.①/", "https://a.github.io/x;y=z?x-amz-signature=9",
)  # fmt: skip
_HEADERS = (
    "noai", "noindex, noimageai", "googlebot: noindex, nofollow", "curate: none", "*: noai",
    "unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after: Saturday, 25-Jun-10 15:00:00 GMT, noindex",
    "unavailable_after: 2010-06-25T15:00:00+00:00", "max-snippet: -1", "otherbot: noindex, curate: noai", ":,:,:",
    "unavailable_after:", "max-image-preview: large, unavailable_after: nonsense", "Wed, 21 Oct 2015 07:28:00 GMT",
    "120", "-5", "1e9", "99999999999999999999", "0", "1", " 1 ", "0x10", "²", "image/jpeg; charset=utf-8",
    "text/html;\x00boundary=\ud8ff", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "Mon, 32 Foo 99999 25:61:61 +9999",
)  # fmt: skip
_PIECES = (
    "%", "%00", "%25", "\x00", "\r\n", "\t", " ", "\u00a0", "\u2028", "\u202e", "\ud800", "\udcff", "é", "ß", "ı",
    "İ", "ﬀ", "。", "．", "@", "\\", "[", "]", ":", "//", "/", "?", "#", "&", "=", ";", ",", ".", "..", "-", "_", "*",
    "xn--", "xn--a", "xn--\u00e9", "0", "9" * 30, "65536", "::", "1.1.1.1", "\U0001f600", "a" * 64, "a." * 130,
    "http://", "https:", "noai", "unavailable_after: ", "2026-01-01", "00:00", "GMT", "+0000", "\u0660", "\xb2",
    "\ufeff",
)  # fmt: skip


def text(number: int) -> str:
    """The text of this number: one of the seeds, with pieces put in, taken out, repeated, swapped or changed."""
    draw = random.Random(number)
    said = draw.choice(_URLS if draw.random() < 0.6 else _HEADERS)
    for _ in range(draw.choice((0, 1, 1, 2, 2, 3, 6))):
        said = _changed(said, draw)
    return said


def _changed(said: str, draw: random.Random) -> str:
    at, to = sorted((draw.randrange(len(said) + 1), draw.randrange(len(said) + 1)))
    how = draw.randrange(8)
    if how < 3:
        return said[:at] + draw.choice(_PIECES) + said[at:]
    if how == 3:
        return said[:at] + said[to:]
    if how == 4:
        return said[:to] + said[at:to] * draw.choice((1, 2, 30)) + said[to:] if len(said) < 20_000 else said
    if how == 5:
        return said[:at] + chr(draw.choice((draw.randrange(128), draw.randrange(0x3000), draw.randrange(0x110000)))) + said[at + 1 :]
    if how == 6:
        return said[:at] + draw.choice(_URLS + _HEADERS)[draw.randrange(4) :] + said[to:]
    return said.swapcase()


def case(number: int) -> None:
    """One text through every function that may meet it; raises when one answers what it should not."""
    said, other = text(number), text(number // 2)
    of_list(said)
    of_web(said, other)
    of_header(said, other)
    of_file(said, _URLS[number % len(_URLS)])
    of_user(said)


def crasher(number: int) -> None:
    """One kept text, which once was a finding, as itself and as what it is joined to."""
    said = crashers()[number]
    of_list(said)
    of_header(said, said)
    of_user(said)
    for base in _URLS:
        of_file(said, base)
    for base in (said, *_URLS):
        of_web(said, base)


def crashers() -> list[str]:
    """The kept texts, JSON strings in one file."""
    kept: list[str] = json.loads((Path(__file__).parent / "crashers" / "texts.json").read_text())
    return kept


def of_list(said: str) -> None:
    """A cell of an input list."""
    url = canonical_url(said)
    if isinstance(url, Refused):
        assert url.reason in REASONS
        return
    assert canonical_url(url) == url, "canonical once is canonical for good"
    assert len(url_id(url)) == len(sample_id(url, said)) == 32
    assert check_url(url, 8192) in (None, "bad_url", "bad_scheme")
    as_sent(url)


def of_web(said: str, base: str) -> None:
    """A URL or a redirect's target."""
    assert check_url(said, 8192) in (None, "bad_url", "bad_scheme")
    assert isinstance(redacted(said), str)
    _GUARD.allows(said[:64])
    if check_url(said, 8192) is None:
        host = urlsplit(said).hostname
        assert host and site(host)
    if check_url(base, 8192) is None:
        try:
            as_sent(base)
            target = joined(base, said)
        except ValueError:
            return  # the client takes it for bad_response
        assert check_url(target, 8192) in (None, "bad_url", "bad_scheme")


def of_header(said: str, other: str) -> None:
    """A header's value, as the parser of the HTTP client may hand it over."""
    assert all(isinstance(rule, Rule) and rule.name == rule.name.lower() for rule in parse(said))
    found = find_opt_out([said, other], [other], DIRECTIVES, ("curate",), TODAY)
    assert found is None or isinstance(found, OptOut)
    moment = parse_date(said)
    assert moment is None or moment.tzinfo is not None
    wire = said.encode("utf-8", "surrogatepass").decode("latin-1")  # as it comes from the socket
    head = Head(200 if len(said) % 3 else 302)
    for name in ("Content-Type", "Retry-After", "X-Robots-Tag", "TDM-Reservation", "Location", "Content-Encoding"):
        head.add(f"{name}: {wire}")
    head.add(wire or " ")
    for exchange in (Exchange(other, SETTINGS, TODAY), PageExchange(_URLS[0], SETTINGS, TODAY)):
        exchange.judge(head)
        told = exchange.answer
        assert told.reason is None or told.reason in REASONS
        assert told.content_type is None or (len(told.content_type) <= 200 and told.content_type.isprintable())
        assert 0.0 <= told.retry_after_seconds < 1e12


def of_file(said: str, url: str) -> None:
    """A host's robots.txt and tdmrep.json, asked about a URL; a text alone rarely makes one, so it is also put into places."""
    for content in (said, _ROBOTS.replace("?", said)):
        body = content.encode("utf-8", "surrogatepass")
        for encoding in ("", "gzip", said[:20].lower()):
            text = robots.text_of(body, encoding)
            if text is not None:
                line = robots.parse(text, ("curate", "other-bot")).refusal(url)
                assert line is None or isinstance(line, str)
                assert tdm.parse(text).opt_out(url) is None or text.strip()
    made = [{"location": said, "tdm-reservation": 1, "tdm-policy": said}, {"location": "/", "tdm-reservation": said}]
    found = tdm.parse(json.dumps(made)).opt_out(url)  # escapes can say what UTF-8 cannot
    assert found is None or (len(found.value) <= MAX_VALUE_CHARACTERS and found.value.isascii())


def of_user(said: str) -> None:
    """A cell of boxes or hashes, a line of a block list."""
    for content in (said, f"[[{said}]]", f"[[0, 0, 1, {said}]]"):
        with suppress(BadBoxes):
            parse_boxes(content)
    wish = Wish(said, said, said, said, said)
    assert {len(value or "") for value in (wish.promised_sha256, wish.promised_md5)} <= {0, 32, 64}
    assert len(wish.described_pdq or bytes(32)) == 32 and 0 <= (wish.described_phash or 0) < 1 << 64
    for read in (host_name, plain_url, url_entry):
        with suppress(NoEntry):
            read(said)
