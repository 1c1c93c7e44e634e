"""What an ablation found: each arm beside its random subset, the arms among each other, and no winner inside the noise."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from curate.evaluate.comparison import Difference, adjusted, crossed
from curate.evaluate.statistics import Interval, Values

METHOD = (
    "intervals: 95 %, Student's over seeds, with the spread over held-out items added (Dorfman, Berbaum and Metz 1992);"
    " differences: paired by seed and item, adjusted for their number by Holm"
)


@dataclass(frozen=True)
class Line:
    """One arm: the rows that it keeps (the mean over seeds), its figure, that of as many random rows, and the difference."""

    name: str
    rows: int
    figure: Interval
    random: Interval
    difference: Difference


@dataclass(frozen=True)
class Pair:
    """Two arms, and `a` minus `b`."""

    a: str
    b: str
    difference: Difference


@dataclass(frozen=True)
class Ablation:
    """The table of an ablation, and how it came about.

    The differences to random are one family of tests, the pairs another.
    """

    name: str
    metric: tuple[str, ...]
    lines: tuple[Line, ...]
    pairs: tuple[Pair, ...]
    candidates: int
    items: int
    seeds: int
    samples_seen: int
    runs: int  # different trainings behind the table
    trained: int  # of them by this call
    page: Path | None = None

    @property
    def best(self) -> Line:
        """The arm with the highest figure, which need not be a winner."""
        return max(self.lines, key=lambda line: line.figure.value)

    def among(self) -> list[Pair]:
        """The best arm against each other one."""
        best = self.best.name
        turned = [_turned(pair) if pair.b == best else pair for pair in self.pairs if best in (pair.a, pair.b)]
        order = {line.name: at for at, line in enumerate(self.lines)}
        return sorted(turned, key=lambda pair: order[pair.b])

    @property
    def winner(self) -> str | None:
        """The arm that is better than every other one; None when that cannot be told."""
        pairs = self.among()
        return self.best.name if pairs and all(pair.difference.verdict == "better" for pair in pairs) else None

    def conclusion(self) -> str:
        """One sentence on which arm to take."""
        level = [pair.b for pair in self.among() if pair.difference.verdict == "no difference"]
        if len(self.lines) == 1:
            return f"{self.best.name} against random: {self.best.difference.verdict}"
        if self.winner:
            return f"{self.winner} is better than every other arm"
        return f"no winner: {self.best.name} has the highest figure, and from {_listed(level)} it cannot be told apart"

    def heading(self) -> str:
        """What was done."""
        return (
            f"{self.name}: {_listed(self.metric, 'mean of ' if len(self.metric) > 1 else '')} on {self.items:,} held-out items;"
            f" {self.seeds} seeds of {self.samples_seen:,} samples seen; {self.candidates:,} candidate rows; {self.runs} trainings"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in ("name", "candidates", "items", "seeds", "samples_seen", "runs", "trained")},
            "metric": list(self.metric),
            "method": METHOD,
            "arms": [{**asdict(line), "difference": _told(line.difference)} for line in self.lines],
            "pairs": [{"a": pair.a, "b": pair.b, "difference": _told(pair.difference)} for pair in self.pairs],
            "best": self.best.name,
            "winner": self.winner,
            "conclusion": self.conclusion(),
            "page": None if self.page is None else str(self.page),
        }

    def text(self) -> str:
        """For a terminal."""
        table: list[tuple[str, ...]] = [("arm", "rows", "figure", "95 %", "random", "95 %", "difference", "interval", "p", "verdict")]
        table += [
            (line.name, f"{line.rows:,}", f"{line.figure.value:.3f}", span(line.figure), f"{line.random.value:.3f}", span(line.random),
             *_cells(line.difference)) for line in self.lines
        ]  # fmt: skip
        others: list[tuple[str, ...]] = [("best against", *[""] * 5, "difference", "interval", "p", "verdict")]
        others += [(pair.b, *[""] * 5, *_cells(pair.difference)) for pair in self.among()]
        shown = _aligned([*table, *(others if len(self.lines) > 1 else [])])
        shown[len(table) : len(table)] = [""] if len(self.lines) > 1 else []
        end = [f"open {self.page}"] if self.page else []
        return "\n".join([self.heading(), "", *shown, "", self.conclusion(), METHOD, *end])


def ablation(
    name: str, metric: tuple[str, ...], figures: Mapping[str, tuple[Values, Values]], rows: Mapping[str, int], **told: Any
) -> Ablation:
    """Compares arms: `figures` has for each its own (seeds, items) and those of its random rows, `rows` how many it keeps."""
    names = list(figures)
    against = adjusted([crossed(own - random) for own, random in figures.values()])
    lines = tuple(
        Line(arm, rows[arm], crossed(own).interval(), crossed(random).interval(), difference)
        for (arm, (own, random)), difference in zip(figures.items(), against, strict=True)
    )
    both = list(itertools.combinations(names, 2))
    between = adjusted([crossed(figures[a][0] - figures[b][0]) for a, b in both])
    pairs = tuple(Pair(a, b, difference) for (a, b), difference in zip(both, between, strict=True))
    seeds, items = np.shape(figures[names[0]][0])
    return Ablation(name=name, metric=metric, lines=lines, pairs=pairs, seeds=seeds, items=items, **told)


def span(interval: Interval) -> str:
    """Both ends."""
    return f"{interval.low:.3f} to {interval.high:.3f}"


def probability(p: float) -> str:
    """A p value as people write it."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def signed_span(difference: Difference) -> str:
    """Both ends of a difference."""
    return f"{difference.low:+.3f} to {difference.high:+.3f}"


def _cells(found: Difference) -> tuple[str, ...]:
    return f"{found.value:+.3f}", signed_span(found), probability(found.p), found.verdict


def _told(found: Difference) -> dict[str, object]:
    return {**asdict(found), "verdict": found.verdict}


def _turned(pair: Pair) -> Pair:
    found = pair.difference
    return Pair(pair.b, pair.a, replace(found, value=-found.value, low=-found.high, high=-found.low))


def _listed(names: Sequence[str], before: str = "") -> str:
    return before + (", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0])


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if at in (0, last) else cell.rjust(width) for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
