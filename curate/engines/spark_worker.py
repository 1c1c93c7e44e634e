"""What a Spark task does: it has a few parts done by a process of its own, and tells the driver of each as it ends."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyspark import TaskContext

from curate.engines.base import EngineSettings, PartFailure
from curate.engines.crew import Crew
from curate.engines.local import Processes
from curate.engines.outbox import Outbox, Said, decode, encode
from curate.engines.skew import refuse_skew
from curate.errors import CurateError, UsageError
from curate.stage import PartTask

OUTCOMES = "outcome binary"
"""Schema of what `work` yields: one cell a part."""


@dataclass(frozen=True)
class Order:
    """What one Spark task is to do: parts of one phase, how, where to tell, and how often their workers died before."""

    phase: bytes
    parts_at_once: int
    tasks: tuple[PartTask, ...]
    settings: EngineSettings
    outbox: str | None
    tried: int = 0


def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One row for each Spark partition, whatever it holds: how many there are is how many tasks run at once."""
    for _ in batches:
        pass
    yield _cells([b""])


def work(driver: Mapping[str, str], order: bytes, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For `mapInArrow` over a single row: does the order, yields the outcome of each of its parts.

    Only bytes and texts come with it, so that a worker with another curate can still say so.
    """
    where = f"the Spark executor on {socket.gethostname()}"
    refuse_skew(driver, where)
    for _ in batches:
        for said in _do(pickle.loads(order), where):
            yield _cells([encode(said)])


def _cells(cells: Sequence[bytes]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(cells, pa.binary())], names=["outcome"])


def _do(order: Order, where: str) -> Iterator[Said]:
    """Outcomes of the order's parts; what an earlier attempt of the same Spark task has told already is told again."""
    outbox = Outbox(Path(order.outbox)) if order.outbox else None
    if outbox is not None and not outbox.is_open():
        if not outbox.folder.parent.is_dir():
            raise UsageError(f"{where} does not see {outbox.folder.parent}: a pool must lie at one path that every machine mounts")
        return  # the run has ended without us
    told = {task.part: outbox.told(task.part) for task in order.tasks} if outbox else {}
    for content in filter(None, told.values()):
        yield decode(content)
    for said in _outcomes(order, [task for task in order.tasks if not told.get(task.part)]):
        if outbox is not None:
            outbox.tell(said)
        yield said


def _outcomes(order: Order, left: Sequence[PartTask]) -> Iterator[Said]:
    attempt = _attempt()
    if not attempt:
        yield from _hosted(order, left)
    elif len(left) == 1 and order.tried + attempt >= order.settings.tries:  # it takes executors with it: Spark would go on for longer
        yield PartFailure(left[0].part, f"its worker died {order.settings.tries} times", crashed=True)
    else:
        for task in left:  # an executor died on one of them: one after another, so that the others are told before it dies again
            yield from _hosted(order, [task])


def _attempt() -> int:
    context = TaskContext.get()
    return int(context.attemptNumber()) if context else 0


# -- the process that works


_kept: dict[str, Crew] = {}  # at most one


def _hosted(order: Order, tasks: Sequence[PartTask]) -> Iterator[Said]:
    """Has the parts done by a child of this process.

    Why a child: Spark fails a task when its Python worker dies, and a job when a task fails too often; so that a part which
    kills its worker or hangs costs itself a try and nothing else, this process only watches. Spark keeps it for later tasks
    (spark.python.worker.reuse), and with it the child, which has opened the phase.
    """
    crew = _crew(order)
    crew.add(tasks)
    try:
        yield from crew.work()
    except CurateError as error:
        _dismiss()
        yield error
    except BaseException:
        _dismiss()
        raise


def _crew(order: Order) -> Crew:
    gpus = _gpus()
    key = hashlib.sha256(pickle.dumps((order.phase, order.parts_at_once, order.settings.model_dump_json(), gpus))).hexdigest()
    if key not in _kept:
        _dismiss()
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        _forget_main()
        _kept[key] = Processes(order.settings, order.phase, order.parts_at_once, (), 1)
    return _kept[key]


@atexit.register
def _dismiss() -> None:
    """Ends the child."""
    while _kept:
        with contextlib.suppress(OSError):
            _kept.popitem()[1].dismiss()


def _gpus() -> list[str]:
    """Addresses of the GPUs that Spark gave this task."""
    context = TaskContext.get()
    found = context.resources().get("gpu") if context else None
    return list(found.addresses) if found else []


def _forget_main() -> None:
    """Keeps a new process from importing the program of this one, Spark's worker daemon."""
    main = sys.modules["__main__"]
    main.__spec__ = None
    main.__dict__.pop("__file__", None)
