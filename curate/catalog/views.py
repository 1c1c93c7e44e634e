"""DuckDB views over one pinned version of every table of a pool, and the joined view `samples`.

Where `curate compact` has left copies of many parts in one file, these are read in place of the parts' own.

The connection can read the pool's pinned Parquet files and nothing else: no other file, no network, no extension, no
setting. DuckDB would still let a COPY statement *write* to a file that it may read, so text that a person typed goes
through `one_select` before it runs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from curate import schema as schemas
from curate.catalog.stretches import Stretch, reading, stretches
from curate.catalog.subsets import read_subset
from curate.compact import Source, sources
from curate.errors import REASONS, UsageError, Withdrawn
from curate.media.url import site
from curate.objects import ObjectPath, Objects
from curate.schema import KEY, SOURCE_PREFIX, nearest, resources
from curate.store import CURRENT, Pool, Snapshot

NO_POLICY = ""
"""Given as `policy`: join no decisions but the prefilter's, so that every row with a score is still undecided."""

MEMORY_BYTES = 1 << 30
"""What a question about a pool may hold in memory, unless it says otherwise; more goes to the scratch folder."""

_ALWAYS = ("rows", "decisions_prefilter", "fetched")
_WHOLE = ("groups_", "pairs_", "shards")  # tables with all columns of their family, also where an older pool has fewer
_HIDDEN = ("part", "row", "basis", "reason", "earlier_parts")
_FAILED = ", ".join(f"'{name}'" for name, reason in REASONS.items() if reason.outcome == "failed")


def connect(
    pool: Pool,
    policy: str | None = None,
    versions: Mapping[str, int] | None = None,
    groups: str | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with a view per table, the table `reasons`, the view `samples`, and the functions `host` and `domain`.

    `samples` joins the decisions of `policy` (default: the pool's current one; `NO_POLICY` for none). `versions` pins
    tables to an older version; the rest are pinned to the newest. `clip_score` and the group columns are the ones that
    the policy used; `groups` names others. What exceeds `memory_bytes` DuckDB holds in the scratch folder. Raises UsageError
    for a policy that was not applied.
    """
    opened = _Opening(pool, policy, versions, groups, memory_bytes)
    opened.connection.execute(opened.samples_sql("samples", opened.joined()))
    return opened.locked()


def connect_stretches(
    pool: Pool, versions: Mapping[str, int], groups: str | None, memory_bytes: int
) -> tuple[duckdb.DuckDBPyConnection, list[Stretch]]:
    """The same without a policy, where `samples` is made of a view for each stretch of the pool: for whoever reads most rows.

    A stretch's view gives its rows in order, unless one of its tables lies otherwise.
    """
    opened = _Opening(pool, NO_POLICY, versions, groups, memory_bytes)
    wanted = {name: opened.files[name] for name in ("rows", *opened.tables().values()) if name in opened.files}
    found = stretches(opened.connection, wanted, {name: opened.shape(name) for name in wanted})
    for one in found:
        opened.connection.execute(opened.samples_sql(one.view, opened.joined(one)))
    union = " UNION ALL ".join(f"FROM {one.view}" for one in found)
    opened.connection.execute(f"CREATE VIEW samples AS {union}" if found else opened.samples_sql("samples", opened.joined()))
    return opened.locked(), found


class _Opening:
    """A connection to a pool while its views are made."""

    def __init__(self, pool: Pool, policy: str | None, versions: Mapping[str, int] | None, groups: str | None, memory_bytes: int) -> None:
        self.policy = current_policy(pool) if policy is None else policy
        self.snapshots = pin(pool, versions)
        if self.policy and f"decisions_{self.policy}" not in self.snapshots:
            raise UsageError(f"policy {self.policy!r} was not applied to this pool{nearest(self.policy, policies(pool))}")
        scratch = str(pool.scratch / f"duckdb-{uuid.uuid4().hex[:12]}")
        self.connection = duckdb.connect(config={"temp_directory": scratch, "memory_limit": f"{memory_bytes}B"})
        self.files = {name: sources(pool, snapshot) for name, snapshot in self.snapshots.items()}
        _add_objects(self.connection, pool, [source for found in self.files.values() for source in found])
        self.connection.execute("SET parquet_metadata_cache = true; SET preserve_insertion_order = false; CREATE SCHEMA empty")
        _add_reasons(self.connection)
        _add_functions(self.connection)
        for name in sorted({*self.snapshots, *_ALWAYS}):
            empty = _add_empty(self.connection, name, self.shape(name))
            self.connection.execute(f"CREATE VIEW {quoted(name)} AS {_typed(empty, self.files.get(name, ()))}")
        for name in ("groups", "decisions"):
            _add_empty(self.connection, name, schemas.table(name))
        subset = read_subset(pool, self.policy)
        current = current_clip_column(pool, self.snapshots)
        self.clip = subset.clip_column if subset.clip_column in clip_columns(self.snapshots) else current
        self.groups = groups or subset.groups

    def shape(self, name: str) -> pa.Schema:
        """A table's declared columns."""
        snapshot = self.snapshots.get(name)
        if name.startswith(_WHOLE) or snapshot is None or snapshot.schema is None:
            return schemas.table(name)
        return snapshot.schema

    def tables(self) -> dict[str, str]:
        """What `samples` joins to `rows`: the name in its SQL, and the table; some of them may not exist."""
        scores = [name for name, _ in _score_columns(self.snapshots)]
        named = {name: name for name in ("decisions_prefilter", "fetched", *scores)}
        groups = _groups_table(self.snapshots, self.groups)
        return {**named, "grouped": groups or "groups", "decision": f"decisions_{self.policy}" if self.policy else "decisions"}

    def joined(self, stretch: Stretch | None = None) -> str:
        """FROM what `samples` is: all tables, or their files of one stretch."""
        beside, keyed = [f'{self._source("rows", stretch)} AS "rows"'], list[str]()
        for alias, name in self.tables().items():
            source = f"{self._source(name, stretch)} AS {quoted(alias)}"
            if stretch is not None and "rows" in stretch.beside and (name in stretch.beside or not stretch.files.get(name)):
                beside.append(source)  # beside a table that is empty there is null everywhere
            else:
                keyed.append(f"LEFT JOIN {source} ON " + " AND ".join(f'"rows".{key} = {quoted(alias)}.{key}' for key in KEY))
        return "\n    ".join(["\n    POSITIONAL JOIN ".join(beside), *keyed])

    def _source(self, name: str, stretch: Stretch | None) -> str:
        """SQL of a table's rows: those of one stretch typed as declared, or all of them."""
        if not self.files.get(name) or (stretch is not None and not stretch.files.get(name)):
            return f"empty.{quoted(name)}"
        if stretch is None:
            return quoted(name)
        if name in stretch.beside:
            return reading(stretch.files[name])
        typed = _typed(f"empty.{quoted(name)}", stretch.files[name])
        return f"({typed} WHERE part BETWEEN {stretch.first} AND {stretch.last})"

    def samples_sql(self, view: str, tables: str) -> str:
        """Makes the ledger over these tables."""
        reasons = ", ".join(f"{quoted(name)}.reason" for name, _ in _score_columns(self.snapshots))
        return (
            (resources("schemas") / "views" / "samples.sql")
            .read_text()
            .format(
                view=view,
                columns=",\n        ".join(column.sql() for column in _columns(self.snapshots, self.clip)),
                score_reason=f"coalesce({reasons}, NULL)" if reasons else "CAST(NULL AS VARCHAR)",
                tables=tables,
                failed=_FAILED,
            )
        )

    def locked(self) -> duckdb.DuckDBPyConnection:
        """The connection, from here on to these files only."""
        _lock(self.connection, [str(source.path) for found in self.files.values() for source in found])
        return self.connection


def pin(pool: Pool, versions: Mapping[str, int] | None = None) -> dict[str, Snapshot]:
    """One snapshot of every table that exists, by name. Raises Withdrawn for an older version that can no longer be read."""
    found = {name: pool.snapshot(name, (versions or {}).get(name)) for name in pool.tables()}
    for name in versions or {}:
        if name in found and not found[name].is_whole():
            raise Withdrawn(f"version {found[name].version} of table {name!r} held rows that were removed since: it can no longer be read")
    return found


def policies(pool: Pool) -> list[str]:
    """Names of the policies that were applied, the prefilter left out."""
    return [name.removeprefix("decisions_") for name in pool.tables() if name.startswith("decisions_") and name != "decisions_prefilter"]


def current_policy(pool: Pool) -> str:
    """The policy that `samples` shows when none is named: the document `current`'s, else the one applied last, else none."""
    applied = policies(pool)
    wanted = (pool.read_document(CURRENT) or {}).get("policy")
    if wanted in applied:
        return str(wanted)
    return max(applied, key=lambda name: (_applied_at(pool, name), name), default=NO_POLICY)


def _applied_at(pool: Pool, policy: str) -> float:
    """When the subset's file was written, in seconds since 1970; 0 when there is none."""
    path = pool.path / "subsets" / f"{policy}.json"
    return path.stat().st_mtime if path.exists() else 0.0


def current_clip_column(pool: Pool, snapshots: Mapping[str, Snapshot]) -> str | None:
    """The column that `clip_score` stands for: the document `current`'s, else the only `clip_*` column there is."""
    present = clip_columns(snapshots)
    wanted = (pool.read_document(CURRENT) or {}).get("clip_score")
    if wanted in present:
        return str(wanted)
    return present[0] if len(present) == 1 else None


def masked_column(snapshots: Mapping[str, Snapshot], clip: str | None) -> str | None:
    """The column that `clip_score_masked` stands for: that of `clip`'s model; where there is no `clip`, the only one there is."""
    present = sorted({name for _, columns in _score_columns(snapshots) for name in columns if name.startswith("masked_clip_")})
    if clip is None:
        return present[0] if len(present) == 1 else None
    return f"masked_{clip}" if f"masked_{clip}" in present else None


def clip_columns(snapshots: Mapping[str, Snapshot]) -> list[str]:
    """All score columns that a CLIP model wrote."""
    return sorted({name for _, columns in _score_columns(snapshots) for name in columns if name.startswith("clip_")})


def one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """`sql` when it is exactly one reading statement (SELECT, or EXPLAIN of one); raises UsageError for all else."""
    plain = re.sub(r"(?is)^\s*explain\s+(analyze\s+)?", "", sql)
    try:
        statements = connection.extract_statements(plain)
    except duckdb.Error as error:
        raise UsageError(f"SQL: {_first_line(error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UsageError("SQL: one SELECT at a time; a pool is only read here (PIVOT needs its values: ON column IN (…))")
    return sql


def explain_error(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> UsageError:
    """DuckDB's complaint as one line that offers the nearest column or table of the pool."""
    line = _first_line(error)
    found = re.search(r'Referenced column "([^"]+)"|[Tt]able with name (\S+) does|does not have a column named "([^"]+)"', line)
    if found is None:
        return UsageError(f"SQL: {line}")
    name = next(group for group in found.groups() if group)
    if name == "clip_score_masked":
        return UsageError("SQL: no clip_score_masked: score again with text painted over, curate score … clip.mask.of=text")
    if name == "clip_score":
        return UsageError("SQL: no clip_score: score the pool with a CLIP model, or say which clip_… column you mean")
    if found.group(2):
        return UsageError(f"SQL: no table {name!r}{nearest(name, _names(connection, 'SHOW TABLES')) or '; SHOW TABLES lists them'}")
    known = _names(connection, "SELECT DISTINCT column_name FROM duckdb_columns() WHERE schema_name = 'main'")
    return UsageError(f"SQL: no column {name!r}{nearest(name, known) or '; DESCRIBE samples lists them'}")


def _names(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return sorted(str(line[0]) for line in connection.execute(sql).fetchall())


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def quoted(name: str) -> str:
    """`name` as a DuckDB identifier."""
    return '"' + name.replace('"', '""') + '"'


# -- the views


def _add_objects(connection: duckdb.DuckDBPyConnection, pool: Pool, files: Iterable[Source]) -> None:
    """Lets DuckDB read a pool in an object store, by ranges; of pinned files it need not ask how large they are."""
    if isinstance(pool.path, ObjectPath):
        connection.register_filesystem(Objects({str(file.path): file.size_bytes for file in files}))
        connection.execute("SET enable_external_file_cache = false")  # it reads files of a megabyte or two whole


def _add_reasons(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE reasons (reason VARCHAR, outcome VARCHAR, text VARCHAR, retryable BOOLEAN)")
    lines = [[name, reason.outcome, reason.text, reason.retryable] for name, reason in REASONS.items()]
    connection.executemany("INSERT INTO reasons VALUES (?, ?, ?, ?)", lines)


def _add_functions(connection: duckdb.DuckDBPyConnection) -> None:
    """`host(url)`, and `domain(host)`: whom a host belongs to by the public suffix list (a call a row: give it distinct hosts)."""
    pattern = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@?#]*@)?(\[[^\]/?#]*\]|[^/:?#]+)"
    connection.execute(f"CREATE MACRO host(url) AS lower(nullif(regexp_extract(url, '{pattern}', 1), ''))")
    connection.create_function("domain", _domain)


def _domain(host: str) -> str:
    return site(host) or host


def _typed(empty: str, files: Sequence[Source]) -> str:
    """SQL of the rows of a table's files, with its declared columns, typed even where no file has them."""
    return f"FROM (FROM {empty} UNION ALL BY NAME FROM {reading(files)})" if files else f"FROM {empty}"


def _add_empty(connection: duckdb.DuckDBPyConnection, name: str, arrow: pa.Schema) -> str:
    """Makes an empty table of these columns; returns its SQL name."""
    connection.register("shape", pa.schema([field.remove_metadata() for field in arrow]).empty_table())
    connection.execute(f"CREATE TABLE empty.{quoted(name)} AS FROM shape")
    connection.unregister("shape")
    return f"empty.{quoted(name)}"


def _lock(connection: duckdb.DuckDBPyConnection, paths: list[str]) -> None:
    """From here on: these files, no others, and no way back."""
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET allowed_paths = ?", [paths])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


# -- samples


@dataclass(frozen=True)
class _Column:
    table: str
    name: str
    alias: str

    def sql(self) -> str:
        return f"{quoted(self.table)}.{quoted(self.name)} AS {quoted(self.alias)}"


def _columns(snapshots: Mapping[str, Snapshot], clip: str | None) -> list[_Column]:
    """All columns of `samples` but the last few; of two with one name the first stands (names ignore case)."""
    taken = {"keep", "failed_rules", "reason", "outcome", "phase", *KEY}
    columns = [_Column("rows", "part", "part"), _Column("rows", "row", "row")]
    bare = list(_bare(snapshots))  # what a list says of sizes stands in for what nobody has measured
    sizes = [] if "fetched" in snapshots else [column for column in bare if column.alias.startswith("original_")]
    for column in [*sizes, *_candidates(snapshots, clip), *bare]:
        if column.alias.lower() not in taken:
            taken.add(column.alias.lower())
            columns.append(column)
    return columns


def _candidates(snapshots: Mapping[str, Snapshot], clip: str | None) -> Iterator[_Column]:
    scores = _score_columns(snapshots)
    groups = [("grouped", ["group_id", "group_size", "match", "group_cluster", "group_rank", "group_similarity"])]
    for table, names in [*((name, _schema(snapshots, name).names) for name in ("rows", "fetched")), *scores, *groups]:
        yield from (_Column(table, name, name) for name in names if name not in _HIDDEN)
    for column, alias in ((clip, "clip_score"), (masked_column(snapshots, clip), "clip_score_masked")):
        holder = next((table for table, names in scores if column in names), None)
        if column is not None and holder is not None:
            yield _Column(holder, column, alias)


def _bare(snapshots: Mapping[str, Snapshot]) -> Iterator[_Column]:
    for name in _schema(snapshots, "rows").names:
        if name.startswith(SOURCE_PREFIX):
            yield _Column("rows", name, name.removeprefix(SOURCE_PREFIX))


def _schema(snapshots: Mapping[str, Snapshot], name: str) -> pa.Schema:
    found = snapshots.get(name)
    return found.schema if found is not None and found.schema is not None else schemas.table(name)


def _score_columns(snapshots: Mapping[str, Snapshot]) -> list[tuple[str, list[str]]]:
    return [(name, list(_schema(snapshots, name).names)) for name in sorted(snapshots) if name.startswith("scores_")]


def _groups_table(snapshots: Mapping[str, Snapshot], wanted: str | None) -> str | None:
    """The groups that the policy elected in; else those of pictures under their usual name, or the first there are."""
    present = [name for name in sorted(snapshots) if name.startswith("groups_")]
    return next((name for name in (f"groups_{wanted}", "groups_pixels", *present) if name in present), None)
