"""X-Robots-Tag in the forms it has in the wild."""

from __future__ import annotations

import datetime

import pytest

from curate.fetch.consent import find_opt_out, parse_date
from curate.fetch.settings import FetchSettings

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
    (["noai,"], True),
    ([",,noai"], True),
    ([], False),
    ([""], False),
    (["all"], False),
    (["index, follow"], False),
    (["nofollow"], False),
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
