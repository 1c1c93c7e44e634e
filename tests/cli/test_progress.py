"""Progress: bars at a terminal, lines in a file."""

from __future__ import annotations

import pytest

from curate.cli import progress
from curate.progress import Progress


def work(shown: Progress) -> None:
    shown.start("fetch", 3, "parts")
    for _ in range(3):
        shown.advance("fetch", 1, ok=1200, loss=3.14159)
    shown.start("read", None, "rows")
    shown.advance("read", 5)
    shown.finish("read")
    shown.finish("fetch")
    shown.start("fetch", 1, "parts")
    shown.finish("fetch")


def test_a_file_gets_one_line_at_the_end_of_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.display() as shown:
        work(shown)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["read: 5 rows, 0 s", "fetch: 3 of 3 parts, 0 s  ok 1,200  loss 3.142", "fetch: 0 of 1 parts, 0 s"]


def test_a_long_task_says_now_and_then_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    shown = progress.Lines()
    shown.start("score", 2, "parts")
    shown.advance("score", 1, ok=7)
    shown.advance("score")
    assert capsys.readouterr().err.splitlines() == ["score: 1 of 2 parts, 0 s  ok 7", "score: 2 of 2 parts, 0 s  ok 7"]


def test_a_terminal_gets_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.display() as shown:
        assert isinstance(shown, progress.Bars)
        work(shown)
        shown.start("[red]", 2, "parts")
        shown.advance("[red]", 2, text="[x]")
    assert "[red]" in capsys.readouterr().err
