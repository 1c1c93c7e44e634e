"""What was found, counted by evaluation set, and a page with both pictures side by side."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from curate.catalog.gather import Gatherer
from curate.catalog.pages import render, veil_text, write_page
from curate.catalog.sql import printable
from curate.catalog.thumbnails import miniature, thumbnails
from curate.catalog.views import NO_POLICY, connect
from curate.decontaminate.clearance import Clearance
from curate.decontaminate.index import Index, Tally
from curate.decontaminate.phase import METHODS, TABLE
from curate.media.header import MediaError
from curate.store import Pool

SHOWN = 200
_ROWS = """SELECT count(contaminated), count(*) FILTER (contaminated), count(*) FILTER (NOT contaminated AND len(contamination) > 0)
    FROM samples"""

_FINDINGS = """CREATE TEMP TABLE findings AS SELECT part, row, sample_id, one.item, one.method, one.distance, one.cosine,
    one.similarity, one.words, one.cleared FROM (SELECT part, row, sample_id, unnest(contamination) AS one FROM samples)"""


@dataclass(frozen=True)
class Found:
    """Of one evaluation set: items, those without a picture that can be read, those that are in the pool, and the rows that have them."""

    evaluation: str
    items: int
    undecodable: int
    found: int
    rows: int
    by: dict[str, int]  # rows by method


@dataclass(frozen=True)
class DecontaminateReport:
    """Rows with an image, how many are contaminated and how many have only evidence that was cleared, and the same by set."""

    rows: int
    contaminated: int
    cleared: int
    sets: tuple[Found, ...]
    unused_clearances: int
    page: Path | None

    def text(self) -> str:
        """For a terminal."""
        share = f" ({self.contaminated / self.rows:.3%})" if self.rows else ""
        lines = [f"{self.contaminated:,} of {self.rows:,} rows with an image are contaminated{share}; {self.cleared:,} more were cleared"]
        for one in self.sets:
            how = ", ".join(f"{rows:,} by {method}" for method, rows in one.by.items() if rows) or "none"
            broken = f"; {one.undecodable:,} have no picture that can be read" if one.undecodable else ""
            lines.append(f"  {printable(one.evaluation)}: {one.found:,} of {one.items:,} items are in {one.rows:,} rows ({how}){broken}")
        unused = [f"{self.unused_clearances:,} lines of what is cleared name nothing that was found"] if self.unused_clearances else []
        shown = [f"open {self.page}"] if self.page else []
        return "\n".join([*lines, *unused, f"evidence in table {TABLE}; a policy's rule:  coalesce(contaminated, false)", *shown])


def report(
    pool: Pool, tallies: Sequence[Tally], clearance: Clearance, index: Index, output: Path | None, reveal: bool
) -> DecontaminateReport:
    """Reads the table that was just written. Raises LocalFault when the page cannot be."""
    with connect(pool, NO_POLICY) as connection:
        connection.execute(_FINDINGS)
        rows, dirty, cleared = (int(number) for number in connection.execute(_ROWS).fetchall()[0])
        found = tuple(_of_set(connection, tally) for tally in tallies)
        told = connection.execute("SELECT sample_id, item FROM findings WHERE cleared").fetchall()
        used = {line for sample, item in told for line in (sample, item, f"{sample}\t{item}")}
        page = None if output is None else _page(pool, connection, index, found, (rows, dirty), output, reveal)
    return DecontaminateReport(rows, dirty, cleared, found, len(clearance.lines - used), page)


def _of_set(connection: duckdb.DuckDBPyConnection, tally: Tally) -> Found:
    methods = ", ".join(f"count(DISTINCT (part, row)) FILTER (method = '{method}')" for method in METHODS)
    sql = f"SELECT count(DISTINCT item), count(DISTINCT (part, row)), {methods} FROM findings WHERE starts_with(item, ?)"
    items, rows, *by = (int(number) for number in connection.execute(sql, [f"{tally.name}/"]).fetchall()[0])
    return Found(tally.name, tally.items, tally.undecodable, items, rows, dict(zip(METHODS, by, strict=True)))


def _page(
    pool: Pool, connection: duckdb.DuckDBPyConnection, index: Index, found: Sequence[Found], counts: tuple[int, int], out: Path,
    reveal: bool,
) -> Path:  # fmt: skip
    """The least certain findings first: those are what a person must look at."""
    gatherer = Gatherer(connection, [])
    connection.execute(
        "CREATE TEMP TABLE shown AS SELECT row_number() OVER (ORDER BY cleared, method = 'bytes', similarity, sample_id, item) AS place, *"
        f" FROM findings QUALIFY place <= {SHOWN}"
    )
    findings = connection.sql("FROM shown ORDER BY place").to_arrow_table().to_pylist()
    said = "looked.* REPLACE (CASE WHEN cleared THEN 'kept' ELSE 'dropped' END AS outcome, NULL AS reason), similarity AS value"
    samples = gatherer.samples(f"SELECT {said} FROM looked JOIN shown USING (part, row) ORDER BY place")
    numbers = {name: at for at, name in enumerate(index.names)}
    veiled = {sample.sample_id: sample.veiled and not reveal for sample in samples}
    items = {(line["item"], veiled[line["sample_id"]]) for line in findings}
    content = {
        "pairs": list(zip(samples, findings, strict=True)), "sets": found, "rows": counts[0], "contaminated": counts[1],
        "items": {key: _item(index, numbers[key[0]], key[1]) for key in items}, "pictures": thumbnails(pool, samples, reveal),
        "veiled": any(veiled.values()), "reveal": reveal, "veil_text": veil_text(gatherer.veil_column),
        "pool_name": pool.path.name, "title": printable(pool.path.name),
    }  # fmt: skip
    return write_page(render("contamination.html", content), out)


def _item(index: Index, item: int, veiled: bool) -> str | None:
    """An item's picture as a data: address, veiled where the row's is."""
    try:
        return "data:image/jpeg;base64," + base64.b64encode(miniature(index.picture(item), veiled)).decode()
    except MediaError:
        return None
