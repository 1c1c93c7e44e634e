"""What a Spark task does: it has part after part done by a process of its own, and tells the driver of each as it ends."""

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

from curate.engines.base import EngineSettings
from curate.engines.local import Processes
from curate.engines.offers import Offers
from curate.engines.outbox import Outbox, Said, encode
from curate.engines.skew import refuse_skew
from curate.errors import CurateError, UsageError
from curate.stage import PartTask

OUTCOMES = "outcome binary"
"""Schema of what `work` yields: one cell a part."""

_MOST = 256  # parts that an order takes: what became of them comes to the driver at once when it ends, and others want Spark's slots too


@dataclass(frozen=True)
class Order:
    """What one Spark task is to do: these parts of one phase, or with `outbox` those that it takes from that folder."""

    name: str
    phase: bytes
    parts_at_once: int
    tasks: tuple[PartTask, ...]
    settings: EngineSettings
    outbox: str | None


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
    """Outcomes of the order's parts. A second attempt does nothing: the driver gives what the first had in hand again, each part alone."""
    outbox = Outbox(Path(order.outbox)) if order.outbox else None
    if outbox is not None and not outbox.is_open():
        if not outbox.folder.parent.is_dir():
            raise UsageError(f"{where} does not see {outbox.folder.parent}: a pool must lie at one path that every machine mounts")
        return  # the run has ended without us
    if _attempt():
        return
    for said in _hosted(order):
        if outbox is not None:
            outbox.tell(said)
        yield said


def _attempt() -> int:
    context = TaskContext.get()
    return int(context.attemptNumber()) if context else 0


# -- the process that works


_kept: dict[str, _Hosted] = {}  # at most one


class _Hosted(Processes):
    """A child of this process that does parts.

    Why a child: Spark fails a task when its Python worker dies, and a job when a task fails too often; so that a part which
    kills its worker or hangs costs itself a try and nothing else, this process only watches. Spark keeps it for later tasks
    (spark.python.worker.reuse), and with it the child, which has opened the phase.
    """

    order = ""
    offers: Offers | None = None
    hand: dict[int, int]  # part taken from the offers -> how often its worker had died by then
    left = 0

    def begin(self, order: Order) -> None:
        """Another order for the same child."""
        self.order, self.hand, self.left = order.name, {}, _MOST
        self.offers = Offers(Path(order.outbox)) if order.outbox else None
        self.add(order.tasks)

    def another(self) -> PartTask | None:
        """The next part of the folder, where there is one and this order may take more."""
        found = self.offers.take(self.order) if self.offers and self.left else None
        if found is None:
            return None
        task, tried = found
        self.left -= 1
        self.tries[task.part] = self.hand[task.part] = tried
        return task

    def told(self, part: int) -> None:
        """The driver has been told of a part. Where it thought this order dead and gave the part to another, the order takes no more."""
        if self.offers and not self.offers.done(self.order, part, self.hand.pop(part)):
            self.left = 0


def _hosted(order: Order) -> Iterator[Said]:
    """Has the parts done; each counts as told when the next one is asked for."""
    crew = _crew(order)
    crew.begin(order)
    try:
        for said in crew.work():
            yield said
            crew.told(said.part)
    except CurateError as error:
        _dismiss()
        yield error
    except BaseException:
        _dismiss()
        raise


def _crew(order: Order) -> _Hosted:
    gpus = _gpus()
    key = hashlib.sha256(pickle.dumps((order.phase, order.parts_at_once, order.settings.model_dump_json(), gpus))).hexdigest()
    if key not in _kept:
        _dismiss()
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        _forget_main()
        _kept[key] = _Hosted(order.settings, order.phase, order.parts_at_once, (), 1)
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
