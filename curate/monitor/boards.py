"""TensorBoard and wandb: figures of runs and trainings over time, in the form that people look at already."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from curate.errors import LocalFault, MissingExtra
from curate.monitor.settings import LogSettings


class Board(Protocol):
    """Takes named figures at a step, and is closed at the end."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds one point to each curve."""

    def close(self) -> None:
        """Leaves everything on disk, or with the server."""


def open_board(settings: LogSettings, folder: Path, name: str, config: Mapping[str, Any]) -> Board | None:
    """The board that the settings name, if any; its files go to `folder`. Raises MissingExtra, LocalFault."""
    if settings.to == "tensorboard":
        return TensorBoard(folder / name)
    return WandB(settings, folder, name, config) if settings.to == "wandb" else None


class TensorBoard:
    """An event file, as torch's SummaryWriter would write it, without torch."""

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise MissingExtra("tensorboard", "tensorboard") from None
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(folder))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Board`."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        """See `Board`."""
        self._writer.close()


class WandB:
    """A run of wandb; each task's curves have an axis of their own, as several tasks may move at once."""

    def __init__(self, settings: LogSettings, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise MissingExtra("wandb", "wandb") from None
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_SILENT", "true")  # else it talks over the progress
        mode: Any = "offline" if settings.offline else None  # None: as WANDB_MODE says
        try:
            self._run: Any = wandb.init(project=settings.project, name=name, dir=str(folder), config=dict(config), mode=mode)
        except Exception as error:  # it raises many kinds: no key, no network, a server that refuses
            cause = " ".join(str(error).split())[:200]
            raise LocalFault(f"wandb cannot begin: {cause}; log.offline=true writes to {folder} and needs no server") from None
        self._axes: set[str] = set()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """See `Board`."""
        told = dict(figures)
        for name in figures:
            task = name.split("/", 1)[0]
            if task not in self._axes:
                self._axes.add(task)
                self._run.define_metric(f"{task}/step")
                self._run.define_metric(f"{task}/*", step_metric=f"{task}/step")
            told[f"{task}/step"] = step
        self._run.log(told)

    def close(self) -> None:
        """See `Board`."""
        self._run.finish()
