"""Which line of a robots.txt speaks to us, and what it says of a path (RFC 9309, 2.2)."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from curate.errors import SettingsError
from curate.fetch.origins import origin_of
from curate.fetch.robots import LARGEST_BYTES, Rules, parse, text_of
from curate.fetch.settings import FetchSettings
from curate.settings import build, values


def rules(*lines: str, names: tuple[str, ...] = ("curate",)) -> Rules:
    return parse("\n".join(lines), names)


EVERYONE = "User-agent: *"
# lines, path, whether it may be asked for
TABLE: list[tuple[list[str], str, bool]] = [
    # which group
    ([], "/a", True),
    (["Disallow: /"], "/a", True),  # addresses nobody
    ([EVERYONE, "Disallow: /"], "/a", False),
    ([EVERYONE, "Disallow:"], "/a", True),
    (["User-agent: curate", "Disallow: /"], "/a", False),
    (["User-agent: CURATE", "Disallow: /"], "/a", False),
    (["User-agent: Curate/2.0", "Disallow: /"], "/a", False),
    (["user-agent:curate", "DISALLOW:/"], "/a", False),
    (["User-agent: cur", "Disallow: /"], "/a", True),
    (["User-agent: curateur", "Disallow: /"], "/a", True),
    (["User-agent: mycurate", "Disallow: /"], "/a", True),
    (["User-agent: curate-bot", "Disallow: /"], "/a", True),
    (["User-agent: otherbot", "Disallow: /"], "/a", True),
    (["User-agent: img2dataset", "Disallow: /"], "/a", True),
    ([EVERYONE, "Disallow: /", "User-agent: curate", "Allow: /"], "/a", True),
    ([EVERYONE, "Disallow: /", "User-agent: curate", "Disallow:"], "/a", True),
    ([EVERYONE, "Disallow: /", "User-agent: curate"], "/a", True),
    (["User-agent: curate", "Disallow: /a", EVERYONE, "Disallow: /b"], "/b", True),
    (["User-agent: a", "User-agent: curate", "User-agent: b", "Disallow: /"], "/a", False),
    (["User-agent: curate", "User-agent: *", "Disallow: /x", "User-agent: curate", "Disallow: /y"], "/y", False),
    (["User-agent: curate", "Disallow: /x", "User-agent: z", "Disallow: /", "User-agent: curate", "Disallow: /y"], "/x", False),
    (["User-agent: curate", "Sitemap: /map.xml", "User-agent: z", "Disallow: /"], "/a", False),  # Sitemap ends no group
    (["User-agent: curate", "Crawl-delay: 1", "User-agent: z", "Disallow: /"], "/a", True),
    (["User-agent: *", "", "Disallow: /"], "/a", False),
    (["User-agent: * # all", "Disallow: / # everything"], "/a", False),
    (["User-agent: *bot", "Disallow: /"], "/a", True),
    (["User agent: *", "Disallow: /"], "/a", False),
    (["User-agent *", "Disallow /"], "/a", False),
    # which rule
    ([EVERYONE, "Disallow: /a"], "/a", False),
    ([EVERYONE, "Disallow: /a"], "/abc", False),
    ([EVERYONE, "Disallow: /a"], "/A", True),
    ([EVERYONE, "Disallow: /a/"], "/a", True),
    ([EVERYONE, "Disallow: /", "Allow: /images"], "/images/1.jpg", True),
    ([EVERYONE, "Allow: /images", "Disallow: /"], "/images/1.jpg", True),
    ([EVERYONE, "Allow: /", "Disallow: /images"], "/images/1.jpg", False),
    ([EVERYONE, "Allow: /p", "Disallow: /p"], "/p", True),  # equal length: the least restrictive
    ([EVERYONE, "Disallow: /p", "Allow: /p"], "/p", True),
    ([EVERYONE, "Allow: /a/b", "Disallow: /a/b/c"], "/a/b/c/d", False),
    ([EVERYONE, "Disallow: /*.jpg"], "/x/y.jpg", False),
    ([EVERYONE, "Disallow: /*.jpg"], "/x/y.jpg?size=1", False),
    ([EVERYONE, "Disallow: /*.jpg$"], "/x/y.jpg?size=1", True),
    ([EVERYONE, "Disallow: /*.jpg$"], "/x/y.jpg", False),
    ([EVERYONE, "Disallow: *.jpg$"], "/x/y.jpg", False),
    ([EVERYONE, "Disallow: /a*b*c"], "/a1b2c3", False),
    ([EVERYONE, "Disallow: /a*b*c"], "/a1c2b3", True),
    ([EVERYONE, "Disallow: /$"], "/", False),
    ([EVERYONE, "Disallow: /$"], "/a", True),
    ([EVERYONE, "Disallow: /a$b"], "/a$b", False),
    ([EVERYONE, "Disallow: /a**b"], "/axb", False),
    ([EVERYONE, "Disallow: /*"], "/", False),
    ([EVERYONE, "Disallow: /?id="], "/?id=3", False),
    ([EVERYONE, "Disallow: /*?"], "/a?b", False),
    ([EVERYONE, "Disallow: /*?"], "/a", True),
    # percent-encoding
    ([EVERYONE, "Disallow: /caf%C3%A9"], "/café", False),
    ([EVERYONE, "Disallow: /café"], "/caf%C3%A9", False),
    ([EVERYONE, "Disallow: /caf%c3%a9"], "/caf%C3%A9", False),
    ([EVERYONE, "Disallow: /a%2Fb"], "/a/b", True),
    ([EVERYONE, "Disallow: /a/b"], "/a%2Fb", True),
    ([EVERYONE, "Disallow: /%61"], "/a", False),
    ([EVERYONE, "Disallow: /a"], "/%61", False),
    ([EVERYONE, "Disallow: /a%20b"], "/a%20b", False),
    # what is no rule
    ([EVERYONE, "Disallow /", "nonsense", ": :", "Allow"], "/a", False),
    ([EVERYONE, "Noindex: /"], "/a", True),
    ([EVERYONE, "Dissallow: /"], "/a", False),
    (["<html><body>User-agent: *", "<p>Disallow: /</p>"], "/a", True),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "path", "allowed"), TABLE, ids=lambda value: str(value)[:50])
def test_rules(lines: list[str], path: str, allowed: bool) -> None:
    assert (rules(*lines).refusal(f"http://host.example{path}") is None) is allowed


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"User-agent: *\nDisallow: /", True),
        (b"User-agent: *\r\nDisallow: /\r\n", True),
        (b"User-agent: *\rDisallow: /\r", True),
        (b"\xef\xbb\xbfUser-agent: *\nDisallow: /", True),
        ("\ufeffUser-agent: *\nDisallow: /".encode("utf-16-le"), True),
        ("\ufeffUser-agent: *\nDisallow: /".encode("utf-16-be"), True),
        (b"User-agent: *\0\nDis\0allow: /\0", True),
        (b"# caf\xe9\nUser-agent: *\nDisallow: /", True),
        (b"\0\0\0", False),
        (b"\n" * (LARGEST_BYTES - 100) + b"User-agent: *\nDisallow: /\n", True),
        (b"User-agent: *\n" + b"# filler\n" * 60_000 + b"Disallow: /\n", False),  # starts after 512 KiB
        (b"User-agent: *\n" + b"# filler\n" * 55_000 + b"Disallow: /\n", True),  # starts before 500 KiB
        (b"User-agent: *\n" + b"#" * 600_000 + b"\nDisallow: /\n", False),
        (b"User-agent: *\n" + b"Disallow: /x" * 60_000, False),  # one endless line, cut: no rule at all
        (b"", False),
    ],
    ids=range(15),
)
def test_bodies(body: bytes, refused: bool) -> None:
    found = text_of(body)
    assert found is not None
    assert (parse(found, ("curate",)).refusal("http://h.example/a") is not None) is refused


def test_a_rule_that_the_cut_shortened_does_not_count() -> None:
    body = b"User-agent: *\n" + b"#" * (LARGEST_BYTES - 30) + b"\nDisallow: /private/area\n"
    found = text_of(body)
    assert found is not None and not parse(found, ()).lines


def test_the_line_that_forbids_is_told() -> None:
    found = rules(EVERYONE, "Disallow: /a", "Disallow: /a/*/c # why", "User-agent: z", "Disallow: /a/b/c/d")
    assert found.refusal("http://h.example/a/b/c/d") == "Disallow: /a/*/c"
    assert found.refusal("http://h.example/x") is None


def test_several_names_of_ours_count_as_one() -> None:
    lines = ["User-agent: curate", "Disallow: /a", "User-agent: my-bot", "Disallow: /b", EVERYONE, "Disallow: /"]
    found = rules(*lines, names=("curate", "My-Bot"))
    assert [found.refusal(f"http://h.example/{path}") is None for path in "abc"] == [False, False, True]


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([EVERYONE, "Crawl-delay: 3"], 3.0),
        ([EVERYONE, "Crawl-delay: 0.5"], 0.5),
        ([EVERYONE, "crawl-delay:7"], 7.0),
        ([EVERYONE, "Crawl-delay: 3600"], 30.0),
        ([EVERYONE, "Crawl-delay: soon"], 0.0),
        ([EVERYONE, "Crawl-delay: -5"], 0.0),
        ([EVERYONE, "Crawl-delay: nan"], 0.0),
        (["User-agent: other", "Crawl-delay: 9"], 0.0),
        ([EVERYONE, "Crawl-delay: 9", "User-agent: curate", "Disallow:"], 0.0),
    ],
)
def test_crawl_delay(lines: list[str], seconds: float) -> None:
    assert rules(*lines).crawl_delay_seconds == seconds


@given(st.text(), st.text())
def test_no_file_breaks_the_reading(junk: str, path: str) -> None:
    parse(junk, ("curate",)).refusal(f"http://h.example/{path}")
    whole = parse(f"User-agent: curate\nDisallow: /\n\n{junk}", ("curate",))
    assert "Disallow: /" in whole.lines  # nothing that follows takes a rule away
    found = text_of(junk.encode("utf-8", "surrogatepass"))
    assert found is not None


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://h.example", ("http", "h.example", 80)),
        ("https://H.example/a?b", ("https", "h.example", 443)),
        ("https://h.example:8443/", ("https", "h.example", 8443)),
        ("http://h.example?q=http://x/", ("http", "h.example", 80)),
        ("http://h.example#/x", ("http", "h.example", 80)),
        ("http://[::1]:81/x", ("http", "::1", 81)),
        ("http://10.0.0.1/x", ("http", "10.0.0.1", 80)),
    ],
)
def test_origins(url: str, origin: tuple[str, str, int]) -> None:
    assert origin_of(url) == origin


def test_names_must_be_product_tokens() -> None:
    with pytest.raises(SettingsError, match="product token"):
        build(FetchSettings, values(["robot_names=[my bot]"]))
