"""URLs, ids, parts and samples are fixed forever: these values may never change."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.plan.identity import Refused, canonical_url, identify, part_of, sample_id, sampled, url_id


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("http://a.com", "http://a.com"),
        ("https://a.com/x.jpg?b=2&a=1", "https://a.com/x.jpg?b=2&a=1"),
        ("https://a.com/x.jpg#top", "https://a.com/x.jpg"),
        ("  https://a.com/x.jpg\r", "https://a.com/x.jpg"),
        ("http://a.com:80/x", "http://a.com/x"),
        ("https://a.com:443/x", "https://a.com/x"),
        ("https://a.com:/x", "https://a.com/x"),
        ("https://a.com:80/x", "https://a.com:80/x"),
        ("HTTP://A.com/%7Ex/../y", "HTTP://A.com/%7Ex/../y"),
        ("http://a.com/with blank.jpg", "http://a.com/with blank.jpg"),
        ("http://bücher.example/ü.jpg", "http://bücher.example/ü.jpg"),
        ("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("http://127.0.0.1:8000/x", "http://127.0.0.1:8000/x"),
        ("http://a_b.example.com./x", "http://a_b.example.com./x"),
    ],
)
def test_only_fragment_and_default_port_are_dropped(text: str, canonical: str) -> None:
    assert canonical_url(text) == canonical
    assert canonical_url(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "bad_url"),
        ("", "bad_url"),
        ("   ", "bad_url"),
        ("www.example.com/x.jpg", "bad_url"),
        ("//example.com/x.jpg", "bad_url"),
        ("http://", "bad_url"),
        ("http:///x.jpg", "bad_url"),
        ("http:example.com", "bad_url"),
        ("http://user:secret@example.com/x", "bad_url"),
        ("http://good@127.0.0.1/", "bad_url"),
        ("http://good\\@127.0.0.1/", "bad_url"),
        ("http://a..com/", "bad_url"),
        ("http://a b.com/", "bad_url"),
        ("http://a.com:0/", "bad_url"),
        ("http://a.com:70000/", "bad_url"),
        ("http://[::1/", "bad_url"),
        ("http://a.com/\x00x", "bad_url"),
        ("http://a.com/a\nb", "bad_url"),
        ("http://a.com/\ud800", "bad_url"),
        ("http://a.com/" + "x" * 8200, "bad_url"),
        ("http://" + "a" * 64 + ".com/", "bad_url"),
        ("ftp://a.com/x", "bad_scheme"),
        ("file:///etc/passwd", "bad_scheme"),
        ("data:image/png;base64,AAAA", "bad_scheme"),
        ("javascript:alert(1)", "bad_scheme"),
    ],
)
def test_what_is_no_web_address_is_refused(text: str | None, reason: str) -> None:
    assert canonical_url(text) == Refused(reason)


@given(st.text(max_size=60))
def test_any_text_is_judged_without_an_error(text: str) -> None:
    for candidate in (text, "http://" + text, "https://a.com" + text):
        found = canonical_url(candidate)
        assert isinstance(found, Refused) or canonical_url(found) == found


def test_ids_are_half_a_sha256() -> None:
    url = "https://a.com/x.jpg"
    assert url_id(url) == hashlib.sha256(url.encode()).hexdigest()[:32]
    assert sample_id(url, "a cat") == hashlib.sha256(b"https://a.com/x.jpg\na cat").hexdigest()[:32]
    assert sample_id(url, None) == sample_id(url, "") == hashlib.sha256(b"https://a.com/x.jpg\n").hexdigest()[:32]


def test_a_batch_has_the_ids_of_its_rows() -> None:
    texts = ["https://a.com/x#y", "ftp://a.com/", None, "https://b.com/"]
    captions = ["one", None, "three", "four"]
    found = identify(texts, captions, [False, False, False, True], lambda at: b"place %d" % at)
    assert found.urls == ["https://a.com/x", "ftp://a.com/", None, None]
    assert found.reasons == [None, "bad_scheme", "bad_url", "input_unparseable"]
    assert found.url_ids().to_pylist()[:2] == [url_id("https://a.com/x"), url_id("ftp://a.com/")]
    assert found.sample_ids().to_pylist()[:2] == [sample_id("https://a.com/x", "one"), sample_id("ftp://a.com/", None)]
    assert len(set(found.sample_ids().to_pylist())) == 4
    assert found.parts(5).tolist() == [part_of(one, 5) for one in found.url_ids().to_pylist()]
    for fraction in (0.2, 0.5, 0.9):
        assert found.sampled(fraction).tolist() == [sampled(one, fraction) for one in found.url_ids().to_pylist()]


def test_samples_are_nested_and_of_the_right_size() -> None:
    ids = [url_id(f"https://a.com/{at}") for at in range(20_000)]
    chosen = {fraction: {one for one in ids if sampled(one, fraction)} for fraction in (0.01, 0.1, 0.5, 1.0)}
    assert chosen[0.01] < chosen[0.1] < chosen[0.5] < chosen[1.0] == set(ids)
    assert abs(len(chosen[0.1]) - 2000) < 200


def test_a_sample_says_nothing_about_the_part() -> None:
    ids = [one for at in range(20_000) if sampled(one := url_id(f"https://a.com/{at}"), 0.1)]
    sizes = [sum(part_of(one, 4) == part for one in ids) for part in range(4)]
    assert min(sizes) > 0.8 * len(ids) / 4
