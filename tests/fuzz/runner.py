"""Runs numbered cases in a child process and survives what they do to it: `hunt("tests.fuzz.images:case", …)`.

A case is a function of a number; it returns when all is well and raises otherwise. What it costs is counted in
processor time, so that a busy machine makes no findings; a case that does not come back at all is ended by its child's
parent, and so is one that takes the whole process with it.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MEMORY_BYTES = 6 << 30
HANG_FACTOR = 12  # wall time over processor time at which a case is given up
_PLACE = struct.Struct("<q")
_STOPPED = -1


@dataclass(frozen=True)
class Finding:
    """A case that did not end well, and how."""

    number: int
    what: str


def hunt(name: str, first: int, last: int, seconds: float) -> list[Finding]:
    """All findings among cases `first` to `last` - 1; each may cost `seconds` of processor time."""
    findings: list[Finding] = []
    while first < last:
        found, first = _run(name, first, last, seconds)
        findings += found
    return findings


def _run(name: str, first: int, last: int, seconds: float) -> tuple[list[Finding], int]:
    """Findings of one child, and the number with which the next one goes on."""
    with tempfile.TemporaryFile() as shared, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as spilt:
        shared.write(_PLACE.pack(first))
        shared.flush()
        place = mmap.mmap(shared.fileno(), _PLACE.size)
        command = [sys.executable, "-m", "tests.fuzz.runner", name, str(first), str(last), str(seconds), str(shared.fileno())]
        child = subprocess.Popen(command, stdout=said, stderr=spilt, pass_fds=[shared.fileno()])
        try:
            hung = _watch(child, place, seconds)
        finally:
            child.kill()
            child.wait()
        said.seek(0)
        findings = [Finding(*json.loads(line)) for line in said.read().splitlines() if line.endswith(b"]")]
        (at,) = _PLACE.unpack(place[:])
        if at == _STOPPED:
            return findings, last
        spilt.seek(0)
        how = f"hung for {seconds * HANG_FACTOR:.0f} s" if hung else f"died with {child.returncode}: {spilt.read()[-300:]!r}"
        return [*findings, Finding(at, how)], at + 1


def _watch(child: subprocess.Popen[bytes], place: mmap.mmap, seconds: float) -> bool:
    """Waits for the child's end; True when one case kept it for too long."""
    at, since = -2, time.monotonic()
    while child.poll() is None:
        time.sleep(0.05)
        (now,) = _PLACE.unpack(place[:])
        if now != at:
            at, since = now, time.monotonic()
        elif time.monotonic() - since > seconds * HANG_FACTOR + 60:  # starting up is no case's time
            return True
    return False


def _cases(name: str) -> Callable[[int], None]:
    module, _, function = name.partition(":")
    found: Callable[[int], None] = getattr(importlib.import_module(module), function)
    return found


def _findings(case: Callable[[int], None], first: int, last: int, seconds: float, place: mmap.mmap) -> Iterator[Finding]:
    for number in range(first, last):
        place[:] = _PLACE.pack(number)
        before = time.thread_time()
        try:
            case(number)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            yield Finding(number, f"{type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})")
        spent = time.thread_time() - before
        if spent > seconds:
            yield Finding(number, f"took {spent:.1f} s of processor time")
    place[:] = _PLACE.pack(_STOPPED)


def main() -> None:
    """The child: `python -m tests.fuzz.runner MODULE:FUNCTION FIRST LAST SECONDS FD`."""
    name, first, last, seconds, descriptor = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    place = mmap.mmap(int(descriptor), _PLACE.size)
    out, sys.stdout = sys.stdout, sys.stderr
    for finding in _findings(_cases(name), int(first), int(last), float(seconds), place):
        out.write(json.dumps([finding.number, finding.what]) + "\n")
        out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
