"""What stands on the terminal when a run is over, and what goes wrong in a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.cli import app
from curate.cli.output import say
from curate.cli.reports import TOLD, sentences
from curate.dedupe.pictures import DedupeReport
from curate.errors import PartsFailed
from curate.later import GrowthReport, RetryReport
from curate.plan.add import AddReport
from curate.plan.plan import PlanReport
from curate.plan.prefilter import PrefilterReport
from curate.run import PhaseReport


def told(report: object) -> str:
    return "\n".join(sentences(report) or [])


def test_a_plan_says_what_it_took_for_what() -> None:
    text = told(PlanReport(100, 90, 2, "named: bild → url", {"ok": 85, "bad_url": 4, "duplicate_row": 1}, False))
    assert text == "90 rows of 100 listed in 2 parts (as before); named: bild → url\n5 refused: bad_url 4, duplicate_row 1"


def test_a_prefilter_says_how_many_may_be_requested() -> None:
    assert told(PrefilterReport(7, 3, 0, 0)) == "7 rows may be requested, 3 are not (as before)"


def test_a_phase_says_what_it_cost() -> None:
    reasons = Counter({"ok": 10, "a": 5, "b": 4, "c": 3, "d": 2, "e": 1, "f": 1})
    counts = Counter({"requests": 12, "urls": 11, "bytes_read": 2048})
    text = told(PhaseReport("fetch", 2, 1, 3.0, reasons, counts))
    assert text.splitlines()[0] == "10 rows with an image, 16 without: a 5, b 4, c 3, d 2, 2 for others; 1 part had been done"
    assert text.splitlines()[1] == "12 requests for 11 URLs, 2.0 KiB read, 4 a second"
    scored = PhaseReport("score", 1, 0, 2.0, Counter(ok=9), Counter(images=8, rows=9))
    assert told(scored).splitlines()[1] == "8 images decoded once each, 4 a second"
    assert told(PhaseReport("fetch", skipped=4)) == "nothing new: 4 parts done before"


def test_a_retry_says_what_became_of_each_reason_and_what_comes_next() -> None:
    work = PhaseReport("fetch", 2, 8, 3.0, Counter(ok=9), Counter(requests=12, urls=11, bytes_read=2048))
    text = told(RetryReport(("dns_timeout",), None, work, {"dns_timeout": 11, "ok": 40}, {"dns_timeout": 2, "ok": 49}, ("curate score p",)))
    assert text.splitlines() == [
        "11 URLs asked again in 2 parts with 12 requests; 8 parts untouched",
        "  dns_timeout         11 → 2",
        "  ok                  40 → 49",
        "bring the rest up to date:",
        "  curate score p",
    ]
    none = RetryReport(("dns_timeout",), 60.0, PhaseReport("fetch"), {}, {}, ())
    assert told(none) == "nothing to ask again: no row that was asked so long ago ended with dns_timeout"


def test_a_further_list_says_what_it_brought() -> None:
    work = PhaseReport("fetch", 1, 2, 3.0, Counter(ok=3, duplicate_row=5), Counter(requests=1, urls=1, bytes_read=2048), passes=3)
    text = told(GrowthReport(AddReport(8, 8, 1, 2, 2, "by name", {"ok": 3, "duplicate_row": 5}, True), work, ()))
    assert text.splitlines()[:2] == [
        "8 rows in 1 part from part 2 on; by name",
        "5 rows are there already, 2 show an image of the pool under another caption",
    ]
    assert "2 parts had been done; in 3 passes" in text


def test_groups_are_told() -> None:
    assert "3 of 10 pictures in 1 group of copies; 1 pairs have equal bytes" in told(DedupeReport(10, 1, 3, 3, 1, 2, True))
    assert "3 of 10 embeddings in 1 group of near ones; 2 are" in told(DedupeReport(10, 1, 3, 3, 0, 2, True, by="embeddings"))


def test_every_kind_of_report_of_a_recipe_is_described() -> None:
    """No step of a recipe falls back to fields printed one by one."""
    assert set(TOLD) == {
        "RemovalReport", "AttachReport", "CompactReport",
        "PlanReport", "PrefilterReport", "PhaseReport", "TrainReport", "DedupeReport", "FilterReport", "PackReport", "PosixPath",
        "EvaluateReport", "RetryReport", "GrowthReport", "WorkReport", "CommitReport", "PhrasesReport", "CroissantReport",
    }  # fmt: skip


def test_what_nobody_described_is_printed_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    say({"rows": 1200, "share": 0.25, "empty": None, "inner": {"yes": True}})
    assert capsys.readouterr().out == "rows   1,200\nshare  0.25\ninner\n  yes  yes\n"


def test_a_workers_traceback_goes_to_a_file(curate: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(**_: object) -> None:
        raise PartsFailed("score: 1 of 2 parts failed; part 0: Traceback (most recent call last):\n  File x\nNameError: no name")

    monkeypatch.setattr(app.look.status, "callback", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = curate("status", "POOL")
    (log,) = tmp_path.glob("curate-*.log")
    assert said.code == 3 and said.err == f"score: 1 of 2 parts failed; part 0: NameError: no name; the details are in {log}\n"
    assert "File x" in log.read_text()
