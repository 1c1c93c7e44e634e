"""What an engine is: it takes a phase and part tasks, and hands back one outcome for each part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from curate.settings import Settings
from curate.stage import PartReport, PartTask, Phase


@dataclass(frozen=True)
class PartFailure:
    """A part that could not be done after all tries; the run goes on and ends with exit code 3."""

    part: int
    message: str


class EngineSettings(Settings):
    """How the work is spread over this machine or a cluster."""

    name: str = "local"
    workers: int = 0  # processes; 0 means one for each core
    threads_per_worker: int = 1  # of BLAS and torch; part of what makes scores repeatable
    tries: int = 3  # of a part whose worker died
    part_seconds: float = 3600.0  # a worker that needs longer for one part is taken for hung and replaced
    lease_seconds: float = 10.0  # silence after which another run may take this one's place
    wave_parts: int = 256  # parts that are committed together at most
    wave_seconds: float = 30.0  # a finished part waits at most this long for its commit


class Engine(Protocol):
    """Moves part names, never image bytes."""

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        """Runs the phase on every part, in any order; yields one outcome a part as it comes in.

        Closing the iterator stops the workers. Raises what a worker raises when it is a CurateError.
        """
