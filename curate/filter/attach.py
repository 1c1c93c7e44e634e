"""Scores from elsewhere: columns of a table are matched to the pool's rows by a key, and become a table of scores.

The table is one Parquet file, a folder or a glob of them, local or on any fsspec address. What it has for keys that the pool
lacks is left out; rows that it has nothing for are null. Policies see the columns in `samples` at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate import schema as schemas
from curate.catalog.aligned import in_parts
from curate.catalog.views import NO_POLICY, clip_columns, connect, pin, quoted
from curate.derive.adopt import Adopted, Arrays, adopt
from curate.errors import IdentityError, InputError, UsageError
from curate.filter.judge import scalar
from curate.lease import Run
from curate.plan.identity import identify
from curate.plan.portable import FORBIDDEN, convert, portable_type, settled
from curate.plan.settings import InputSettings
from curate.plan.sources import InputFile, find_files, list_fingerprint
from curate.progress import Progress
from curate.schema import SOURCE_PREFIX, nearest
from curate.stage import fingerprint, part_basis
from curate.store import CURRENT, Pool

KEYS = {
    "uid": f'rows."{SOURCE_PREFIX}uid"',
    "url": "rows.url_id",
    "url_id": "rows.url_id",
    "sample_id": "rows.sample_id",
    "sha256": "fetched.sha256",
}
"""What a table may be matched by, and where the pool has it; addresses are compared as the pool spells them."""

_OURS = ("part", "row", "basis", "embedding_file", "earlier_parts")
_PLACE = ("listed file", "listed line")
_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class AttachReport:
    """What was attached: rows of the pool that the table had something for, and keys of the table that the pool lacks."""

    table: str
    key: str
    columns: tuple[str, ...]
    rows: int
    matched: int
    listed: int
    unused: int
    without_key: int


@dataclass(frozen=True)
class _Offer:
    """The files of the table, its key's column, and what is taken: name in the pool -> (name in the file, type)."""

    files: Sequence[InputFile]
    key: str
    key_column: str
    columns: Mapping[str, tuple[str, pa.DataType]]
    arrays: Arrays | None = None
    cosine: str = ""  # column for the cosine of both embeddings, where no CLIP score comes with them

    @property
    def names(self) -> list[str]:
        """Columns that the pool gets."""
        return [*self.columns, *([self.cosine] if self.cosine else [])]

    def identity(self) -> str:
        """Changes when the table, the key or the columns do."""
        told = [f"{name}={column}" for name, (column, _) in self.columns.items()]
        files = [f"{a}={b}" for a, b in list_fingerprint(self.files).items()]
        return fingerprint("attach", self.key, self.key_column, *told, *files, *(self.arrays.identity() if self.arrays else []))

    def schema(self) -> pa.Schema:
        """Of the table of scores."""
        base = schemas.table("scores")
        added = [pa.field(name, kind) for name, (_, kind) in self.columns.items()]
        added += [pa.field(self.cosine, pa.float32())] if self.cosine else []
        added += [base.field("embedding_file")] if self.arrays else []
        return pa.schema([base.field("part"), base.field("row"), base.field("reason"), *added, base.field("basis")])


def attach(
    pool: Pool, run: Run, path: str, key: str, name: str, columns: Sequence[str], key_column: str | None, progress: Progress,
    embeddings: tuple[str, str] | None = None,
) -> AttachReport:  # fmt: skip
    """Writes `scores_<name>`: for each row of the pool what the table at `path` says of it.

    `key` is one of `KEYS`; `columns` are NAME or NEW=OLD, all but the key when there are none. A table that was attached under
    this name before is replaced. `embeddings` says where those of images and of texts are (see `Arrays.beside`); no column is then
    taken unasked, and without a CLIP score among them the cosine becomes `clip_<name>`. Raises InputError for a table that cannot
    be read or has a key twice, UsageError for a name that is taken, a column that is not there and a key that matches nothing,
    IdentityError for a name that a scorer has.
    """
    offer = _offer(pool, path, key, columns, key_column)
    if embeddings is not None:
        offer = _with_embeddings(offer, name, embeddings, bool(columns))
    table = _table(pool, name, offer)
    with connect(pool, NO_POLICY) as connection:
        _require_free(connection, pool, table, offer)
        listed, without = _load(connection, offer, progress)
        _require_single(connection, path, offer)
        report = _write(pool, run, connection, table, offer, progress)
        unused = scalar(connection, f"SELECT count(*) FROM listed ANTI JOIN ({_keys(key)}) pool ON listed.key = pool.key")
    return AttachReport(table, key, tuple(offer.names), *report, listed=listed, unused=unused, without_key=without)


# -- what is offered


def _offer(pool: Pool, path: str, key: str, columns: Sequence[str], key_column: str | None) -> _Offer:
    files = find_files(InputSettings(path=path))
    other = next((file.name for file in files if file.format != "parquet"), None)
    if other is not None:
        raise InputError(f"{other}: not a Parquet file; only Parquet tables are attached")
    if key == "uid" and f"{SOURCE_PREFIX}uid" not in (pool.snapshot("rows").schema or schemas.table("rows")).names:
        raise UsageError("the pool's lists had no column uid: match by url, url_id, sample_id or sha256  (--on url)")
    with files[0].seekable() as stream:
        found = pq.read_schema(stream)
    names = found.names
    wanted = key_column or key
    if wanted not in names:
        raise UsageError(f"{files[0].name}: no column {wanted!r} to match by{nearest(wanted, names)}; --key-column names another")
    chosen = [column.partition("=")[::2] for column in columns] or [(one, "") for one in names if one != wanted]
    taken = {new: old or new for new, old in chosen}
    for old in taken.values():
        if old not in names:
            raise UsageError(f"{files[0].name}: no column {old!r}{nearest(old, names)}")
    return _Offer(files, key, wanted, {new: (old, settled(portable_type(found.field(old).type))) for new, old in taken.items()})


def _with_embeddings(offer: _Offer, name: str, said: tuple[str, str], chosen: bool) -> _Offer:
    columns = offer.columns if chosen else {}
    cosine = "" if any(column.startswith("clip_") for column in columns) else f"clip_{name}"
    return replace(offer, columns=columns, arrays=Arrays.beside(offer.files, *said), cosine=cosine)


def _table(pool: Pool, name: str, offer: _Offer) -> str:
    table, document = f"scores_{name}", pool.read_document(f"attached_{name}")
    known = pool.snapshot(table).schema
    if known is not None and document is None:
        raise IdentityError(f"{table} was written by a scorer of this pool: attach under another name  (--as)")
    for field in known or ():
        kind = offer.columns[field.name][1] if field.name in offer.columns else field.type
        if field.name not in offer.schema().names or kind != field.type:
            now = "is not in this table" if field.name not in offer.columns else f"is {kind} in this table"
            raise IdentityError(f"{table}: column {field.name!r} ({field.type}) {now}: attach it under another name  (--as)")
    return table


def _require_free(connection: duckdb.DuckDBPyConnection, pool: Pool, table: str, offer: _Offer) -> None:
    """Raises UsageError for a column whose name is taken, or that no table may have."""
    mine = {name.lower() for name in (pool.snapshot(table).schema or pa.schema([])).names}
    known = {str(line[0]).lower() for line in connection.execute("DESCRIBE samples").fetchall()}
    for name in offer.names:
        old = offer.columns[name][0] if name in offer.columns else ""
        if set(name) & set(FORBIDDEN) or not name:
            raise UsageError(f"a column cannot be called {name!r}: rename it  (--column new_name={old!r})")
        if name.lower() in _OURS or (name.lower() in known and name.lower() not in mine):
            raise UsageError(f"the pool has a column {name!r} already: choose columns or rename it  (--column new_name={old})")


# -- the table, in DuckDB


def _load(connection: duckdb.DuckDBPyConnection, offer: _Offer, progress: Progress) -> tuple[int, int]:
    """Makes the temporary table `listed`; returns how many rows have a key, and how many none."""
    fields = [pa.field("key", pa.string()), *(pa.field(name, kind) for name, (_, kind) in offer.columns.items())]
    fields += [pa.field(name, pa.int64()) for name in _PLACE]
    progress.start("read", len(offer.files), "files")
    connection.register("offered", pa.RecordBatchReader.from_batches(pa.schema(fields), _batches(offer, pa.schema(fields), progress)))
    connection.execute("CREATE TEMP TABLE listed AS FROM offered")
    connection.unregister("offered")
    progress.finish("read")
    without = scalar(connection, "SELECT count(*) FROM listed WHERE key IS NULL")
    connection.execute("DELETE FROM listed WHERE key IS NULL")
    return scalar(connection, "SELECT count(*) FROM listed"), without


def _batches(offer: _Offer, schema: pa.Schema, progress: Progress) -> Iterator[pa.RecordBatch]:
    wanted = [offer.key_column, *(old for old, _ in offer.columns.values())]
    for number, file in enumerate(offer.files):
        line = 0
        with file.seekable() as stream:
            opened = pq.ParquetFile(stream)
            missing = next((name for name in wanted if name not in opened.schema_arrow.names), None)
            if missing is not None:
                raise InputError(f"{file.name}: no column {missing!r}, which {offer.files[0].name} has")
            for batch in opened.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(wanted))):
                values = [convert(batch.column(old), kind) for old, kind in offer.columns.values()]
                place = [np.full(len(batch), number), np.arange(line, line + len(batch))]
                line += len(batch)
                yield pa.RecordBatch.from_arrays(
                    [_key(batch.column(offer.key_column), offer.key), *values, *map(pa.array, place)], schema=schema
                )
        progress.advance("read")


def _key(values: pa.Array, key: str) -> pa.Array:
    """The column's values as the pool spells them; null where there is none, or no address that could be asked for."""
    texts = [value.hex() if isinstance(value, bytes) else None if value is None else str(value) for value in values.to_pylist()]
    if key == "url":
        found = identify(texts, [None] * len(texts), [False] * len(texts), lambda at: b"")
        ids = zip(found.url_ids().to_pylist(), found.reasons, strict=True)
        return pa.array([None if reason else one for one, reason in ids], pa.string())
    return pa.array([text.lower() if text and key != "uid" else text or None for text in texts], pa.string())


def _require_single(connection: duckdb.DuckDBPyConnection, path: str, offer: _Offer) -> None:
    """Raises InputError when a key stands twice: which of the two lines a row is to take cannot be told."""
    twice = connection.execute("SELECT key, count(*) FROM listed GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 1").fetchall()
    if twice:
        key, times = twice[0]
        shown = f"one address stands {times} times" if offer.key == "url" else f"{key!r} stands {times} times"
        raise InputError(f"{path}: column {offer.key_column!r}: {shown}: leave one line for each and attach again")


def _keys(key: str) -> str:
    """The pool's keys; rows that were withdrawn have none."""
    return (
        f"SELECT rows.part, rows.row, CAST({KEYS[key]} AS VARCHAR) AS key FROM rows LEFT JOIN fetched USING (part, row) "
        "WHERE rows.reason IS DISTINCT FROM 'withdrawn'"
    )


# -- writing


def _write(pool: Pool, run: Run, connection: duckdb.DuckDBPyConnection, table: str, offer: _Offer, progress: Progress) -> tuple[int, int]:
    """Writes and commits the table of scores; returns the pool's rows, and those that it had something for."""
    connection.execute(
        "CREATE TEMP TABLE joined AS SELECT rows.part, rows.row, listed.* EXCLUDE (key), listed.key IS NOT NULL AS matched "
        f"FROM rows LEFT JOIN ({_keys(offer.key)}) pool USING (part, row) LEFT JOIN listed ON listed.key = pool.key"
    )
    total, matched = (scalar(connection, f"SELECT count(*) FROM joined WHERE {which}") for which in ("true", "matched"))
    if not matched:
        raise UsageError(f"no row of the pool has a {offer.key} of this table: nothing was attached{_examples(connection, offer.key)}")
    adopted = _adopted(pool, connection, table, offer, progress)  # arrays that do not fit leave no table
    schema, identity, rows = offer.schema(), offer.identity(), pool.snapshot("rows")
    run.add(table, schema)
    run.grow(table, schema)
    progress.start("attach", len(rows.files), "parts")
    files = []
    for part, data in in_parts(connection.sql('SELECT * EXCLUDE (matched, "listed file", "listed line") FROM joined ORDER BY part, row')):
        data = data.append_column("reason", pa.nulls(data.num_rows, pa.string()))
        if adopted is not None:
            data = _with_embedded(data, adopted, part, offer.cosine)
        files.append(pool.write_part(table, part, data, part_basis(identity, {"rows": rows.by_part[part].path}), schema))
        progress.advance("attach")
    for document in (f"identity_{table}", f"attached_{table.removeprefix('scores_')}"):
        pool.write_document(document, {"identity": identity})  # before the commit: a table without them is a scorer's
    _name_clip_score(pool, offer.names)
    run.replace_all(table, files)
    progress.finish("attach")
    return total, matched


def _adopted(pool: Pool, connection: duckdb.DuckDBPyConnection, table: str, offer: _Offer, progress: Progress) -> Adopted | None:
    """The embeddings of the rows that have a line, and a CLIP score in it where one is taken."""
    if offer.arrays is None:
        return None
    scored = next((f"AND {quoted(name)} IS NOT NULL" for name in offer.columns if name.startswith("clip_")), "")
    places = connection.sql(
        f'SELECT part, row, "listed file" AS file, "listed line" AS line FROM joined WHERE matched {scored} ORDER BY file, line'
    )
    progress.start("embeddings", len(offer.files), "files")
    found = adopt(pool, table.removeprefix("scores_"), pool.snapshot("rows"), offer.arrays, places.to_arrow_reader(_BATCH_ROWS), progress)
    progress.finish("embeddings")
    return found


def _with_embedded(data: pa.Table, adopted: Adopted, part: int, cosine: str) -> pa.Table:
    file = pa.array([adopted.files.get(part)] * data.num_rows, pa.string())
    data = data.append_column("embedding_file", file)
    return data.append_column(cosine, adopted.cosines[part]) if cosine else data


def _name_clip_score(pool: Pool, columns: Sequence[str]) -> None:
    """A pool's first CLIP column is what `clip_score` means, also when it came from elsewhere."""
    current, mine = pool.read_document(CURRENT) or {}, [name for name in columns if name.startswith("clip_")]
    first = next(iter([*(name for name in clip_columns(pin(pool)) if name not in mine), *mine]), None)
    if first is not None and "clip_score" not in current:
        pool.write_document(CURRENT, {**current, "clip_score": first})


def _examples(connection: duckdb.DuckDBPyConnection, key: str) -> str:
    if key == "url":  # they were hashed
        return ""
    ours, theirs = connection.execute(f"SELECT (SELECT min(key) FROM ({_keys(key)})), (SELECT min(key) FROM listed)").fetchall()[0]
    return f" (the pool has {ours!r}, the table {theirs!r}, for example)"
