"""One training and its figures, kept by what decided them: equal rows, seed and settings are trained once, in any ablation."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.ablate.arms import Candidates, Places, digest_of
from curate.ablate.settings import RUNS, AblateSettings
from curate.errors import AccountingError, LocalFault, UsageError
from curate.evaluate.clip import clip_predict
from curate.evaluate.items import items, version
from curate.evaluate.statistics import Values
from curate.evaluate.suite import Item, by_item
from curate.media.image import MediaError, decode_rgb
from curate.shards.selection import Selection
from curate.stage import fingerprint
from curate.store import Pool, write_atomically
from curate.train.data import digest
from curate.train.loop import train

FOLDER = "ablations"
VERSION = 1


@dataclass(frozen=True)
class Runs:
    """All runs of a pool, below POOL/ablations/runs: `<digest>.parquet` has a column for each metric and a line for each item."""

    pool: Pool
    among: Candidates
    settings: AblateSettings

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.pool.path / FOLDER / RUNS

    @cached_property
    def evaluation(self) -> str:
        """Fingerprint of what is measured, and how."""
        said = self.settings.evaluate
        on = [digest_of(self.among.held_out)] if self.settings.held_out is not None else version(Path(str(said.data)))
        return fingerprint("items", said.model_dump_json(exclude={"name", "data", "seed", "batch_size"}), *on)

    def name(self, places: Places, seed: int) -> str:
        """What a run is kept under."""
        source = self.among.selection(places, seed)
        return fingerprint("ablate", str(VERSION), self.settings.training(seed).identity(), digest(source), self.evaluation)[:32]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For as long as the block lasts, nobody else trains for this pool: runs are shared. Raises UsageError when somebody does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    "another  curate ablate  is at work on this pool: wait until it has ended, then give the same command"
                ) from None
            yield

    def is_done(self, name: str) -> bool:
        """Whether its figures are there."""
        return self._figures(name).exists()

    def figures(self, name: str) -> dict[str, Values]:
        """Metric -> what each item adds to it, of a run that is done."""
        return {field: column.to_numpy() for field, column in zip(*_columns(pq.read_table(self._figures(name))), strict=True)}

    def do(self, name: str, places: Places, seed: int) -> None:
        """Trains and measures; the model is deleted once its figures are written. Raises LocalFault when this disk is full."""
        model = self.folder / f"{name}.model"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            report = train(self.among.selection(places, seed), self.settings.training(seed), model)
            said = self.settings.evaluate
            found = by_item(clip_predict(report.path, device=said.device, precision=said.precision), self._items(), said)
            buffer = pa.BufferOutputStream()
            pq.write_table(pa.table(found), buffer, compression="zstd")
            write_atomically(self._figures(name), buffer.getvalue().to_pybytes())
        except OSError as error:
            raise LocalFault(
                f"cannot write to {self.folder}: {error.strerror or error}; nothing is lost, run the same command again"
            ) from error
        shutil.rmtree(model, ignore_errors=True)

    def _figures(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _items(self) -> Iterator[Item]:
        if self.settings.held_out is None:
            yield from items(Path(str(self.settings.evaluate.data)))
            return
        for sample in Selection(self.pool.path, self.among.held_out).epoch(0):
            try:
                pixels = decode_rgb(sample.image)
            except MediaError as error:  # an evaluation that skips samples compares nothing
                raise AccountingError(f"the stored image of {sample.sample_id} cannot be decoded ({error})") from None
            yield Item(pixels, (sample.caption,) if sample.caption.strip() else ())


def _columns(table: pa.Table) -> tuple[list[str], list[pa.ChunkedArray]]:
    return table.column_names, table.columns


def figure(found: dict[str, Values], metrics: tuple[str, ...]) -> Values:
    """What each item adds to the mean of the metrics. Raises KeyError for one that was not measured."""
    return np.asarray(np.mean([found[name] for name in metrics], axis=0), np.float64)
