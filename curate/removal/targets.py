"""Which rows leave, and which stored images and bytes leave with them; nothing is changed here.

A takedown by URL, url_id, sha256 or condition takes all rows of the URL, and all rows whose body or stored image is the
same bytes. One by sample_id takes that row; its image goes when no other row uses it, and only then its copies do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.catalog.views import NO_POLICY, connect, current_policy, explain_error, policies, quoted
from curate.errors import UsageError
from curate.removal.lists import Named, read_list
from curate.store import Pool
from curate.suppress import TABLE as SUPPRESSED
from curate.suppress import Suppression, read_suppression

if TYPE_CHECKING:
    import duckdb

ROW_COLUMNS = (
    "part",
    "row",
    "sample_id",
    "url_id",
    "sha256",
    "image_sha256",
    "tar_file",
    "tar_offset",
    "tar_size",
    "image_goes",
    "bytes_go",
)


@dataclass(frozen=True)
class Targets:
    """Rows to be removed, in (part, row) order, with `ROW_COLUMNS`; and what a list names that no row of the pool has."""

    rows: pa.Table
    named: int  # rows that the request itself names; the others have the same URL or bytes
    near_copies: int = 0  # rows that stay and that a groups table calls the same picture
    elsewhere: Named | None = None
    spared: int = 0  # purge: rows whose image a row that stays uses

    @property
    def parts(self) -> list[int]:
        """Parts that hold one of the rows."""
        return sorted(set(self.rows["part"].to_pylist()))


def takedown_targets(pool: Pool, where: str | None, listed: Path | None, only_named: bool, near_copies: bool) -> Targets:
    """What a takedown takes. Raises UsageError for a condition that does not hold, InputError for the list."""
    if (where is None) == (listed is None):
        raise UsageError("say what to take down: --where CONDITION or --list FILE, one of them")
    named = None if listed is None else read_list(listed)
    with connect(pool) as connection:
        _known(connection)
        _select_condition(connection, where) if where is not None else _select_list(connection, named or Named(*(frozenset(),) * 3))
        count = _count(connection, "SELECT count(*) FROM chosen")
        connection.execute("CREATE TEMP TABLE gone AS SELECT DISTINCT part, row FROM chosen")
        if near_copies:
            _add_near_copies(connection, pool)
        _close(connection, only_named)
        if SUPPRESSED in pool.tables():  # given again, a takedown finds nothing to do
            connection.execute(_ALREADY)
        left = _near_copies(connection, pool)
        return Targets(_rows(connection), count, left, named and _elsewhere(connection, named, read_suppression(pool)))


def purge_targets(pool: Pool, where: str) -> Targets:
    """What a purge deletes: images of rows that the condition names and no policy of the pool keeps.

    Raises UsageError when one of them is kept, or not yet decided by the current policy.
    """
    policy = current_policy(pool)
    if policy == NO_POLICY:
        raise UsageError("no policy was applied to this pool yet, so no row is dropped: run  curate filter  first")
    with connect(pool, policy) as connection:
        _known(connection)
        _select_condition(connection, where)
        connection.execute("DELETE FROM chosen WHERE (part, row) NOT IN (SELECT (part, row) FROM known WHERE tar_file IS NOT NULL)")
        for name in policies(pool):
            kept = _count(connection, f"SELECT count(*) FROM chosen JOIN {quoted(f'decisions_{name}')} USING (part, row) WHERE keep")
            if kept:
                raise UsageError(f"{kept:,} of these rows are kept by policy {name!r}: purge deletes bytes of dropped rows only")
        waiting = _count(connection, "SELECT count(*) FROM chosen JOIN samples USING (part, row) WHERE outcome = 'pending'")
        if waiting:
            raise UsageError(f"{waiting:,} of these rows are pending: apply the policy again, then purge what it drops")
        count = _count(connection, "SELECT count(*) FROM chosen")
        connection.execute("CREATE TEMP TABLE gone AS SELECT DISTINCT part, row FROM chosen")
        rows = _rows(connection)
    goes = rows.filter(rows["image_goes"])
    return Targets(goes, count, spared=rows.num_rows - goes.num_rows)


_ALREADY = """
    DELETE FROM gone WHERE (part, row) IN (
        SELECT (part, row) FROM known WHERE refused IS NOT NULL
        AND sample_id IN (SELECT sample_id FROM suppressed WHERE sample_id IS NOT NULL)
    )"""


def _known(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        """CREATE TEMP VIEW known AS SELECT r.part, r.row, r.sample_id, r.url_id, r.reason AS refused,
           f.sha256, f.image_sha256, f.tar_file, f.tar_offset, f.tar_size FROM "rows" r LEFT JOIN fetched f USING (part, row)"""
    )


def _select_condition(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """Rows of `samples` that satisfy the condition; `whole` says that their URL goes with all its rows."""
    import duckdb

    select = f"SELECT part, row FROM samples WHERE (\n{where}\n)"
    try:
        statements = connection.extract_statements(select)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UsageError("--where is one condition, not statements")
        connection.execute(f"CREATE TEMP TABLE chosen AS SELECT DISTINCT part, row, true AS whole FROM ({select})")
    except duckdb.Error as error:
        raise explain_error(connection, error) from None


def _select_list(connection: duckdb.DuckDBPyConnection, named: Named) -> None:
    for name, values in (("ids", named.ids), ("urls", named.url_ids), ("hashes", named.hashes)):
        connection.register(name, pa.table({"id": pa.array(sorted(values), pa.string())}))
    connection.execute(
        """CREATE TEMP TABLE chosen AS SELECT part, row, bool_or(whole) AS whole FROM (
               SELECT part, row, true AS whole FROM known SEMI JOIN urls ON url_id = id
               UNION ALL SELECT part, row, true FROM known SEMI JOIN ids ON url_id = id
               UNION ALL SELECT part, row, false FROM known SEMI JOIN ids ON sample_id = id
               UNION ALL SELECT part, row, true FROM known SEMI JOIN hashes ON sha256 = id
               UNION ALL SELECT part, row, true FROM known SEMI JOIN hashes ON image_sha256 = id
           ) GROUP BY part, row"""
    )


def _close(connection: duckdb.DuckDBPyConnection, only_named: bool) -> None:
    """Adds the other rows of the URLs, and of the bytes that go, until nothing is added any more."""
    by_url = "SELECT part, row FROM known WHERE url_id IN (SELECT url_id FROM known JOIN chosen USING (part, row) WHERE whole)"
    same_row = "SELECT part, row FROM known WHERE sample_id IN (SELECT sample_id FROM known SEMI JOIN gone USING (part, row))"
    _add(connection, same_row if only_named else f"{by_url} UNION {same_row}")
    while not only_named:
        connection.execute(
            """CREATE OR REPLACE TEMP TABLE leaving AS FROM (FROM known SEMI JOIN gone USING (part, row) WHERE tar_file IS NOT NULL)
               ANTI JOIN (FROM known ANTI JOIN gone USING (part, row) WHERE tar_file IS NOT NULL) USING (tar_file, tar_offset)"""
        )
        copies = """SELECT part, row FROM known WHERE url_id IN (SELECT url_id FROM known WHERE
            sha256 IN (SELECT sha256 FROM leaving) OR image_sha256 IN (SELECT image_sha256 FROM leaving))"""
        if not _add(connection, copies):
            return


def _add(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    before = _count(connection, "SELECT count(*) FROM gone")
    connection.execute(f"INSERT INTO gone SELECT part, row FROM ({rows}) ANTI JOIN gone USING (part, row)")
    return _count(connection, "SELECT count(*) FROM gone") - before


def _grouped(pool: Pool) -> list[str]:
    return [f"SELECT part, row, '{name}/' || group_id AS picture FROM {quoted(name)} WHERE match IN ('exact', 'perceptual')"
            for name in pool.tables() if name.startswith("groups_")]  # fmt: skip


def _copies_sql(pool: Pool) -> str | None:
    """Rows that show the same picture as a row that goes, by the groups that were found."""
    tables = _grouped(pool)
    if not tables:
        return None
    every = " UNION ALL ".join(tables)
    return f"SELECT DISTINCT part, row FROM ({every}) WHERE picture IN (SELECT picture FROM ({every}) SEMI JOIN gone USING (part, row))"


def _add_near_copies(connection: duckdb.DuckDBPyConnection, pool: Pool) -> None:
    copies = _copies_sql(pool)
    if copies:
        _add(connection, copies)
        connection.execute("INSERT INTO chosen SELECT part, row, true FROM gone ANTI JOIN chosen USING (part, row)")


def _near_copies(connection: duckdb.DuckDBPyConnection, pool: Pool) -> int:
    copies = _copies_sql(pool)
    return _count(connection, f"SELECT count(*) FROM ({copies}) ANTI JOIN gone USING (part, row)") if copies else 0


def _rows(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The rows that go.

    An image goes when all rows that use it do, and a row without one takes its URL along; its bytes go when no row that
    stays has equal ones in another place.
    """
    connection.execute("CREATE TEMP TABLE staying AS FROM known ANTI JOIN gone USING (part, row)")
    sql = f"""WITH used AS (SELECT DISTINCT tar_file, tar_offset, true AS stays FROM staying WHERE tar_file IS NOT NULL),
        urls AS (SELECT DISTINCT url_id, true AS stays FROM staying WHERE refused IS NULL),
        held AS (SELECT DISTINCT image_sha256, true AS stays FROM staying WHERE tar_file IS NOT NULL)
        SELECT {", ".join(ROW_COLUMNS)} FROM (
            SELECT k.*, CASE WHEN k.tar_file IS NULL THEN urls.stays ELSE used.stays END IS NULL AS image_goes,
                k.tar_file IS NOT NULL AND used.stays IS NULL AND held.stays IS NULL AS bytes_go
            FROM (FROM known SEMI JOIN gone USING (part, row)) k
            LEFT JOIN used ON used.tar_file = k.tar_file AND used.tar_offset = k.tar_offset
            LEFT JOIN urls ON urls.url_id = k.url_id LEFT JOIN held ON held.image_sha256 = k.image_sha256
        ) ORDER BY part, row"""
    found: pa.Table = connection.sql(sql).to_arrow_table()
    return found


def _elsewhere(connection: duckdb.DuckDBPyConnection, named: Named, barred: Suppression) -> Named:
    """Entries of the list that no row of the pool has and that are not barred yet."""

    def unknown(name: str, *columns: str) -> frozenset[str]:
        sql = f"SELECT id FROM {name}" + "".join(f" ANTI JOIN (SELECT {column} AS id FROM known) USING (id)" for column in columns)
        return frozenset(str(line[0]) for line in connection.execute(sql).fetchall())

    ids = {name for name in unknown("ids", "sample_id", "url_id") if not barred.holds(name, name)}
    return Named(frozenset(ids), unknown("urls", "url_id") - barred.url_ids, unknown("hashes", "sha256", "image_sha256") - barred.hashes)


def _count(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object] | None = None) -> int:
    return int(connection.execute(sql, dict(values or {})).fetchall()[0][0])
