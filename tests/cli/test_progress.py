"""Progress: bars at a terminal, lines in a file."""

from __future__ import annotations

import pytest

from curate.cli import progress
from curate.cli.bars import Bars
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
        assert isinstance(shown, Bars)
        work(shown)
        shown.start("[red]", 2, "parts")
        shown.advance("[red]", 2, text="[x]")
    assert "[red]" in capsys.readouterr().err


def test_bars_tell_how_far_how_fast_and_how_long_still(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "120")
    bars, now = Bars(), [100.0]
    bars.live.get_time = lambda: now[0]
    bars.start("train", 40, "steps")
    for _ in range(10):
        now[0] += 0.25
        bars.advance("train", 1, loss=2.5)
    bars.start("report", None, "steps")
    bars.finish("report")
    console = Console(width=120, color_system=None)
    with console.capture() as captured:
        console.print(bars.live.get_renderable())
    train, report = captured.get().splitlines()
    assert train.split()[0] == "train" and " ".join(train.split()[2:]) == "10 of 40 steps 4.0/s 0:02, 0:08 left loss 2.5"
    assert "steps" not in report and "left" not in report


@pytest.mark.parametrize(
    ("done", "total", "unit", "text"),
    [(3, 1200, "rows", "3 of 1,200 rows"), (0, 0, "parts", "nothing new"), (0, None, "steps", ""), (2048, None, "bytes", "2.0 KiB")],
)
def test_amounts(done: float, total: float | None, unit: str, text: str) -> None:
    assert progress.amount(done, total, unit) == text


@pytest.mark.parametrize(
    ("per_second", "unit", "text"),
    [
        (None, "rows", ""),
        (1234.5, "rows", "1,234/s"),
        (2.25, "steps", "2.2/s"),
        (0.125, "parts", "8.0 s each"),
        (3072, "bytes", "3.0 KiB/s"),
    ],
)
def test_paces(per_second: float | None, unit: str, text: str) -> None:
    assert progress.pace(per_second, unit) == text


def test_clocks() -> None:
    assert [progress.clock(seconds) for seconds in (0, 67.9, 3661)] == ["0:00", "1:07", "1:01:01"]
