"""Fetch phases with planted trouble; workers import them by name."""

from __future__ import annotations

import datetime
import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from curate.fetch.phase import FetchPhase
from curate.fetch.rows import Asked, Fetched, FetchRows
from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage


def turn(url: str) -> int:
    """0 to 3 by the hash of a URL's path (or of the path alone): how often it is put off."""
    return hashlib.sha256(path_of(url).encode()).digest()[0] % 4


def path_of(url: str) -> str:
    """`/image/1` of http://host:port/image/1, or of itself."""
    return "/" + url.split("://")[-1].partition("/")[2]


@dataclass(frozen=True)
class Troubled(FetchPhase):
    """Ends URLs with `reason` unasked: those of `lost` paths, or without these every one while patience is short for it."""

    settings: FetchSettings = field(default_factory=FetchSettings)
    reason: str = "deferred_politeness"
    lost: tuple[str, ...] = ()

    @property
    def stage(self) -> FetchStage:
        plain = super().stage
        return _Stage(**{one.name: getattr(plain, one.name) for one in fields(plain)}, reason=self.reason, lost=self.lost)


@dataclass(frozen=True)
class _Stage(FetchStage):
    reason: str = ""
    lost: tuple[str, ...] = ()

    @contextmanager
    def open_rows(self) -> Iterator[FetchRows]:
        with super().open_rows() as fetch:
            yield lambda batches: self._marked(fetch([self._skipping(batch) for batch in batches]))

    def _marked(self, outcomes: Iterator[Fetched]) -> Iterator[Fetched]:
        filled = {"attempts": 0, "bytes_read": 0, "finished_at": datetime.datetime.now(datetime.UTC)}
        for columns, image in outcomes:
            yield columns | (filled if columns["reason"] == self.reason else {}), image

    def _skipping(self, batch: Sequence[Asked]) -> list[Asked]:
        return [(url, self.reason if self._is_met(url) else None, wish) for url, _, wish in batch]

    def _is_met(self, url: str) -> bool:
        if self.lost:
            return path_of(url) in self.lost
        return self.settings.patience_seconds < 10 * 2 ** turn(url)


@dataclass(frozen=True)
class Deadly(FetchPhase):
    """Its worker dies before it asks for anything, where one of the paths is to be asked for."""

    settings: FetchSettings = field(default_factory=FetchSettings)
    paths: tuple[str, ...] = ()

    @property
    def stage(self) -> FetchStage:
        plain = super().stage
        return _DeadlyStage(**{one.name: getattr(plain, one.name) for one in fields(plain)}, paths=self.paths)


@dataclass(frozen=True)
class _DeadlyStage(FetchStage):
    paths: tuple[str, ...] = ()

    @contextmanager
    def open_rows(self) -> Iterator[FetchRows]:
        with super().open_rows() as fetch:
            yield lambda batches: fetch(self._survived(batch) for batch in batches)

    def _survived(self, batch: Sequence[Asked]) -> Sequence[Asked]:
        if any(path_of(url) in self.paths for url, _, _ in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return batch
