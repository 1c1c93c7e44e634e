"""The first and the last round of duplicate search: parts are read, compactly, and groups and pairs are written part by part."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate import parquet
from curate.dedupe import exchanges as ex
from curate.dedupe.grouping import equal_rows, firsts, ranks
from curate.dedupe.settings import Kind
from curate.dedupe.shingles import normalised
from curate.errors import SchemaError, UsageError
from curate.shuffle import Gathered, Lines, Out
from curate.stage import PartTask
from curate.store import Pool, Snapshot

_NIBBLE = np.full(256, 255, np.uint8)
for _digit, _character in enumerate("0123456789abcdef"):
    _NIBBLE[ord(_character)] = _digit


@dataclass(frozen=True)
class Inputs:
    """Pinned versions of the three tables that duplicate search reads; `scores` is None when only bytes or captions are compared."""

    rows: Snapshot
    fetched: Snapshot
    scores: Snapshot | None

    def names(self) -> list[str]:
        """Table and file name of every part file, in order: what the outcome depends on."""
        return [f"{table.table}/{file.path}" for table in self.tables() for file in table.files]

    def tables(self) -> list[Snapshot]:
        """Those that there are."""
        return [self.rows, self.fetched, *([self.scores] if self.scores else [])]

    def parts(self) -> list[int]:
        """Parts that have been fetched, ascending."""
        return sorted(self.fetched.by_part)


_COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pictures": ("phash", "colour_grid"),
    "embeddings": ("embedding_file",),
    "copies": ("embedding_file",),
}
_LACKING: dict[Kind, str] = {
    "pictures": "score the pool with the image scorer, or dedupe with perceptual=false",
    "embeddings": "score the pool with a CLIP model, or say scores= another table",
    "copies": "score the pool with a descriptor, and say scores= its table",
}


def pin(pool: Pool, scores: str | None, by: Kind = "pictures") -> Inputs:
    """Pins the newest versions. Raises UsageError when a table is not there yet, or lacks what is compared."""
    found = Inputs(pool.snapshot("rows"), pool.snapshot("fetched"), pool.snapshot(scores) if scores else None)
    if not found.fetched.files:
        raise UsageError("nothing has been fetched into this pool yet: run  curate run ingest  first")
    if found.scores is None:
        return found
    names = found.scores.schema.names if found.scores.schema else []
    missing = [name for name in _COLUMNS[by] if name not in names]
    if missing:
        raise UsageError(f"table {scores} has no {missing[0]}: {_LACKING[by]}")
    unscored = sorted(set(found.parts()) - set(found.scores.by_part))
    if unscored:
        raise UsageError(f"{len(unscored)} parts, the first of them {unscored[0]}, are not in {scores}: run  curate score  first")
    return found


def chunks(inputs: Inputs, pool: str, buckets: int) -> tuple[list[PartTask], tuple[int, ...]]:
    """Work orders for the first round, each for neighbouring parts of about the same number of rows together; and each one's first part."""
    tasks: list[PartTask] = []
    borders: list[int] = []
    for _, parts in itertools.groupby(_numbered(inputs, buckets), lambda pair: pair[0]):
        numbers = [part for _, part in parts]
        files = {f"{table.table}/{part}": _path(table, part) for part in numbers for table in inputs.tables()}
        tasks.append(PartTask(pool, len(tasks), files, ""))
        borders.append(numbers[0])
    return tasks, tuple(borders)


def _numbered(inputs: Inputs, buckets: int) -> Iterator[tuple[int, int]]:
    """(chunk, part) of every part, ascending."""
    rows = inputs.fetched.by_part
    total, before = sum(file.rows for file in rows.values()), 0
    for part in inputs.parts():
        yield before * buckets // max(total, 1), part
        before += rows[part].rows


def _path(table: Snapshot, part: int) -> str:
    if part not in table.by_part:
        raise SchemaError(f"table {table.table} lacks part {part}: run  curate verify")
    return table.path_of(part)


@dataclass(frozen=True)
class ReadPictures:
    """Reads a chunk of parts: every row with an image."""

    scores: str | None  # table

    name = "pictures"
    reads: Sequence[str] = ()
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"pictures": ex.PICTURES, "parts": ex.PARTS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """Of equal bytes within the chunk, only the picture with the smallest sample_id brings its look along: no other can lead."""
        out.emit("pictures", _led([self._part(task, part, out) for part in parts_of(task)], ex.PICTURES, "grid"))

    def _part(self, task: PartTask, part: int, out: Out) -> pa.Table:
        rows, fetched = aligned(task, part, ("row", "sample_id"), ("row", "reason", "sha256"), out)
        scores = read_table(task.inputs[f"{self.scores}/{part}"], ("row", "phash", "colour_grid")) if self.scores else None
        if scores is not None:
            line_up(part, rows, scores)
        shown = with_image(fetched)
        sha = digest_words(fetched.column("sha256").take(shown), 4)
        return pa.table(
            {**dict(zip(ex.SHA, sha.T, strict=True)), **names_of(part, rows, shown), **_looks(scores, shown)}, ex.PICTURES.schema
        )


@dataclass(frozen=True)
class ReadCaptions:
    """Reads a chunk of parts: the normal form of the caption of every row with an image, or of every row that is to be fetched."""

    images: bool = True

    name = "captions"
    reads: Sequence[str] = ()
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"captions": ex.CAPTIONS, "parts": ex.PARTS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """Of equal captions within the chunk, only that of the smallest sample_id comes along."""
        out.emit("captions", _led([self._part(task, part, out) for part in parts_of(task)], ex.CAPTIONS, "text"))

    def _part(self, task: PartTask, part: int, out: Out) -> pa.Table:
        rows, shown = self._captioned(task, part, out)
        names, text = names_of(part, rows, shown), normalised(rows.column("caption").take(shown).combine_chunks())
        columns = {**dict(zip(ex.SHA, digests(text, names["place"]).T, strict=True)), **names}
        return pa.table({**columns, "shown": pc.not_equal(text, ""), "text": text}, ex.CAPTIONS.schema)

    def _captioned(self, task: PartTask, part: int, out: Out) -> tuple[pa.Table, pa.Array]:
        if self.images:
            rows, fetched = aligned(task, part, ("row", "sample_id", "caption"), ("row", "reason"), out)
            return rows, with_image(fetched)
        rows = read_table(task.inputs[f"rows/{part}"], ("row", "sample_id", "caption", "reason"))
        tell_rows(task, part, rows.num_rows, out)
        return rows, with_image(rows)


def digests(texts: pa.Array, place: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The sha256 of each text as words, shape (texts, 4); an empty one equals no other and has its place."""
    found = np.frombuffer(b"".join(hashlib.sha256(one).digest() for one in pc.cast(texts, pa.binary()).to_pylist()), ">u8").reshape(-1, 4)
    alone = np.asarray(pc.equal(texts, "").to_numpy(zero_copy_only=False), np.bool_)
    own = np.stack([place, *(np.zeros_like(place) for _ in range(3))], axis=1).astype(np.uint64)
    return np.where(alone[:, None], own, found.astype(np.uint64))


def parts_of(task: PartTask) -> list[int]:
    """The parts of a chunk."""
    return [int(name.split("/")[1]) for name in task.inputs if name.startswith("rows/")]


def aligned(task: PartTask, part: int, of_rows: Sequence[str], of_fetched: Sequence[str], out: Out) -> tuple[pa.Table, pa.Table]:
    """Columns of the part's two tables; also tells how many rows it has."""
    rows, fetched = read_table(task.inputs[f"rows/{part}"], of_rows), read_table(task.inputs[f"fetched/{part}"], of_fetched)
    line_up(part, rows, fetched)
    tell_rows(task, part, rows.num_rows, out)
    return rows, fetched


def tell_rows(task: PartTask, part: int, rows: int, out: Out) -> None:
    """Emits how many rows a part has."""
    out.emit("parts", {"chunk": np.array([task.part]), "part": np.array([part]), "rows": np.array([rows])})


def line_up(part: int, rows: pa.Table, table: pa.Table) -> None:
    """Raises SchemaError unless the two tables hold the same rows of the part."""
    if not table.column("row").equals(rows.column("row")):
        raise SchemaError(f"part {part}: the rows of two tables do not line up: run  curate verify")


def with_image(table: pa.Table) -> pa.Array:
    """Places of the rows without a reason: of table `fetched` those that have an image."""
    return pa.array(np.flatnonzero(pc.is_null(table.column("reason")).to_numpy(zero_copy_only=False)))


def names_of(part: int, rows: pa.Table, shown: pa.Array) -> dict[str, NDArray[Any]]:
    """Place and sample_id of some rows."""
    place = (part << 32) + rows.column("row").to_numpy().astype(np.int64)
    ids = digest_words(rows.column("sample_id").take(shown), 2)
    return {**dict(zip(ex.ID, ids.T, strict=True)), "place": place[shown.to_numpy()]}


def _led(pieces: Sequence[pa.Table], lines: Lines, look: str) -> pa.Table:
    """All of them; of equal digests only the leader keeps what it shows."""
    whole = pa.concat_tables([lines.schema.empty_table(), *pieces]).combine_chunks()
    leads = np.zeros(len(whole), np.bool_)
    leads[firsts(equal_rows(ex.words(whole, ex.SHA)), ranks(ex.words(whole, ex.ID)))] = True
    shown, names = pc.and_(whole.column("shown"), pa.array(leads)), whole.schema.names
    seen = pc.if_else(shown, whole.column(look), pa.scalar(None, lines.schema.field(look).type))
    return whole.set_column(names.index("shown"), "shown", shown).set_column(names.index(look), look, seen)


def read_table(path: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of one part's file."""
    return parquet.read_table(path, columns).combine_chunks()


def _looks(scores: pa.Table | None, shown: pa.Array) -> dict[str, object]:
    """Hash and grid of the rows that have both; a failed decode has neither."""
    if scores is None:
        none = len(shown)
        return {"shown": np.zeros(none, np.bool_), "hash": np.zeros(none, np.uint64), "grid": pa.nulls(none, pa.binary())}
    chosen = scores.take(shown)
    hashed = pc.and_(pc.is_valid(chosen.column("phash")), pc.is_valid(chosen.column("colour_grid"))).combine_chunks()
    hashes = pc.fill_null(chosen.column("phash"), 0).to_numpy().astype(np.int64).view(np.uint64)
    return {"shown": hashed, "hash": hashes, "grid": chosen.column("colour_grid").combine_chunks()}


def digest_words(column: pa.ChunkedArray, words: int = 4) -> NDArray[np.uint64]:
    """Lower-case hex digests as big-endian 64-bit words, shape (rows, words)."""
    text = "".join(value or "" for value in column.to_pylist())
    digits = _NIBBLE[np.frombuffer(text.encode(), np.uint8)]
    if len(digits) != len(column) * words * 16 or (digits == 255).any():
        raise SchemaError(f"a digest is not {words * 16} hex digits: run  curate verify")
    octets = (digits[0::2] << np.uint8(4)) | digits[1::2]
    return octets.reshape(-1, words * 8).view(">u8").astype(np.uint64)


# -- writing

_WORDS = {
    "pictures": ("exact", "perceptual"),
    "captions": ("same_caption", "near_caption"),
    "embeddings": ("semantic", "semantic"),
    "copies": ("exact", "copy"),
}
"""Column `match`, by what was compared: of equal ones, and of near ones."""


@dataclass(frozen=True)
class Write:
    """Writes the tables' files for a chunk of parts; the driver commits them."""

    table: str  # groups_<name>; its pairs go to pairs_<name>
    basis: str
    by: Kind

    name = "tables"
    reads: Sequence[str] = ("parts", "rows", "pairs")
    emits: Mapping[str, Lines] = field(default_factory=dict)

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One chunk of parts with all its rows; so many pairs that they come in pieces make several files of a part."""
        pool = Pool.open(task.pool)
        rows = given["rows"].table("place")
        place = ex.integers(rows, "place")
        for part, count in zip(*(ex.integers(given["parts"].table("part"), name).tolist() for name in ("part", "rows")), strict=True):
            low, high = np.searchsorted(place, [part << 32, (part + 1) << 32])
            out.commit(pool.write_part(self.table, part, _group_rows(rows.slice(low, high - low), count, self.by), self.basis))
        table = self.table.replace("groups_", "pairs_", 1)
        for chunk in given["pairs"].chunks():
            pairs = chunk.sort_by([("first", "ascending"), ("second", "ascending")])
            first = ex.integers(pairs, "first") >> 32
            for part in np.unique(first).tolist():
                low, high = np.searchsorted(first, [part, part + 1])
                out.commit(pool.write_part(table, part, _pair_rows(pairs.slice(low, high - low), self.by), self.basis))


def _group_rows(found: pa.Table, count: int, by: Kind) -> pa.Table:
    """One line for each row of a part; those without an image are empty."""
    rows = ex.integers(found, "place") & 0xFFFFFFFF
    sizes = ex.integers(found, "size")
    group_id, size, match = (np.full(count, None, object) for _ in range(3))
    ids = ex.words(found, ex.ID).tolist()
    alone = sizes == 1
    group_id[rows] = [None if single else f"{high:016x}{low:016x}" for single, (high, low) in zip(alone.tolist(), ids, strict=True)]
    size[rows] = sizes
    words = np.array(_WORDS[by][::-1], object)[np.asarray(found.column("exact").to_numpy(), np.int64)]
    words[alone] = None
    match[rows] = words
    data = {"row": pa.array(range(count), pa.int32()), "group_id": pa.array(group_id, pa.string())}
    data |= {"group_size": pa.array(size.tolist(), pa.int32()), "match": pa.array(match, pa.string())}
    clustered = [name for name in ("cluster", "rank", "similarity") if name in found.schema.names]
    return pa.table(data | {f"group_{name}": _spread(found.column(name), rows, count) for name in clustered})


def _spread(column: pa.ChunkedArray, rows: NDArray[np.int64], count: int) -> pa.Array:
    """A column's values at their rows of a part, null at the others."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return column.combine_chunks().take(pa.array(place, mask=place < 0))


def _pair_rows(pairs: pa.Table, by: Kind) -> pa.Table:
    first, second = ex.integers(pairs, "first"), ex.integers(pairs, "second")
    distance = np.asarray(pairs.column("distance").to_numpy())
    equal, near = _WORDS[by]
    data = {
        "row": (first & 0xFFFFFFFF).astype(np.int32),
        "other_part": (second >> 32).astype(np.int32),
        "other_row": (second & 0xFFFFFFFF).astype(np.int32),
        "match": np.where(np.asarray(pairs.column("exact").to_numpy()), equal, near),
        **({"distance": distance.astype(np.int32)} if by == "pictures" else {"similarity": 1 - distance}),
    }
    return pa.table({key: pa.array(value) for key, value in data.items()})
