"""Kept rows become numbered tars in a seeded order, with metadata, an index and a table of byte offsets.

Three passes, so that memory does not grow with the pool: ids give the order (24 bytes for each kept row); captions and
numbers are sorted into a few files on disk by the shards that they belong to; then shard after shard is written, and
image bytes go straight from part tar to shard.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema as schemas
from curate.errors import AccountingError, UsageError
from curate.lease import Run
from curate.progress import Progress, Silent
from curate.schema import KEY
from curate.shards.blurring import Blur, Digests, boxes_column, refuse_unknown
from curate.shards.index import FORMAT, Shard, ShardIndex, has_all_files, move_into_place, read_index, train_command
from curate.shards.order import Positions, ranks, words_of
from curate.shards.settings import PackSettings
from curate.shards.sources import FETCHED, ROWS, Sources, Tars
from curate.shards.subset import Subset, read_subset, refuse_withdrawn
from curate.shards.write import ShardWriter
from curate.stage import PartFile, fingerprint
from curate.store import Pool

VERSION = 1
TABLE = "shards"


@dataclass(frozen=True)
class PackReport:
    """What was packed; `train_command` is a line for open_clip's own program, empty without tars."""

    subset: str
    folder: Path
    mode: str
    samples: int
    shards: int
    bytes: int
    train_command: str
    unchanged: bool = False


def pack(pool: Pool, run: Run, subset_name: str, settings: PackSettings | None = None, progress: Progress | None = None) -> PackReport:
    """Packs a subset into `shards/<subset>/`, replacing what was there; the same subset and settings again change nothing.

    Raises UsageError while rows are pending, unless `settings.partial`; AccountingError when rows do not balance or an
    image is not the one that was fetched. Until all is written, what was packed before stays as it is.
    """
    settings = settings or PackSettings()
    subset = read_subset(pool, subset_name)
    refuse_withdrawn(subset)
    if "fetched" not in subset.tables:
        raise UsageError(f"{subset_name!r} was decided before any image was fetched: fetch, apply the policy again, then pack")
    sources = Sources(pool, subset)
    _refuse_pending(subset, settings)
    _check_balance(sources)
    run.add(TABLE, schemas.table(TABLE))
    packing = _Packing(pool, run, sources, settings, progress or Silent())
    if not packing.is_done():
        return packing.report(packing.write())
    return packing.report(read_index(packing.folder), unchanged=True)


def _refuse_pending(subset: Subset, settings: PackSettings) -> None:
    if subset.pending and not settings.partial:
        raise UsageError(
            f"{subset.pending:,} of {subset.rows:,} rows of {subset.name!r} are pending: finish the run and apply the policy again,"
            " or pack what there is with  pack.partial=true"
        )


def _check_balance(sources: Sources) -> None:
    """Rows in = kept + dropped + refused + pending, and the decisions say the same."""
    subset = sources.subset
    planned = sum(file.rows for file in sources.tables["rows"].files)
    decided = sum(file.rows for file in sources.decisions.files)
    ends = subset.kept + subset.refused + subset.pending + sum(subset.dropped.values())
    if not planned == decided == subset.rows == ends:
        raise AccountingError(f"subset {subset.name!r} does not balance: {planned} rows, {decided} decided, {ends} accounted for")


class _Packing:
    """One subset on its way into shards."""

    def __init__(self, pool: Pool, run: Run, sources: Sources, settings: PackSettings, progress: Progress) -> None:
        self.pool, self.run, self.sources, self.settings, self.progress = pool, run, sources, settings, progress
        self.name = sources.subset.name
        self.folder = pool.path / "shards" / self.name
        # Named for this process: a run that was replaced while it slept must not touch its successor's files.
        self.staging, self.spill, self.aside = (pool.temporary(f".{what}-{self.name}") for what in ("pack", "spill", "packed"))
        self.scores = sources.score_columns()
        self.blur = boxes_column(sources, self.scores, settings.blur)
        # The subset's name stands in front, so that the table's files can be told apart without opening them.
        self.basis = f"{self.name}:{fingerprint(str(VERSION), settings.choices, *sources.identity())}"

    def is_done(self) -> bool:
        """Whether folder and table hold exactly this already."""
        if not (self.folder / "index.json").exists():
            return False
        index = read_index(self.folder)
        samples = sum(file.rows for file in self.pool.snapshot(TABLE).files if file.basis == self.basis)
        return index.basis == self.basis and samples == index.samples and has_all_files(self.folder, index)

    def report(self, index: ShardIndex, unchanged: bool = False) -> PackReport:
        """What `pack` hands back."""
        line = train_command(self.folder, index)
        return PackReport(self.name, self.folder, index.mode, index.samples, len(index.shards), index.bytes, line, unchanged)

    def write(self) -> ShardIndex:
        """Writes everything beside the pool's view, then moves it into place and commits the table."""
        spill = self.spill
        for folder in (self.staging, spill):
            folder.mkdir(parents=True)
        try:
            places = self._places()
            kept = max(self.sources.subset.kept, 1)
            members = np.lib.format.open_memmap(spill / "members.npy", "w+", np.int64, (kept, 3, 2))
            digests = np.lib.format.open_memmap(spill / "digests.npy", "w+", np.uint8, (kept if self.blur else 1, 32))
            shards = self._write_shards(places, spill, members, digests) if self.settings.mode == "copy" else ()
            index = self._write_index(shards)
            files = [self._table_part(part, places[part], members, digests) for part in self.sources.parts if len(places[part])]
            self.run.check()
            move_into_place(self.staging, self.folder, self.aside)
            others = [file for file in self.pool.snapshot(TABLE).files if not file.basis.startswith(f"{self.name}:")]
            self.run.replace_all(TABLE, [*others, *files])
        finally:
            for folder in (self.staging, spill):
                shutil.rmtree(folder, ignore_errors=True)
        return index

    def _places(self) -> dict[int, Positions]:
        """Each kept row's place in the whole order, by part."""
        words = [words_of(self.sources.kept(part, {"rows": ["sample_id"]})["sample_id"].to_pylist()) for part in self.sources.parts]
        every = np.concatenate([np.empty((0, 2), np.uint64), *words])
        if len(every) != self.sources.subset.kept:
            raise AccountingError(f"subset {self.name!r} says {self.sources.subset.kept} kept, its decisions keep {len(every)}")
        if len(np.unique(every, axis=0)) != len(every):
            raise AccountingError(f"subset {self.name!r} keeps two rows with one sample_id")
        split = np.split(ranks(every, self.settings.seed), np.cumsum([len(found) for found in words])[:-1]) if words else []
        return dict(zip(self.sources.parts, split, strict=True))

    def _write_shards(self, places: dict[int, Positions], spill: Path, members: Positions, digests: Digests) -> tuple[Shard, ...]:
        size = self.settings.shard_samples
        count = -(-self.sources.subset.kept // size)
        spilled = self._spill(places, spill, max(self.settings.shards_in_memory, -(-count // 256)) * size)
        shards: list[Shard] = []
        self.progress.start("pack", self.sources.subset.kept, "samples")
        with Tars(self.pool.path) as tars:
            names = [name for columns in self.scores.values() for name in columns]
            writer = ShardWriter(self.staging, count, tars, names, None if self.blur is None else Blur(self.blur, self.settings.quality))
            for path in spilled:
                bucket = pa.ipc.open_stream(pa.memory_map(str(path))).read_all().sort_by("place")
                for begin in range(0, bucket.num_rows, size):
                    samples = bucket.slice(begin, size)
                    shard, where, changed = writer.write(len(shards), samples)
                    first = len(shards) * size
                    members[first : first + samples.num_rows] = where
                    for at, digest in changed.items():
                        digests[first + at] = np.frombuffer(digest, np.uint8)
                    shards.append(shard)
                    self.progress.advance("pack", samples.num_rows, shards=len(shards))
                path.unlink()
                self.run.check()
        self.progress.finish("pack")
        return tuple(shards)

    def _spill(self, places: dict[int, Positions], spill: Path, bucket_rows: int) -> list[Path]:
        """All that shards say about their samples, in files by ranges of places."""
        writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        for part in self.sources.parts:
            data = self.sources.kept(part, {"rows": ROWS, "fetched": FETCHED, **self.scores})
            refuse_unknown(data, self.blur, part)
            data = data.append_column("place", pa.array(places[part]))
            for bucket, rows in _buckets(data, bucket_rows):
                if bucket not in writers:
                    writers[bucket] = pa.ipc.new_stream(spill / f"{bucket:05d}.arrow", rows.schema)
                writers[bucket].write_table(rows)
        for writer in writers.values():
            writer.close()
        return [spill / f"{bucket:05d}.arrow" for bucket in sorted(writers)]

    def _write_index(self, shards: tuple[Shard, ...]) -> ShardIndex:
        subset, settings = self.sources.subset, self.settings
        index = ShardIndex(
            format=FORMAT, subset=self.name, digest=subset.digest, basis=self.basis, mode=settings.mode, seed=settings.seed,
            shard_samples=settings.shard_samples, samples=subset.kept, bytes=sum(shard.bytes for shard in shards), shards=shards,
        )  # fmt: skip
        (self.staging / "index.json").write_text(index.model_dump_json(indent=1) + "\n")
        if settings.mode == "copy":
            sizes = ",\n".join(f' "{shard.tar}": {shard.samples}' for shard in shards)
            (self.staging / "sizes.json").write_text(f"{{\n{sizes}\n}}\n")
        return index

    def _table_part(self, part: int, places: Positions, members: Positions, digests: Digests) -> PartFile:
        """One part's lines of the table `shards`."""
        data = self.sources.kept(part, {"rows": ["sample_id"], "fetched": ["format", "tar_file", "tar_offset", "tar_size"]})
        size, count = self.settings.shard_samples, -(-self.sources.subset.kept // self.settings.shard_samples)
        if self.settings.mode == "copy":
            tars, found = ShardWriter.tar_files(self.name, places // size, count), members[places]
            lists = [_members((kind, "txt", "json"), where) for kind, where in zip(data["format"].to_pylist(), found, strict=True)]
        else:
            tars = data["tar_file"].to_pylist()
            own = zip(data["format"].to_pylist(), data["tar_offset"].to_pylist(), data["tar_size"].to_pylist(), strict=True)
            lists = [_members((kind,), np.array([[offset, length]])) for kind, offset, length in own]
        changed = [found.tobytes().hex() if found.any() else None for found in digests[places]] if self.blur else [None] * len(places)
        schema = schemas.table(TABLE)
        lines = data.select([*KEY, "sample_id"])
        for name, values in (
            ("subset", [self.name] * len(places)), ("shard", places // size), ("position", places % size),
            ("tar_file", tars), ("members", lists), ("image_sha256", changed),
        ):  # fmt: skip
            lines = lines.append_column(name, pa.array(values, schema.field(name).type))
        return self.pool.write_part(TABLE, part, lines, self.basis)


def _members(extensions: tuple[str, ...], where: Positions) -> list[dict[str, object]]:
    return [{"extension": kind, "offset": int(at), "size": int(size)} for kind, (at, size) in zip(extensions, where, strict=True)]


def _buckets(data: pa.Table, bucket_rows: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows by range of places."""
    numbers = data["place"].to_numpy() // bucket_rows
    for number in np.unique(numbers):
        yield int(number), data.filter(pc.equal(pa.array(numbers), int(number)))
