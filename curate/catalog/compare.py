"""Two policies, or two scores, on the same rows: what each keeps and the other does not, and where.

A side is a policy that was applied, or a column of numbers of `samples`, of which the highest share is kept. Rows count that
at least one side judged: a policy judges rows that it keeps or drops, a column those that have a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb

from curate.catalog.gather import HOST, Gatherer, Sample
from curate.catalog.pages import render, veil_text, write_page
from curate.catalog.sql import printable
from curate.catalog.thumbnails import thumbnails
from curate.catalog.views import NO_POLICY, connect, policies, quoted
from curate.errors import UsageError
from curate.lease import refuse_unfinished
from curate.schema import nearest
from curate.store import Pool

LINES = 12
PICTURES = 24
_NUMBERS = ("FLOAT", "DOUBLE", "INTEGER", "BIGINT")
_SIDE = "least(original_width, original_height)"
_SIZES = f"""CASE WHEN {_SIDE} IS NULL THEN NULL WHEN {_SIDE} < 200 THEN 'below 200 pixels' WHEN {_SIDE} < 400 THEN '200 to 399'
    WHEN {_SIDE} < 800 THEN '400 to 799' WHEN {_SIDE} < 1600 THEN '800 to 1599' ELSE '1600 and more' END"""
_BY = {"language": "caption_language", "domain": HOST, "concept": "unnest(concept_ids)", "size (smaller side)": _SIZES}
_NEEDS = {"language": "caption_language", "domain": "url", "concept": "concept_ids", "size (smaller side)": "original_width"}


@dataclass(frozen=True)
class Line:
    """Rows of one language, domain, concept or size: all that were judged, and those kept by each side, and by both."""

    name: str
    rows: int
    kept_a: int
    kept_b: int
    both: int


@dataclass(frozen=True)
class Table:
    """The lines of one kind on which the sides differ most, of `count`."""

    by: str
    count: int
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    """What sides `a` and `b` make of the rows that either judged.

    `only_a` and `only_b` are rows on which they disagree, drawn by hash; a picture's `reason` is why the other side does not
    keep it.
    """

    a: str
    b: str
    total: Line
    tables: tuple[Table, ...]
    only_a: tuple[Sample, ...]
    only_b: tuple[Sample, ...]
    veil_column: str | None
    page: Path | None = None

    @property
    def jaccard(self) -> float:
        """Rows kept by both over rows kept by either; 1 when neither keeps any."""
        either = self.total.kept_a + self.total.kept_b - self.total.both
        return self.total.both / either if either else 1.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        tables = {table.by: [vars(line) for line in table.lines] for table in self.tables}
        page = None if self.page is None else str(self.page)
        return {"a": self.a, "b": self.b, **_counts(self.total), "jaccard": self.jaccard, "by": tables, "page": page}

    def text(self) -> str:
        """For a terminal."""
        end = [] if self.page is None else ["", f"open {self.page}"]
        return "\n".join([*self._heading(), *(line for table in self.tables for line in self._table(table)), *end])

    def _heading(self) -> list[str]:
        total, width = self.total, max(len(self.a), len(self.b), 4)
        told = ((self.a, total.kept_a, total.kept_a - total.both), (self.b, total.kept_b, total.kept_b - total.both))
        return [
            f"of {total.rows:,} rows that either judged",
            *(
                f"  {name:<{width}}  keeps {kept:>10,}  {share(kept, total.rows):>6}   {only:>10,} of them alone"
                for name, kept, only in told
            ),
            f"  {'both':<{width}}  keep  {total.both:>10,}  {share(total.both, total.rows):>6}   Jaccard {self.jaccard:.3f}",
        ]

    def _table(self, table: Table) -> list[str]:
        width = max(len(table.by), *(len(line.name) for line in table.lines))
        columns = ("rows", "only A", "only B", "of A", "of B")
        lines = ["", f"  {table.by:<{width}}" + "".join(f" {name:>10}" for name in columns)]
        for line in table.lines:
            numbers = (f"{line.rows:,}", f"{line.kept_a - line.both:,}", f"{line.kept_b - line.both:,}", *self.shares(line))
            lines.append(f"  {line.name:<{width}}" + "".join(f" {number:>10}" for number in numbers))
        more = table.count - len(table.lines)
        return [*lines, f"  … {more:,} more, on which they differ less"] if more else lines

    def shares(self, line: Line) -> tuple[str, str]:
        """Which part of all that A keeps, and of all that B keeps, these rows are."""
        return share(line.kept_a, self.total.kept_a), share(line.kept_b, self.total.kept_b)


def share(part: int, whole: int) -> str:
    """In percent; a dash of nothing."""
    return f"{part / whole:.1%}" if whole else "–"


def _counts(line: Line) -> dict[str, int]:
    return {name: value for name, value in vars(line).items() if name != "name"}


def compare(pool: Pool, a: str, b: str, fraction: float = 0.3, output: Path | None = None, reveal: bool = False) -> Comparison:
    """Of a side that is a column, the highest `fraction` of its numbers is kept; of equal ones the smaller sample_id stays.

    With `output`, a page with pictures, veiled as in the report unless `reveal`, is written there. Raises UsageError for a side
    that is neither policy nor column of numbers, or is the other one, and LocalFault when the page cannot be written.
    """
    if output is not None:
        refuse_unfinished(pool)  # pictures that are being withdrawn would be shown once more
    found = _compared(pool, a, b, fraction)
    return found if output is None else replace(found, page=_page(pool, found, output, reveal))


def _compared(pool: Pool, a: str, b: str, fraction: float) -> Comparison:
    if a == b:
        raise UsageError(f"{a} and {b} are one: name two policies, or two columns of scores")
    if not 0 < fraction < 1:
        raise UsageError(f"a share lies between 0 and 1, not at {fraction:g}")
    applied = policies(pool)
    with connect(pool, a if a in applied else NO_POLICY) as connection:
        columns = {str(line[0]): str(line[1]) for line in connection.execute("DESCRIBE samples").fetchall()}
        one, other = (_side(connection, name, applied, columns, fraction) for name in (a, b))
        connection.execute(
            f"""CREATE TEMP TABLE sides AS SELECT part, row, coalesce(a.keep, false) AS a, coalesce(b.keep, false) AS b,
                a.reason AS because_a, b.reason AS because_b FROM ({one}) AS a FULL JOIN ({other}) AS b USING (part, row)"""
        )
        named = {"concept": _concepts(pool)}
        tables = [_table(connection, by, named.get(by, str)) for by, column in _NEEDS.items() if column in columns]
        total = next(iter(_lines(connection, "'all'")), Line("all", 0, 0, 0, 0))
        gatherer = Gatherer(connection, [])
        only = [_disagreement(gatherer, *sides) for sides in (("a", "b"), ("b", "a"))]
        return Comparison(a, b, total, tuple(table for table in tables if table.lines), only[0], only[1], gatherer.veil_column)


def _side(
    connection: duckdb.DuckDBPyConnection, name: str, applied: Sequence[str], columns: Mapping[str, str], fraction: float
) -> str:  # fmt: skip
    """SQL of one line (part, row, keep, reason) for each row that the side judged."""
    if name in applied:
        judged = f"SELECT part, row, coalesce(keep, false) AS keep, reason FROM {quoted(f'decisions_{name}')}"
        return f"{judged} WHERE keep OR len(failed_rules) > 0"
    numbers = [column for column, kind in columns.items() if kind in _NUMBERS]
    if name not in numbers:
        raise UsageError(f"{name} is no policy that was applied and no column of numbers{nearest(name, [*applied, *numbers])}")
    column = quoted(name)
    has = f"FROM samples WHERE isfinite({column}::DOUBLE)"
    of = int(connection.execute(f"SELECT count(*) {has}").fetchall()[0][0])
    kept = math.floor(Fraction(str(fraction)) * of + Fraction(1, 2))
    ranked = f"SELECT part, row, row_number() OVER (ORDER BY {column} DESC, sample_id, part, row) AS place {has}"
    return f"SELECT part, row, place <= {kept} AS keep, 'not among the highest' AS reason FROM ({ranked})"


def _disagreement(gatherer: Gatherer, keeps: str, drops: str) -> tuple[Sample, ...]:
    """Rows with a picture that one side keeps and the other does not."""
    shown = f"looked.* REPLACE ('dropped' AS outcome, coalesce(because_{drops}, 'not judged') AS reason), NULL AS value"
    return gatherer.samples(
        f"SELECT {shown} FROM looked JOIN sides USING (part, row) WHERE {keeps} AND NOT {drops} AND tar_file IS NOT NULL"
        f" ORDER BY lot LIMIT {PICTURES}"
    )


def _lines(connection: duckdb.DuckDBPyConnection, expression: str) -> list[Line]:
    """Counts by an expression over `samples`, the lines on which the sides differ most first."""
    sql = f"""SELECT name, count(*), count(*) FILTER (a), count(*) FILTER (b), count(*) FILTER (a AND b)
        FROM (SELECT {expression} AS name, a, b FROM samples JOIN sides USING (part, row)) WHERE name IS NOT NULL GROUP BY name"""
    found = [Line(str(line[0]), *map(int, line[1:])) for line in connection.execute(sql).fetchall()]
    return sorted(found, key=lambda line: (-abs(line.kept_a - line.kept_b), -line.rows, line.name))


def _table(connection: duckdb.DuckDBPyConnection, by: str, named: Callable[[str], str]) -> Table:
    lines = _lines(connection, _BY[by])
    return Table(by, len(lines), tuple(replace(line, name=named(line.name)) for line in lines[:LINES]))


def _concepts(pool: Pool) -> Callable[[str], str]:
    """The entry of a concept's number, where the list still lies where it was."""
    settings: Any = (pool.read_document("settings") or {}).get("settings") or {}
    path = ((settings.get("score") or {}).get("concepts") or {}).get("path")
    try:
        entries = Path(path).read_text(encoding="utf-8").splitlines() if path else []
    except (OSError, UnicodeDecodeError):
        entries = []
    return lambda number: entries[int(number)].strip() if int(number) < len(entries) else f"concept {number}"


def _page(pool: Pool, found: Comparison, out: Path, reveal: bool) -> Path:
    samples = [*found.only_a, *found.only_b]
    content = {
        "found": found, "counts": _pieces(found.total), "pieces": _pieces, "pictures": thumbnails(pool, samples, reveal),
        "veiled": any(sample.veiled for sample in samples), "reveal": reveal, "veil_text": veil_text(found.veil_column),
        "pool_name": pool.path.name, "title": printable(pool.path.name),
    }  # fmt: skip
    return write_page(render("compare.html", content), out)


def _pieces(line: Line) -> dict[str, int]:
    """Rows by who keeps them; they add up."""
    only_a, only_b = line.kept_a - line.both, line.kept_b - line.both
    return {"both": line.both, "only-a": only_a, "only-b": only_b, "neither": line.rows - line.both - only_a - only_b}
