"""What becomes of a process whose parent is gone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Asks Linux to end this process when its parent ends, even by SIGKILL; ends it now when that is not `parent` any more.

    Elsewhere nothing happens: what a worker hears last is a closed pipe.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
