"""The phase that compares one part with the evaluation sets and writes one part of `scores_contamination`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate import schema as schemas
from curate.decontaminate.clearance import Clearance
from curate.decontaminate.index import Index
from curate.decontaminate.settings import DecontaminateSettings
from curate.decontaminate.wording import runs
from curate.dedupe.alignment import align
from curate.dedupe.tables import line_up
from curate.embeddings import COLUMN, stored, units
from curate.media.image import MediaError, Rgb, decode_rgb
from curate.parquet import read_columns, read_table
from curate.score.reading import Image, TarReader, images_of, read_part
from curate.stage import PartReport, PartTask, Resources, identity_of
from curate.store import Pool

VERSION = 1
TABLE = "scores_contamination"
METHODS = ("bytes", "perceptual", "descriptor", "caption")

EVIDENCE = pa.struct(
    [
        ("item", pa.string()),  # EVALUATION/ITEM
        ("method", pa.string()),  # one of METHODS
        ("distance", pa.int32()),  # bits in which the hashes differ
        ("cosine", pa.float32()),  # of the descriptors
        ("similarity", pa.float32()),  # correlation of the aligned pictures
        ("words", pa.string()),  # the first run of words that a caption shares
        ("cleared", pa.bool_()),
    ]
)
_COLUMNS = (
    pa.field(
        "contaminated",
        pa.bool_(),
        metadata={"class": "scores", "comment": "shows or says what an evaluation item does, and is not cleared"},
    ),
    pa.field(
        "contamination", pa.list_(EVIDENCE), metadata={"class": "scores", "comment": "the evidence, one entry for each item and method"}
    ),
)

Finding = dict[str, Any]


@dataclass(frozen=True)
class DecontaminatePhase:
    """`Phase` that writes what a pool has of the evaluation sets in an index; see `curate.stage.Phase`."""

    settings: DecontaminateSettings
    folder: str  # of the index
    digest: str  # of what is in it
    clearance: Clearance
    described: str | None = None  # table with the pool's descriptors

    name = "decontaminate"
    table = TABLE
    resources = Resources(memory_bytes=1 << 30)

    @property
    def inputs(self) -> Sequence[str]:
        """Captions, where the bytes are, and hashes where they are compared."""
        hashed = [f"scores_{self.settings.scores}"] if self.settings.perceptual else []
        return ("rows", "fetched", *hashed, *([self.described] if self.described else []))

    @property
    def schema(self) -> pa.Schema:
        """Keys, reason, the verdict and the evidence, basis."""
        base = schemas.table("scores")
        return pa.schema([*(base.field(name) for name in ("part", "row", "reason")), *_COLUMNS, base.field("basis")])

    def identity(self) -> str:
        """Changes with the evaluation sets, with what counts, and with what is cleared."""
        said = {
            **self.settings.model_dump(mode="json"),
            "index": self.digest,
            "cleared": self.clearance.identity(),
            "described": self.described,
        }
        return identity_of("Decontaminate", VERSION, said)

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        """Reads the index; yields the function that does one part."""
        index = Index(Path(self.folder))
        yield lambda task: self._part(index, task)

    def _part(self, index: Index, task: PartTask) -> PartReport:
        pool, rows = Pool.open(task.pool), read_part(task)
        with TarReader(pool.path, pool.temporary) as tars:
            found = _Findings(self.settings, index, tars, self.clearance)
            shown = images_of(rows)
            found.by_bytes(task, shown)
            if self.settings.perceptual:
                found.by_look(task, rows, f"scores_{self.settings.scores}", shown)
            if self.described:
                found.by_descriptor(pool, task, self.described, shown)
            if self.settings.caption_words is not None:
                found.by_caption(rows, shown, self.settings.caption_words)
        ids, with_image = rows["sample_id"].to_pylist(), {int(row) for image in shown for row in image.rows}
        lines = [found.told(row, ids[row]) if row in with_image else None for row in range(rows.num_rows)]
        dirty = [None if line is None else any(not one["cleared"] for one in line) for line in lines]
        columns = {"contaminated": pa.array(dirty, pa.bool_()), "contamination": pa.array(lines, pa.list_(EVIDENCE))}
        data = pa.table({"row": rows["row"], "reason": pa.nulls(rows.num_rows, pa.string()), **columns})
        file = pool.write_part(self.table, task.part, data, task.basis, self.schema)
        return PartReport(task.part, (file,), {"ok": len(with_image)}, {"contaminated": sum(map(bool, dirty)), "decodes": found.decodes})


class _Findings:
    """The evidence of one part, by row."""

    def __init__(self, settings: DecontaminateSettings, index: Index, tars: TarReader, clearance: Clearance) -> None:
        self._settings, self._index, self._tars, self._clearance = settings, index, tars, clearance
        self._most = settings.evidence + len(clearance.lines)  # what is cleared must not stand in the way of what is not
        self._found: dict[int, dict[tuple[int, str], Finding]] = {}
        self._pixels = lru_cache(2048)(index.pixels)
        self.decodes = 0

    def told(self, row: int, sample_id: str) -> list[Finding]:
        """What is known of a row, the surest first, but before it what nobody has cleared."""
        lines = [{**line, "cleared": self._clearance.covers(sample_id, line["item"])} for line in self._found.get(row, {}).values()]
        return sorted(lines, key=lambda line: bool(line["cleared"]))[: self._settings.evidence]

    def _add(self, image: Image | int, item: int, method: str, **more: object) -> None:
        for row in [image] if isinstance(image, int) else image.rows.tolist():
            line = {"item": self._index.names[item], "method": method, **more}
            self._found.setdefault(row, {}).setdefault((item, method), line)

    def by_bytes(self, task: PartTask, shown: Sequence[Image]) -> None:
        """The file as it was received, or as it is stored."""
        told = read_columns(task.inputs["fetched"], ["sha256", "image_sha256"])
        for image in shown:
            row = int(image.rows[0])
            for name in told.column_names:
                for item in self._index.by_bytes.get(told[name][row].as_py(), ())[: self._most]:
                    self._add(image, item, "bytes", distance=0, similarity=1.0)

    def by_look(self, task: PartTask, rows: pa.Table, scores: str, shown: Sequence[Image]) -> None:
        """Near hashes, borne out by the pixels."""
        told = read_table(task.inputs[scores], ["row", "phash"])
        line_up(task.part, rows, told)
        for image in shown:
            phash = told["phash"][int(image.rows[0])].as_py()
            near = [] if phash is None else self._index.near(phash, self._settings.radius_bits, self._most)
            self._bear_out(image, [(item, {"distance": bits}) for item, bits in near], "perceptual")

    def by_descriptor(self, pool: Pool, task: PartTask, described: str, shown: Sequence[Image]) -> None:
        """Near descriptors, borne out by the pixels."""
        vectors = stored(pool, read_columns(task.inputs[described], [COLUMN]), task.part)
        if vectors is None:
            return
        first = np.array([image.rows[0] for image in shown], np.int64)
        for at, near in self._index.alike(units(vectors[first, 0]), self._settings.cosine, self._most):
            known = {item for item, _ in self._found.get(int(first[at]), ())}
            self._bear_out(shown[at], [(item, {"cosine": cosine}) for item, cosine in near if item not in known], "descriptor")

    def _bear_out(self, image: Image, near: Sequence[tuple[int, Finding]], method: str) -> None:
        if not near:
            return
        try:
            pixels = decode_rgb(self._tars.read(image))
        except MediaError:
            return
        self.decodes += 1
        for item, told in near:
            similarity = self._alike(pixels, self._pixels(item))
            if similarity is not None:
                self._add(image, item, method, **told, similarity=similarity)

    def _alike(self, pixels: Rgb, other: Rgb) -> float | None:
        """The correlation of two pictures of which one is a copy of the other."""
        found = align(pixels, other, self._settings.least_share)
        copy = found.correlation >= self._settings.correlation and found.chroma <= self._settings.chroma_tolerance
        return found.correlation if copy else None

    def by_caption(self, rows: pa.Table, shown: Sequence[Image], words: int) -> None:
        """Runs of words; of each item the first one is told."""
        places = [int(row) for image in shown for row in image.rows]
        captions = rows["caption"].take(pa.array(places, pa.int64())).to_pylist()
        for place, run in runs(captions, words):
            for item in self._index.says(run)[: self._most]:
                self._add(places[place], item, "caption", words=run)
