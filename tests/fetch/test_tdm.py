"""Reservations in /.well-known/tdmrep.json (TDMRep) are found, stored and obeyed; a header of the answer counts more."""

from __future__ import annotations

import json

import pytest

from curate.fetch.tdm import parse
from tests.fetch.conftest import fetch, picture, quick, response
from tests.fetch.hosts import STALL, Hosts, moved, text


def entry(location: object, reservation: object = 1, **more: object) -> dict[str, object]:
    return {"location": location, "tdm-reservation": reservation, **more}


# objects of the file, path, whether it is reserved
TABLE: list[tuple[object, str, bool]] = [
    ([], "/a", False),
    ([entry("/")], "/a", True),
    ([entry("*")], "/a", True),
    ([entry("/*")], "/a", True),
    ([entry("/a")], "/abc", True),
    ([entry("/a/")], "/a", False),
    ([entry("/a/")], "/b/a/", False),
    ([entry("/*.jpg")], "/x/y.jpg?z", True),
    ([entry("/*.jpg$")], "/x/y.jpg?z", False),
    ([entry("/*.jpg$")], "/x/y.jpg", True),
    ([entry("/img/*/large$")], "/img/3/large", True),
    ([entry("/img/*/large$")], "/img/3/larger", False),
    ([entry("/caf%C3%A9")], "/café", True),
    ([entry("/a", 0)], "/a", False),
    ([entry("/free", 0), entry("/")], "/free/1", False),  # the first that matches counts
    ([entry("/free", 0), entry("/")], "/1", True),
    ([entry("/"), entry("/free", 0)], "/free/1", True),
    ([entry("/", "1")], "/a", True),
    ([entry("/", "0")], "/a", False),
    ([entry("/", True)], "/a", False),
    ([entry("/", 2)], "/a", False),
    ([entry("/", None)], "/a", False),
    ([entry(""), entry(None), entry(7), 5, None, "x", {"tdm-reservation": 1}], "/a", False),
    ([5, entry("/")], "/a", True),
    (entry("/"), "/a", True),  # one object without its array
    ("no", "/a", False),
    (None, "/a", False),
]


@pytest.mark.parametrize(("content", "path", "reserved"), TABLE, ids=lambda value: str(value)[:50])
def test_locations(content: object, path: str, reserved: bool) -> None:
    assert (parse(json.dumps(content)).opt_out(f"https://h.example{path}") is not None) is reserved


@pytest.mark.parametrize("broken", ["", "[", "[" * 100_000, "\x00", "<html></html>", '[{"location": "/"'])
def test_what_is_no_json_reserves_nothing(broken: str) -> None:
    assert parse(broken).opt_out("https://h.example/a") is None


SETTINGS = quick(tdm_file=True, robots=True, total_seconds=1.0)


def test_a_reserved_picture_is_not_read_and_not_asked_for_again(hosts: Hosts) -> None:
    said = [entry("/image/*", **{"tdm-policy": "https://h.example/policy.json"})]
    host = hosts.add(text("User-agent: *\nDisallow:\n"), text(json.dumps(said)))
    hosts.files[host, "/image/2"] = text("busy", 503)
    rows = fetch([hosts.url(host, path) for path in ("/image/1", "/image/2", "/image", "/image/1")], SETTINGS)
    assert [row["reason"] for row in rows] == ["opt_out", "opt_out", None, "opt_out"]
    assert (rows[0]["signal"], rows[0]["bytes_read"]) == ("tdmrep.json", 0)
    assert json.loads(rows[0]["signal_value"]) == said[0]
    assert hosts.asked(host)[:2] == ["/robots.txt", "/.well-known/tdmrep.json"]
    assert sorted(hosts.asked(host)[2:]) == ["/image", "/image/1", "/image/1", "/image/2"]


@pytest.mark.parametrize(
    ("in_file", "headers", "reason", "signal"),
    [
        (1, (), "opt_out", "tdmrep.json"),
        (1, ("TDM-Reservation: 0",), None, None),
        (1, ("tdm-reservation: 1",), "opt_out", "TDM-Reservation"),
        (1, ("TDM-Reservation: maybe",), "opt_out", "tdmrep.json"),
        (1, ("TDM-Reservation: 0", "X-Robots-Tag: noai"), "opt_out", "X-Robots-Tag"),
        (0, ("TDM-Reservation: 1",), "opt_out", "TDM-Reservation"),
        (0, (), None, None),
    ],
)
def test_the_header_counts_more_than_the_file(
    hosts: Hosts, in_file: int, headers: tuple[str, ...], reason: str | None, signal: str | None
) -> None:
    host = hosts.add(None, text(json.dumps([entry("/", in_file)])))
    hosts.files[host, "/image"] = response(picture(1, 64, 48), *headers)
    (row,) = fetch([hosts.url(host)], SETTINGS)
    assert (row["reason"], row["signal"]) == (reason, signal)


@pytest.mark.parametrize("answer", [text("x", 404), text("x", 500), text("{", 200), STALL, moved(302, "/elsewhere")])
def test_a_file_that_cannot_be_had_reserves_nothing(hosts: Hosts, answer: bytes) -> None:
    host = hosts.add(None, answer)
    (row,) = fetch([hosts.url(host)], SETTINGS)
    assert row["reason"] is None
    assert hosts.asked(host).count("/.well-known/tdmrep.json") == 1


def test_it_is_not_asked_for_where_robots_txt_forbids_it_or_the_settings_say_no(hosts: Hosts) -> None:
    host = hosts.add(text("User-agent: *\nDisallow: /.well-known/\n"), text(json.dumps([entry("/")])))
    assert fetch([hosts.url(host)], SETTINGS)[0]["reason"] is None
    other = hosts.add(None, text(json.dumps([entry("/")])))
    assert fetch([hosts.url(other)], quick(tdm_file=False))[0]["reason"] is None
    assert fetch([hosts.url(other)], quick(tdm_file=True, opt_out=False))[0]["reason"] is None
    assert hosts.asked(host) == ["/robots.txt", "/image"] and hosts.asked(other) == ["/image", "/image"]
