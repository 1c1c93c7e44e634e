"""Decoding in a process of its own: what a codec does to that process costs one row, never the worker.

    worker ── starts ──> keeper (this module as a program, one thread) ── forks ──> child, which decodes one body at a time

Bodies go to the child, and images come back, in the slots of a piece of shared memory; a socket carries the small messages
that say which slot. The child cannot open files or sockets, has a cap on memory, and two kernel timers per body, of its own
CPU time and of the clock, whose signals end it. When it ends, the keeper says how and forks the next one. Bodies that were
sent and not answered are sent again; the one that the child was at is blamed when it ends a child for the second time, or
for the first time by a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from dataclasses import dataclass

import psutil

from curate.errors import LocalFault
from curate.fetch import blocklist
from curate.fetch.codec import outcome, prepare_process
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import Wish

Outcome = tuple[dict[str, object], bytes | None]

_SLOTS = 3  # bodies at the child at once: the next lies ready when one is done, and few are sent twice after a crash
_STATUS = struct.Struct("<i")  # wait status of the child that ended; 0 comes with the line to a new one
_MESSAGE_BYTES = 128 << 10
_CRASHES = 2
_TIMERS = (signal.SIGPROF, signal.SIGALRM)
_WALL_FACTOR = 10  # a busy machine may need so much longer by the clock than in CPU time
_RETURN_BYTES = 4 << 20  # pages of a slot that held more go back to the system


@dataclass
class _Request:
    body: bytes
    wish: Wish
    answer: asyncio.Future[Outcome]
    slot: int = -1
    crashes: int = 0


class Decoder:
    """One decoding child; made in a running event loop, to which all calls belong."""

    def __init__(self, settings: FetchSettings) -> None:
        self._slot_bytes = _slot_bytes(settings)
        memory = os.memfd_create("curate-decoder")
        os.ftruncate(memory, _SLOTS * self._slot_bytes)
        self._memory = mmap.mmap(memory, _SLOTS * self._slot_bytes)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(memory)]
            self._keeper = subprocess.Popen(command, pass_fds=[theirs.fileno(), memory], stdin=subprocess.DEVNULL)
        os.close(memory)
        self._control.send(pickle.dumps(settings))
        self._loop = asyncio.get_running_loop()
        self._free = list(range(_SLOTS))
        self._waiting: deque[_Request] = deque()
        self._sent: deque[_Request] = deque()
        self._line: socket.socket | None = None
        self._broken: LocalFault | None = None
        self._loop.add_reader(self._control, self._hear)

    async def outcome(self, body: bytes, wish: Wish) -> Outcome:
        """`codec.outcome` of a body, or a reason: decoder_crashed, decode_timeout. Raises LocalFault without a keeper."""
        if self._broken:
            raise self._broken
        request = _Request(body, wish, self._loop.create_future())
        self._waiting.append(request)
        self._feed()
        return await request.answer

    async def close(self) -> None:
        """Ends both processes, whatever they are at."""
        self._loop.remove_reader(self._control)
        self._control.close()
        self._hang_up()
        self._keeper.kill()  # the kernel ends the child with it
        await asyncio.to_thread(self._keeper.wait)
        self._memory.close()

    def _feed(self) -> None:
        while self._line and self._waiting and self._free:
            request = self._waiting.popleft()
            if not request.answer.done():
                self._send(self._line, request)

    def _send(self, line: socket.socket, request: _Request) -> None:
        request.slot = self._free.pop()
        self._sent.append(request)
        start = request.slot * self._slot_bytes
        self._memory[start : start + len(request.body)] = request.body
        with contextlib.suppress(OSError):  # the child is dead; the keeper is about to say so
            line.send(pickle.dumps((request.slot, len(request.body), request.wish)))

    def _receive(self) -> None:
        """The child's next answer."""
        assert self._line is not None
        try:
            message = self._line.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._hang_up()
            return
        columns, size = pickle.loads(message)
        request = self._sent.popleft()
        start = request.slot * self._slot_bytes
        image = None if size is None else self._memory[start : start + size]
        self._give_back(request.slot, max(len(request.body), size or 0))
        if not request.answer.done():
            request.answer.set_result((columns, image))
        self._feed()

    def _give_back(self, slot: int, used_bytes: int) -> None:
        self._free.append(slot)
        if used_bytes > _RETURN_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._slot_bytes, self._slot_bytes)

    def _hang_up(self) -> None:
        if self._line:
            self._loop.remove_reader(self._line)
            self._line.close()
            self._line = None

    def _hear(self) -> None:
        """The keeper tells of an ended child, or hands over the line to a new one."""
        try:
            message, lines, _, _ = socket.recv_fds(self._control, _STATUS.size, 1)
        except BlockingIOError:
            return
        except OSError:
            message, lines = b"", []
        if not message:
            self._fail(LocalFault("the decoding process ended and cannot be started again; run the same command again"))
        elif lines:
            self._line = socket.socket(fileno=lines[0])
            self._line.setblocking(False)
            self._loop.add_reader(self._line, self._receive)
            self._feed()
        else:
            self._collect_last_words()
            self._blame(*_STATUS.unpack(message))

    def _collect_last_words(self) -> None:
        """Answers that the child gave before it ended count."""
        while self._line:
            self._receive()

    def _blame(self, status: int) -> None:
        """Judges the body that the child was at; the others go first to the next child."""
        if self._sent:
            suspect = self._sent[0]
            suspect.crashes += 1
            timed_out = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _TIMERS
            if timed_out or suspect.crashes == _CRASHES:
                self._give_back(self._sent.popleft().slot, 0)
                if not suspect.answer.done():
                    suspect.answer.set_result(_lost(suspect.body, "decode_timeout" if timed_out else "decoder_crashed"))
        for request in self._sent:
            self._give_back(request.slot, 0)
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def _fail(self, fault: LocalFault) -> None:
        self._loop.remove_reader(self._control)
        self._hang_up()
        self._broken = fault
        for request in (*self._sent, *self._waiting):
            if not request.answer.done():
                request.answer.set_exception(fault)


def _lost(body: bytes, reason: str) -> Outcome:
    return {"reason": reason, "original_bytes": len(body)}, None


def _slot_bytes(settings: FetchSettings) -> int:
    """Room for the largest body and for the largest image that encoding can make; whole pages, taken when touched."""
    largest = max(settings.max_bytes, 4 * settings.image.max_pixels)
    return -(-largest // mmap.PAGESIZE) * mmap.PAGESIZE


# -- the keeper and its child: programs with one thread


def main() -> None:
    """The keeper: forks a child, waits for its end, says how it was, forks the next; ends with the worker."""
    control, memory = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = control.recv(_MESSAGE_BYTES)
    if not told:  # the worker is gone already
        return
    settings: FetchSettings = pickle.loads(told)
    arena = mmap.mmap(memory, _SLOTS * _slot_bytes(settings))
    prepare_process()
    blocklist.load(settings.blocklists)  # the children cannot open files
    while True:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = os.fork()
        if not child:
            ours.close()
            control.close()
            _serve(theirs, arena, settings)
            os._exit(0)
        theirs.close()
        with contextlib.suppress(OSError):
            socket.send_fds(control, [_STATUS.pack(0)], [ours.fileno()])
        ours.close()
        _, status = os.waitpid(child, 0)
        if status == 0:  # the worker hung up
            return
        try:
            control.send(_STATUS.pack(status))
        except OSError:
            return


def _serve(line: socket.socket, arena: mmap.mmap, settings: FetchSettings) -> None:
    _die_with_parent()
    for number in _TIMERS:
        signal.signal(number, signal.SIG_DFL)
    if not os.environ.get("CURATE_DEBUG"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs complain of broken images to whoever reads the terminal
    _confine(settings)
    slot_bytes = _slot_bytes(settings)
    while message := line.recv(_MESSAGE_BYTES):
        slot, size, wish = pickle.loads(message)
        start = slot * slot_bytes
        _set_timers(settings.decode_seconds)
        columns, image = outcome(arena[start : start + size], wish, settings)
        _set_timers(0.0)
        if image is not None:
            arena[start : start + len(image)] = image
        line.send(pickle.dumps((columns, None if image is None else len(image))))


def _set_timers(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _WALL_FACTOR)


def _confine(settings: FetchSettings) -> None:
    """No more memory than the cap above what the libraries took; nothing that is opened or written; no core dumps."""
    memory_bytes = psutil.Process().memory_info().vms + settings.decode_memory_bytes
    limits = {resource.RLIMIT_AS: memory_bytes, resource.RLIMIT_NOFILE: 0, resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))


def _die_with_parent() -> None:
    """Asks Linux to end this process when its parent ends, even by SIGKILL."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
