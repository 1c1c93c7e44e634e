"""What the demo says when it is over is true: the places are there, the figures are the stored ones, the commands work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.demo_pool import DemoPool
from tests.e2e.newcomer_readme import give


@pytest.fixture(scope="module")
def said(demo: DemoPool) -> str:
    return (demo.path.parent / "said").read_text(encoding="utf-8")


def section(said: str, heading: str) -> list[str]:
    """The indented lines below a heading."""
    lines = said.split(f"\n{heading}", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    assert lines and all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


def test_nothing_is_noise(said: str) -> None:
    assert not re.search(r"Traceback|Warning|\x1b", said)


def test_every_step_is_told_with_its_time(said: str) -> None:
    for step in ("plan", "fetch", "fit", "score_base", "dedupe", "filter", "pack", "report", "train", "evaluate"):
        assert re.search(rf"^{step} +\S", said, re.MULTILINE), step
    assert re.search(r"^fetch .*  \d+ s$", said, re.MULTILINE)
    assert len(re.findall(r"\d (?:ms|s) a step \(\d+ samples a second\)", said)) == 2


def test_the_funnel_balances(demo: DemoPool, said: str) -> None:
    rows, *ends = map(int, re.findall(r"\d+", re.search(r"^.* rows = kept .*$", said.replace(",", ""), re.MULTILINE)[0]))  # type: ignore[index]
    (stored,) = demo.sql("SELECT count(*) AS n FROM samples")
    assert rows == sum(ends) == stored["n"]


def test_the_places_are_there(demo: DemoPool, said: str) -> None:
    places = dict(
        line.split()[:2] if not line.startswith("server log") else ("log", line.split()[2]) for line in section(said, "Where everything")
    )
    assert set(places) == {"list", "log", "tables", "shards", "models", "report"}
    assert all(Path(path).exists() and Path(path).is_relative_to(demo.path) for path in places.values())


def test_the_figures_are_the_stored_ones(demo: DemoPool, said: str) -> None:
    told = dict(re.findall(r"(\S+ \S+) +([0-9.]+)  \(95 % interval", "\n".join(section(said, "Measured on held-out"))))
    stored = {
        f"{line['task']} {line['metric']}": f"{line['value']:.3f}" for line in demo.sql("SELECT task, metric, value FROM evaluations")
    }
    assert told == stored and len(told) >= 5


def test_the_three_commands_it_offers_work(said: str) -> None:
    offered = section(said, "Try next")
    assert len(offered) == 3
    answers = [give(line).out for line in offered]
    assert answers[0].splitlines()[0].split() == ["caption", "clip_score", "reason"]
    assert "(50.0%)" in answers[1] and "preview" in answers[1]
    assert re.search(r"^  plan +list.jsonl, row \d+", answers[2], re.MULTILINE)
