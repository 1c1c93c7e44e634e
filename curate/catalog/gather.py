"""What the report shows: numbers, distributions and sampled rows, all from one pinned view of the pool.

Every choice of rows is a hash of sample_id and a fixed seed, so that a page made twice from one pool is one page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from curate.catalog.cuts import Cut
from curate.catalog.views import quoted
from curate.media.url import redacted

BINS = 48
NEAR_ROWS = 64  # the closest rows on each side of a cut, of which some are shown
SHOWN = 8
GROUPS_SHOWN = 8
MEMBERS_SHOWN = 8
DOMAINS_SHOWN = 15
SEED = 0

_SAFETY = re.compile(r"(nsfw|unsafe|safety|punsafe|pwatermark_nsfw)", re.IGNORECASE)
_HARMLESS = "('', '0', 'FALSE', 'NO', 'SAFE', 'SFW', 'UNLIKELY')"
_UNDRAWN = ("phash",)
HOST = "coalesce(host(url), '')"


@dataclass(frozen=True)
class Sample:
    """One row to be shown, with what it takes to read its image."""

    sample_id: str
    url: str
    caption: str
    outcome: str
    reason: str | None
    value: float | None
    veiled: bool  # flagged as unsafe, or not scored for safety
    tar_file: str | None
    tar_offset: int | None
    tar_size: int | None


@dataclass(frozen=True)
class Distribution:
    """A histogram: `edges` has one entry more than `kept` and `other`; on a `logarithmic` axis edges grow by a factor."""

    label: str
    edges: tuple[float, ...]
    kept: tuple[int, ...]
    other: tuple[int, ...]
    logarithmic: bool
    rows: int


@dataclass(frozen=True)
class CutView:
    """A cut with its distribution and rows from both sides; counts are of rows with an image."""

    cut: Cut
    distribution: Distribution | None
    failing: int
    passing: int
    below: tuple[Sample, ...]
    above: tuple[Sample, ...]


@dataclass(frozen=True)
class Group:
    """Rows that show one picture, the kept one first."""

    group_id: str
    size: int
    match: str
    members: tuple[Sample, ...]


class Gatherer:
    """Asks the questions of one page; `connection` shows the policy's decisions."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, cuts: Sequence[Cut]) -> None:
        self._connection = connection
        self.columns = {str(line[0]): str(line[1]) for line in connection.execute("DESCRIBE samples").fetchall()}
        self._cuts = [cut for cut in cuts if self._can_be_asked(cut.expression)]
        self.veil_column = next((name for name in self.columns if _SAFETY.match(name)), None)
        self._measure()

    def _can_be_asked(self, expression: str) -> bool:
        """Expressions with a subquery of their own may name what only exists inside it."""
        try:
            self._connection.execute(f"DESCRIBE SELECT CAST({expression} AS DOUBLE) FROM samples")
        except duckdb.Error:
            return False
        return True

    def _measure(self) -> None:
        """Every cut's value for every row, once; window functions must see all rows."""
        measured = "".join(f", CAST({cut.expression} AS DOUBLE) AS {quoted(f'cut {n}')}" for n, cut in enumerate(self._cuts))
        scores = "".join(f", CAST({quoted(name)} AS DOUBLE) AS {quoted(f'score {name}')}" for name in self.score_columns())
        self._connection.execute(
            f"""CREATE TEMP TABLE looked AS SELECT part, row, sample_id, coalesce(url, '') AS url, coalesce(caption, '') AS caption,
            outcome, reason, tar_file, tar_offset, tar_size, group_id, group_size, match, {HOST} AS host, {self._veil()} AS veiled,
            md5(sample_id || ':{SEED}') AS lot{measured}{scores} FROM samples"""
        )

    def _veil(self) -> str:
        """True where a row is flagged as unsafe or was never judged; a pool without any such score veils every row."""
        flagged = "coalesce(list_contains(failed_rules, 'nsfw'), false)"
        if self.veil_column is None:
            return "true"
        name, kind = quoted(self.veil_column), self.columns[self.veil_column]
        unsafe = f"upper({name}) NOT IN {_HARMLESS}" if kind == "VARCHAR" else f"CAST({name} AS DOUBLE) >= 0.5"
        return f"({flagged} OR coalesce({unsafe}, true))"

    def score_columns(self) -> list[str]:
        """Columns of numbers about images and captions, CLIP first; sizes are among them."""
        names = [name for name, kind in self.columns.items() if kind in ("FLOAT", "DOUBLE", "INTEGER", "BIGINT") and _is_measure(name)]
        return sorted(names, key=lambda name: (not name.startswith("clip_"), name))

    # -- pictures around cuts

    def cut_views(self) -> list[CutView]:
        """One view per cut that can be asked, in the policy's order."""
        return [self._cut_view(number, cut) for number, cut in enumerate(self._cuts)]

    def _cut_view(self, number: int, cut: Cut) -> CutView:
        name = quoted(f"cut {number}")
        fails = f"{name} {cut.operator} {cut.value!r}"
        sides = {
            side: f"tar_file IS NOT NULL AND isfinite({name}) AND {wanted}"
            for side, wanted in (("fail", fails), ("pass", f"NOT ({fails})"))
        }
        counts = {side: self._number(f"SELECT count(*) FROM looked WHERE {where}") for side, where in sides.items()}
        shown = {side: self._near(name, where, cut.value) for side, where in sides.items()}
        below, above = ("fail", "pass") if cut.fails_below else ("pass", "fail")
        drawn = self._distribution(name, cut.expression, cut)
        return CutView(cut, drawn, counts["fail"], counts["pass"], shown[below], shown[above])

    def _near(self, name: str, where: str, value: float) -> tuple[Sample, ...]:
        lot = f"md5(lot || {_text(name)})"  # another draw for each cut
        near = f"SELECT *, {name} AS value FROM looked WHERE {where} ORDER BY abs({name} - {value!r}), lot LIMIT {NEAR_ROWS}"
        return self.samples(f"FROM (FROM ({near}) ORDER BY {lot} LIMIT {SHOWN}) ORDER BY value, lot")

    # -- other samples

    def kept(self, count: int = 2 * SHOWN) -> tuple[Sample, ...]:
        """Kept rows at random."""
        return self.samples(f"SELECT *, NULL AS value FROM looked WHERE outcome = 'kept' ORDER BY lot LIMIT {count}")

    def groups(self) -> list[Group]:
        """Duplicate groups at random; members with an image, the kept one first."""
        sql = f"""SELECT group_id, max(group_size), max(match) FROM looked WHERE group_id IS NOT NULL AND tar_file IS NOT NULL
                  GROUP BY group_id HAVING count(*) > 1 ORDER BY md5(group_id || ':{SEED}') LIMIT {GROUPS_SHOWN}"""
        found = self._connection.execute(sql).fetchall()
        return [Group(str(group), int(size), str(match), self._members(str(group))) for group, size, match in found]

    def _members(self, group_id: str) -> tuple[Sample, ...]:
        sql = f"""SELECT *, NULL AS value FROM looked WHERE group_id = $group AND tar_file IS NOT NULL
                  ORDER BY outcome != 'kept', lot LIMIT {MEMBERS_SHOWN}"""
        return self.samples(sql, {"group": group_id})

    def samples(self, sql: str, values: Mapping[str, object] | None = None) -> tuple[Sample, ...]:
        """The rows of a query over `looked`, to be shown."""
        names = list(Sample.__dataclass_fields__)
        lines: list[dict[str, Any]] = (
            self._connection.sql(f"SELECT {', '.join(names)} FROM ({sql})", params=values).to_arrow_table().to_pylist()
        )
        return tuple(Sample(**line | {"url": redacted(line["url"])}) for line in lines)

    # -- distributions

    def distributions(self) -> list[Distribution]:
        """Of every score that has values and is not drawn with a cut already."""
        taken = {cut.expression for cut in self._cuts}
        clip_is_cut = "clip_score" in taken
        found = []
        for name in self.score_columns():
            if name not in taken and not (clip_is_cut and name == self._clip_twin()):
                drawn = self._distribution(quoted(f"score {name}"), name, None)
                found += [drawn] if drawn else []
        return found

    def _clip_twin(self) -> str | None:
        """The column that `clip_score` repeats."""
        for name in self.columns:
            if name.startswith("clip_") and name != "clip_score" and "clip_score" in self.columns:
                differ = f"SELECT count(*) FROM samples WHERE {quoted(name)} IS DISTINCT FROM clip_score"
                if not self._number(differ):
                    return name
        return None

    def _distribution(self, name: str, label: str, cut: Cut | None) -> Distribution | None:
        where = f"tar_file IS NOT NULL AND isfinite({name})"
        facts = f"count(*), min({name}), quantile_cont({name}, [0.005, 0.5, 0.995]), max({name}), bool_and({name} = round({name}))"
        rows, low, quantiles, high, whole = self._connection.execute(f"SELECT {facts} FROM looked WHERE {where}").fetchall()[0]
        if not rows:
            return None
        logarithmic = low > 0 and quantiles[2] > 8 * quantiles[1] and high > 20
        few = whole and high - low < BINS
        start, end = _range(low if few else quantiles[0], high if few else quantiles[2], cut.value if cut else None)
        edges = _edges(start, end, bool(whole), logarithmic and start > 0, _anchor(cut, bool(whole)))
        counts = {outcome: self._counts(name, f"{where} AND (outcome = 'kept') = {outcome}", edges) for outcome in (True, False)}
        return Distribution(label, tuple(edges), counts[True], counts[False], bool(logarithmic and start > 0), int(rows))

    def _counts(self, name: str, where: str, edges: np.ndarray) -> tuple[int, ...]:
        """Rows per bin; what lies outside falls into the first and last."""
        inner = ", ".join(repr(float(edge)) for edge in edges[1:-1])
        position = f"len(list_filter([{inner}], lambda edge: edge <= {name}))" if inner else "0"
        found = dict(self._connection.execute(f"SELECT {position} AS bin, count(*) FROM looked WHERE {where} GROUP BY bin").fetchall())
        return tuple(int(found.get(number, 0)) for number in range(len(edges) - 1))

    # -- tables

    def domains(self) -> list[tuple[str, dict[str, int]]]:
        """The hosts with most rows, and how their rows ended."""
        sql = f"""SELECT host, outcome, count(*) FROM looked WHERE host IN (SELECT host FROM looked WHERE host != '' GROUP BY host
                  ORDER BY count(*) DESC, host LIMIT {DOMAINS_SHOWN}) GROUP BY ALL"""
        return _by_first(self._connection.execute(sql).fetchall())

    def domain_count(self) -> int:
        """How many hosts there are."""
        return self._number("SELECT count(DISTINCT host) FROM looked WHERE host != ''")

    def languages(self) -> list[tuple[str, dict[str, int]]]:
        """Caption languages of rows with an image, most frequent first, and how these rows ended."""
        if "caption_language" not in self.columns:
            return []
        sql = (
            """SELECT coalesce(caption_language, '?') AS language, outcome, count(*) FROM samples WHERE tar_file IS NOT NULL GROUP BY ALL"""
        )
        return _by_first(self._connection.execute(sql).fetchall())[:12]

    def formats(self) -> list[tuple[str, dict[str, int]]]:
        """Formats of the originals, and how their rows ended."""
        sql = "SELECT original_format, outcome, count(*) FROM samples WHERE original_format IS NOT NULL GROUP BY ALL"
        return _by_first(self._connection.execute(sql).fetchall())

    def examples(self) -> dict[str, str]:
        """One URL for each reason."""
        sql = "SELECT reason, min_by(url, lot) FROM looked WHERE reason IS NOT NULL GROUP BY reason"
        return {reason: redacted(url or "") for reason, url in self._connection.execute(sql).fetchall()}

    def _number(self, sql: str) -> int:
        return int(self._connection.execute(sql).fetchall()[0][0])


def _is_measure(name: str) -> bool:
    """Whether a numeric column describes image, caption or their match."""
    if name in _UNDRAWN or name == "clip_score":
        return False
    return name.startswith(("clip_", "caption_", "image_", "text_", "face_", "aesthetic", "nsfw", "watermark"))


def _by_first(lines: Sequence[tuple[Any, ...]]) -> list[tuple[str, dict[str, int]]]:
    found: dict[str, dict[str, int]] = {}
    for name, outcome, rows in lines:
        found.setdefault(str(name), {})[str(outcome)] = int(rows)
    return sorted(found.items(), key=lambda entry: (-sum(entry[1].values()), entry[0]))


def _range(low: float, high: float, cut: float | None) -> tuple[float, float]:
    """The quantiles, widened so that a cut can be seen."""
    if cut is None:
        return low, high
    margin = 0.04 * (high - low)
    return min(low, cut - margin), max(high, cut + margin)


def _anchor(cut: Cut | None, whole: bool) -> float | None:
    """Where an edge must lie, so that no bar has rows of both sides: whole numbers up to 5 and above 5 part at 6."""
    if cut is None:
        return None
    return cut.value + 1 if whole and cut.operator in (">", "<=") else cut.value


def _edges(low: float, high: float, whole: bool, logarithmic: bool, anchor: float | None) -> np.ndarray:
    """Bin edges, one of them at `anchor`; whole numbers in a short range get a bin each."""
    if logarithmic:
        at = math.log(anchor) if anchor is not None and anchor > 0 else None
        edges: np.ndarray = np.exp(_steps(math.log(low), math.log(max(high, low * 2)), None, at))
        return edges
    if whole:
        return _steps(math.floor(low), math.floor(high) + 1, max(1, math.ceil((high - low + 1) / BINS)), anchor)
    return _steps(low, high if high > low else low + 1, None, anchor)


def _steps(low: float, high: float, step: float | None, anchor: float | None) -> np.ndarray:
    """Equal steps from `low` or a little below to `high` or a little above."""
    step = step or (high - low) / BINS
    first = low if anchor is None else anchor - math.ceil((anchor - low) / step - 1e-9) * step
    edges: np.ndarray = first + step * np.arange(math.ceil((high - first) / step - 1e-9) + 1)
    return edges


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
