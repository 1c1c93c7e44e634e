"""What an engine is: it takes a phase and part tasks, and hands back one outcome for each part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field, field_validator

from curate.schema import nearest
from curate.settings import Settings
from curate.stage import PartReport, PartTask, Phase

PACKAGES = {"local": "", "slurm": "", "ray": "ray", "spark": "pyspark"}
"""Names of the engines, and the foreign package that each needs; the extra that brings it has the engine's name."""


@dataclass(frozen=True)
class PartFailure:
    """A part that could not be done after all tries; the run goes on, and looks for the rows to blame or ends with exit code 3."""

    part: int
    message: str
    crashed: bool = False  # its worker died or hung at every try; else the phase itself failed, which another try would not mend


def launcher() -> str:
    """The engine of the program that started this process: a recipe under spark-submit wants no other."""
    return "spark" if "PYSPARK_GATEWAY_PORT" in os.environ else "local"


class EngineSettings(Settings):
    """How the work is spread over this machine or a cluster."""

    name: str = Field(default_factory=launcher)
    address: str = ""  # where a cluster is reached; each engine says in its file in conf/engine what may stand here
    master: str = ""  # another name for it, Spark's own
    conf: dict[str, str] = {}  # further properties of the Spark session that a run starts
    workers: int = Field(default=0, ge=0)  # processes; 0 means as many as the machine or cluster has room for
    machines: int = Field(default=1, ge=1)  # that work at once, where the engine asks for them: tasks of a Slurm array
    threads_per_worker: int = Field(default=1, ge=1)  # of BLAS and torch; part of what makes scores repeatable
    tries: int = Field(default=3, ge=1)  # of a part whose worker died
    part_seconds: float = Field(default=3600.0, gt=0)  # a worker that needs longer for one part is taken for hung and replaced
    start_seconds: float = Field(default=120.0, gt=0)  # how long to wait until a cluster has room for a first worker
    lease_seconds: float = Field(default=10.0, ge=1)  # silence after which another run may take this one's place
    bucket_rows: int = Field(default=1 << 19, ge=1)  # of a grouping such as dedupe; a task needs up to 2.4 KB of memory for each
    options: tuple[str, ...] = ()  # of sbatch, for example --partition=cpu
    prologue: str = ""  # lines of shell that a job runs first, for example  module load python
    price_per_machine_hour: float | None = Field(default=None, ge=0)  # in your currency, for `curate estimate`
    wave_parts: int = Field(default=256, ge=1)  # parts that are committed together; a hundredth of a table with more
    wave_seconds: float = Field(default=30.0, ge=0)  # a finished part waits at most this long for its commit

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in PACKAGES:
            raise ValueError(f"no engine is called {name!r}; there are {', '.join(PACKAGES)}{nearest(name, list(PACKAGES))}")
        return name


def worker_count(settings: EngineSettings) -> int:
    """Processes that work at once on one machine: as many as said, or one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


class Engine(Protocol):
    """Moves part names, never image bytes."""

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """Runs the phase on every part, in any order; yields one outcome a part as it comes in.

        Closing the iterator stops the workers. Raises what a worker raises when it is a CurateError.
        """
