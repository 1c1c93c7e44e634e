"""A keeper whose children do what a broken codec might: `python -m tests.fetch.rogue CONTROL LINE MEMORY`.

What a body says at its start is done; pictures are decoded as ever.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Callable

import numpy as np

from curate.fetch import codec, decoder
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import Wish

_NOWHERE = "/tmp/curate-rogue-nowhere"  # what is allowed finds nothing there, or makes a folder
PROGRAM = ("-m", "tests.fetch.rogue")


def _spin() -> None:
    while True:
        pass


def _refused(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return type(error).__name__ + f" {error.errno}"
    return "done"


def _escapes() -> dict[str, object]:
    """What came of trying to get out."""
    ways: dict[str, Callable[[], object]] = {
        "open": lambda: open("/etc/hostname"),  # noqa: SIM115
        "create": lambda: os.open("/tmp/curate-rogue", os.O_CREAT | os.O_WRONLY),
        "socket": socket.socket,
        "pipe": os.pipe,
        "fork": lambda: os.fork() or os._exit(0),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "rename": lambda: os.rename(_NOWHERE, _NOWHERE + "2"),
        "unlink": lambda: os.unlink(_NOWHERE),
        "truncate": lambda: os.truncate(_NOWHERE, 0),
        "mkdir": lambda: os.mkdir(_NOWHERE),
        "chmod": lambda: os.chmod(_NOWHERE, 0o777),
        "kill": lambda: os.kill(os.getppid(), 0),
    }
    return {name: _refused(action) for name, action in ways.items()}


def _eat() -> None:
    np.ones(1 << 30, np.uint8)


ACTS: dict[bytes, Callable[[], object]] = {
    b"segfault": lambda: ctypes.string_at(0),
    b"spin": _spin,
    b"sleep": lambda: time.sleep(600),
    b"eat": _eat,
    b"raise": lambda: ACTS[b"no such act"],
    b"exit": lambda: os._exit(3),
}

_real = codec.outcome


def outcome(body: bytes, wish: Wish, settings: FetchSettings) -> decoder.Outcome:
    """As `codec.outcome`, but for bodies that name an act."""
    if body.startswith(b"pid"):
        return {"pid": os.getpid()}, None
    if body.startswith(b"escape"):
        return _escapes(), None
    if body.startswith(b"large"):
        return {}, b"x" * (4 * settings.image.max_pixels)
    act = ACTS.get(body.split(b" ")[0])
    if act:
        act()
    return _real(body, wish, settings)


if __name__ == "__main__":
    decoder.outcome = outcome  # type: ignore[attr-defined]
    decoder.main()
