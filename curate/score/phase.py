"""The scoring phase: one part's images are read and decoded once, all scorers see them, one table part comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import schema as schemas
from curate.errors import IdentityError, UsageError
from curate.score.reading import Image, Seen, TarReader, ahead, batches, images_of, look, read_part
from curate.score.result import PartResult
from curate.score.scorer import Opened, Weighted
from curate.score.settings import ScoreSettings
from curate.score.weights import Model
from curate.stage import PartReport, PartTask, Resources, fingerprint
from curate.store import CURRENT, Pool

VERSION = 1


@dataclass(frozen=True)
class ScorePhase:
    """`Phase` that writes `scores_<name>`; see `curate.stage.Phase`."""

    settings: ScoreSettings

    @property
    def name(self) -> str:
        """For example score_base."""
        return f"score_{self.settings.name}"

    @property
    def table(self) -> str:
        """For example scores_base."""
        return f"scores_{self.settings.name}"

    @property
    def inputs(self) -> Sequence[str]:
        """Captions and ids from rows; where the bytes are from fetched; boxes to paint over from other scores."""
        return ("rows", "fetched") if self._boxes is None else ("rows", "fetched", self._boxes[0])

    @property
    def _boxes(self) -> tuple[str, str] | None:
        mask = self.settings.clip.mask if self.settings.clip else None
        return (f"scores_{mask.of}", mask.boxes) if mask else None

    @property
    def resources(self) -> Resources:
        """A CPU for each decoding thread and each thread of the model."""
        model = self.settings.clip or self.settings.descriptor
        gpus = 1.0 if model is not None and model.device.startswith("cuda") else 0.0
        threads = max([model.threads if model else 0, *(one.threads for one in self.settings.classifiers.values())])  # they take turns
        return Resources(cpus=self.settings.decode_threads + threads, gpus=gpus, memory_bytes=2 << 30)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the table: keys, reason, those of the scorers that run, embedding_file with CLIP or a descriptor, basis."""
        base = schemas.table("scores")
        added = [column for scorer in self.settings.scorers for column in scorer.adds]
        last = ["embedding_file", "basis"] if self.settings.embeds else ["basis"]
        return pa.schema([*(base.field(name) for name in ("part", "row", "reason")), *added, *(base.field(name) for name in last)])

    def identity(self) -> str:
        """Scorers with their settings and weights."""
        return fingerprint("score", str(VERSION), str(self.settings.image_batch), *(scorer.identity() for scorer in self.settings.scorers))

    def record(self, pool: Pool) -> None:
        """Writes down which weights stand behind the columns. Raises IdentityError when the pool knows others by that name.

        Raises UsageError for scorers that look at images where the pool has none.
        """
        if not self.settings.reads_captions_alone and pool.snapshot("fetched").version < 0:
            raise UsageError("the pool has no images yet: fetch first, or score captions alone  (image=null clip=null, none of your own)")
        if self._boxes is not None:
            _refuse_no_boxes(pool, *self._boxes)
        for scorer in self.settings.scorers:
            if isinstance(scorer, Weighted):
                for model in scorer.provenance():
                    _write_down(pool, model)
        if self.settings.descriptor is not None:
            self.settings.descriptor.record(pool, self.table)

    def _name_clip_score(self, pool: Pool) -> None:
        """A pool's first CLIP column is what `clip_score` means, also when further models have scored it."""
        current = pool.read_document(CURRENT) or {}
        if self.settings.clip is not None and self.settings.clip.mask is None and "clip_score" not in current:
            pool.write_document(CURRENT, {**current, "clip_score": self.settings.clip.column})

    def after(self, task: PartTask, report: PartReport) -> PartTask:
        """Scores cost no request: the part is scored anew."""
        return task

    @contextmanager
    def open(self) -> Iterator[Callable[[PartTask], PartReport]]:
        """Loads the models; yields the function that scores one part."""
        with ExitStack() as stack:
            opened = [stack.enter_context(scorer.open()) for scorer in self.settings.scorers]
            recorded: set[str] = set()

            def score_part(task: PartTask) -> PartReport:
                pool = Pool.open(task.pool)
                if task.pool not in recorded:
                    self.record(pool)
                    self._name_clip_score(pool)
                    recorded.add(task.pool)
                return self._score_part(opened, pool, task)

            yield score_part

    def _score_part(self, opened: Sequence[Opened], pool: Pool, task: PartTask) -> PartReport:
        result = PartResult(read_part(task, self._boxes))
        for seen in self._seen(pool, opened, result.leave_out(images_of(result.rows), task.without)):
            result.add(opened, seen)
        table = result.table([scorer.adds for scorer in self.settings.scorers])
        if self.settings.embeds:
            path = self._publish_embeddings(pool, task.part, result.embeddings)
            table = table.append_column("embedding_file", pa.array([path] * table.num_rows, pa.string()))
        file = pool.write_part(self.table, task.part, table, task.basis, self.schema)
        return PartReport(task.part, (file,), result.reasons(), result.counted())

    def _seen(self, pool: Pool, opened: Sequence[Opened], images: list[Image]) -> Iterator[list[Seen]]:
        """Batches of images, decoded ahead of the models; when no scorer needs pixels, nothing is read."""
        if not any(scorer.observe for scorer in opened):
            yield from batches((Seen(image, [None] * len(opened)) for image in images), self.settings.image_batch)
            return
        with TarReader(pool.path, pool.temporary) as tars:
            threads = self.settings.decode_threads
            seen = ahead(partial(look, tars, opened), images, threads, self.settings.image_batch + threads)
            yield from batches(seen, self.settings.image_batch)

    def _publish_embeddings(self, pool: Pool, part: int, embeddings: NDArray[np.float16] | None) -> str | None:
        """Writes the part's .npy; None when no row of the part has an image."""
        if embeddings is None:
            return None
        temporary = pool.temporary(".npy")
        np.save(temporary, embeddings)
        return pool.publish(temporary, f"embeddings/{self.settings.name}", f"{part:05d}")


def _write_down(pool: Pool, model: Model) -> None:
    known = pool.read_document(f"model_{model.column}")
    if known is None:
        content = {"column": model.column, "model": model.name, "weights": model.label, "weights_sha256": model.sha256}
        pool.write_document(f"model_{model.column}", content)
    elif known["weights_sha256"] != model.sha256:
        raise IdentityError(
            f"column {model.column} of this pool was computed with other weights (sha256 {str(known['weights_sha256'])[:12]}, "
            f"these are {model.sha256[:12]}): give the new model another name, or use those"
        )


def _refuse_no_boxes(pool: Pool, table: str, column: str) -> None:
    """Raises UsageError unless the table has a column of boxes."""
    schema = pool.snapshot(table).schema
    kind = schema.field(column).type if schema is not None and column in schema.names else None
    if kind is None or not (
        pa.types.is_list(kind) and pa.types.is_list(kind.value_type) and pa.types.is_floating(kind.value_type.value_type)
    ):
        raise UsageError(
            f"{table} has no boxes in a column {column}: find text first, for example  curate score POOL --name {table[7:]} text.letters=2"
            " image=null caption=null clip=null"
        )
