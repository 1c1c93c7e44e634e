"""What a worker of any engine does: open the phase once, answer part after part, and say why when it cannot."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import pickle
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Literal

from curate.engines import cost
from curate.errors import CurateError
from curate.stage import PartReport, PartTask, Phase

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables that say how many threads a native library of a worker may use."""

Answer = tuple[Literal["ready", "report", "stop", "bug"], int, object]
"""What happened, to which part (-1 for `ready`), and what there is to say."""

Do = Callable[[PartTask], PartReport]


def environment(threads: int) -> dict[str, str]:
    """What a worker's environment says of threads."""
    return dict.fromkeys(THREAD_VARIABLES, str(threads))


def few_arenas() -> None:
    """Tells glibc to share two heaps among all threads: else it keeps what each of a worker's threads once needed."""
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


def opened(phase: Phase, stack: ExitStack) -> Do:
    """The function that does one part; where the phase cannot be opened, one that raises why, so that every part hears it."""
    gc.set_threshold(20_000, 50, 100)  # thousands of rows under way are no garbage; the usual 700 looks at them all the time
    try:
        return stack.enter_context(cost.opened(phase))
    except Exception as error:
        return functools.partial(_raise, error, error.__traceback__)


def answer(do: Do, task: PartTask) -> Answer:
    """Does one part. A CurateError stops the run; anything else that is raised fails the part with its traceback."""
    try:
        try:
            return _sendable(("report", task.part, do(task)))
        except CurateError as error:
            return _sendable(("stop", task.part, error))
    except Exception:  # a bug in a stage: the part fails with its traceback, the run goes on
        return "bug", task.part, traceback.format_exc()


def _sendable(said: Answer) -> Answer:
    """The answer, once it is certain that it can be sent: what cannot is a bug too, and the driver must hear of it."""
    pickle.loads(pickle.dumps(said))
    return said


def _raise(error: Exception, trace: TracebackType | None, task: PartTask) -> PartReport:
    raise error.with_traceback(trace)  # else it grows with every part
