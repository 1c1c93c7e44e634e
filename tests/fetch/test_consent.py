"""X-Robots-Tag in the forms it has in the wild."""

from __future__ import annotations

import datetime
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.fetch.consent import find_opt_out, parse_date
from curate.fetch.settings import FetchSettings
from tests.fetch.conftest import fetch, picture, quick, response
from tests.fetch.hosts import Hosts

TODAY = datetime.date(2026, 11, 23)
SETTINGS = FetchSettings()

# header lines, whether they ask us not to use the resource
FORMS: list[tuple[list[str], bool]] = [
    (["noai"], True),
    (["NOAI"], True),
    (["NoAi"], True),
    ([" noai "], True),
    (["noimageai"], True),
    (["noindex"], True),
    (["noimageindex"], True),
    (["none"], True),
    (["None"], True),
    (["noai, noimageai"], True),
    (["noimageai,noai"], True),
    (["nofollow, noai"], True),
    (["noarchive,nosnippet,noindex"], True),
    (["noindex;nofollow"], True),
    (["noai, max-snippet: -1"], True),
    (["max-snippet: -1, noai"], True),
    (["max-snippet:-1,max-image-preview:large,max-video-preview:-1,noai"], True),
    (["max-image-preview: none, noimageindex"], True),
    (["all", "noai"], True),
    (["all", "nofollow", "noarchive", "NOINDEX"], True),
    (["curate: noai"], True),
    (["Curate: noindex, nofollow"], True),
    (["*: noai"], True),
    (["otherbot: nofollow", "noai"], True),
    (["otherbot: noindex, curate: noai"], True),
    (["curate: none"], True),
    (["unavailable_after: 25 Jun 2010 15:00:00 PST"], True),
    (["unavailable_after: 25-Jun-2010 15:00:00 EST"], True),
    (["unavailable_after: Friday, 25-Jun-10 15:00:00 GMT"], True),
    (["unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT, nofollow"], True),
    (["unavailable_after: 2010-06-25T15:00:00Z"], True),
    (["unavailable_after: 2010-06-25"], True),
    (["unavailable_after: Wed, 25 Jun 2210 15:00:00 GMT, noai"], True),
    (["unavailable_after: 25 Jun 2210 15:00:00 GMT, noindex"], True),
    (["unavailable_after: whenever"], True),
    (["curate: unavailable_after: 25 Jun 2010 15:00:00 GMT"], True),
    (["UNAVAILABLE_AFTER: 25 Jun 2010 15:00:00 PST"], True),
    (["unavailable_after: Sun, 22 Nov 2026 23:59:59 GMT"], True),
    (["unavailable_after: 22 Nov 2026 23:59:59 GMT, max-snippet: 3, nofollow"], True),
    (["googlebot: nofollow", "otherbot: noai", "CURATE: noai"], True),
    (["googlebot:noindex,curate:noimageindex"], True),
    (["noai; noimageai; nofollow"], True),
    (["nofollow noai"], True),
    (["noai, otherbot: all"], True),
    (["none", "all"], True),
    (["max-video-preview: 0, none"], True),
    (["* : noai"], True),
    (["noindex, nofollow, noarchive, nosnippet, noimageindex, notranslate"], True),
    (["noai,"], True),
    ([",,noai"], True),
    ([], False),
    ([""], False),
    (["all"], False),
    (["index, follow"], False),
    (["nofollow"], False),
    (["unavailable_after: Tue, 24 Nov 2026 00:00:00 GMT, nofollow"], False),
    (["max-snippet: 20, max-image-preview: standard, unavailable_after: 2 Jan 2210 00:00:00 GMT"], False),
    (["googlebot: none"], False),
    (["curate: all", "otherbot: noai, noimageai"], False),
    (["my-curate: noai"], False),
    (["indexifembedded"], False),
    (["noarchive, nosnippet, notranslate"], False),
    (["max-snippet: -1"], False),
    (["max-image-preview: none"], False),
    (["max-image-preview:large"], False),
    (["noaiart"], False),
    (["otherbot: noai"], False),
    (["otherbot: nofollow, noai"], False),
    (["googlebot: noindex, otherbot: noimageindex"], False),
    (["unavailable_after: 25 Jun 2210 15:00:00 GMT"], False),
    (["unavailable_after: Wed, 25 Jun 2210 15:00:00 GMT"], False),
    (["unavailable_after: Wednesday, 25-Jun-2210 15:00:00 GMT, nofollow"], False),
    (["unavailable_after: 2210-06-25T15:00:00+02:00"], False),
    (["otherbot: unavailable_after: 25 Jun 2010 15:00:00 GMT"], False),
    ([":"], False),
    (["\x00\xff"], False),
]  # fmt: skip


def _asks(lines: list[str], reservations: list[str] | None = None) -> bool:
    return find_opt_out(lines, reservations or [], SETTINGS.opt_out_directives, SETTINGS.robot_names, TODAY) is not None


@pytest.mark.parametrize(("lines", "refused"), FORMS, ids=lambda value: str(value)[:40])
def test_header_forms(lines: list[str], refused: bool) -> None:
    assert _asks(lines) is refused


def test_the_line_that_says_no_is_kept_and_cut() -> None:
    found = find_opt_out(["all", "noai, " + "x" * 900], [], SETTINGS.opt_out_directives, (), TODAY)
    assert found is not None and found.signal == "X-Robots-Tag" and found.value.startswith("noai, x") and len(found.value) == 500


def test_tdm_reservation() -> None:
    assert _asks([], ["1"]) and _asks([], [" 1 "]) and not _asks([], ["0"]) and not _asks([], [""])


def test_a_date_counts_from_the_day_after() -> None:
    line = [f"unavailable_after: {TODAY.isoformat()}"]
    assert not _asks(line)
    later = find_opt_out(line, [], (), (), TODAY + datetime.timedelta(days=1))
    assert later is not None


def test_dates_are_read_in_all_three_forms() -> None:
    moment = datetime.datetime(2010, 6, 25, 15, tzinfo=datetime.UTC)
    for text in ("Fri, 25 Jun 2010 15:00:00 GMT", "Friday, 25-Jun-10 15:00:00 GMT", "2010-06-25T15:00:00Z", "2010-06-25 15:00:00"):
        assert parse_date(text) == moment
    assert parse_date("soon") is None and parse_date("") is None


@pytest.mark.parametrize(
    ("date", "refused"),
    [("9999-12-31T23:59:59-12:00", False), ("Fri, 31 Dec 9999 23:59:59 -1200", False), ("0001-01-01T00:00:00+12:00", True)],
)
def test_dates_at_the_ends_of_the_calendar(date: str, refused: bool) -> None:
    assert _asks([f"unavailable_after: {date}"]) is refused


@given(st.text())
def test_no_header_breaks_the_reading_and_none_hides_a_no(junk: str) -> None:
    _asks([junk])
    parse_date(junk)
    _asks([f"unavailable_after: {junk}", f"curate: {junk}"], [junk])
    assert _asks([f"noai, {junk}"]) and _asks([junk, "noai"])


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(FORMS) >= 60 and sum(refused for _, refused in FORMS) >= 20 <= sum(not refused for _, refused in FORMS)


def test_by_the_server_s_log_an_opt_out_is_final_and_its_body_is_not_read(hosts: Hosts) -> None:
    """Each form as real headers, on a good answer and on one that would be tried again."""
    forms = [(lines, refused) for lines, refused in FORMS if all(line.isprintable() and line.isascii() for line in lines)]
    cases = list(itertools.product(forms, ("200 OK", "503 Busy")))
    names = [hosts.add() for _ in cases]
    for host, ((lines, _), status) in zip(names, cases, strict=True):
        hosts.files[host, "/image"] = response(picture(1, 64, 48), *(f"x-robots-TAG: {line}" for line in lines), status=status)
    rows = fetch([hosts.url(host) for host in names], quick(attempts=2, opt_out_date=TODAY))
    for host, ((lines, refused), status), row in zip(names, cases, rows, strict=True):
        assert row["reason"] == ("opt_out" if refused else None if status == "200 OK" else "http_server_error"), lines
        assert len(hosts.asked(host)) == (2 if status == "503 Busy" and not refused else 1), lines
        if refused:
            assert (row["signal"], row["bytes_read"], row["sha256"]) == ("X-Robots-Tag", 0, None)
            assert row["signal_value"] in [line.strip() for line in lines]
