"""Decoding in a process of its own: what a codec does to that process costs one row, never the worker.

    worker ── starts ──> keeper (this module as a program, one thread) ── forks ──> child, which decodes one body at a time

Bodies go to the child, and images come back, in the slots of a piece of shared memory; a socket carries the small messages
that say which slot. The child cannot open files or sockets or start anything; it has a cap on memory, and two kernel timers
per body, of its own CPU time and of the clock, whose signals end it. When it ends, the keeper says how and forks the next
one, which serves the same socket and leaves out what was meant for its predecessor. Bodies that were sent and not answered
are sent again; the one that the child was at is blamed when it ends a child for the second time, or for the first time by
a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import mmap
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from curate.errors import LocalFault
from curate.fetch import blocklist
from curate.fetch.codec import outcome, prepare_process
from curate.fetch.confine import confine
from curate.fetch.settings import FetchSettings
from curate.fetch.watch import Watch
from curate.fetch.wish import Wish
from curate.orphan import die_with_parent

Outcome = tuple[dict[str, object], bytes | None]

_SLOTS = 12  # bodies at the child at once: it has work until the worker listens again, and few are sent twice after a crash
_STATUS = struct.Struct("<i")  # wait status of the child that ended
_MESSAGE_BYTES = 128 << 10  # a wish is at most 48 Ki characters, of plain ASCII where it is long
_CRASHES = 2
_KEEPERS = 3
_PAUSE_SECONDS = 0.1
_ONE_THREAD = {  # since it forks
    **{name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
_CV2_NO_MEMORY = -4  # cv::Error::StsNoMem
_PROGRAM = ("-m", "curate.fetch.decoder")
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
    """One decoding child; made in a running event loop, to which all calls belong.

    `program` is what python runs as the keeper, given three descriptors as arguments.
    """

    def __init__(self, settings: FetchSettings, program: Sequence[str] = _PROGRAM) -> None:
        self._settings, self._program = settings, tuple(program)
        self._slot_bytes = _slot_bytes(settings)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Request] = deque()
        self._sent: deque[_Request] = deque()
        self._keepers = 0
        self._broken: LocalFault | None = None
        self._start()

    def _start(self) -> None:
        """Everything that goes with a keeper."""
        self._keepers += 1
        self._child = 0
        self._free = list(range(_SLOTS))
        memory = os.memfd_create("curate-decoder")
        os.ftruncate(memory, _SLOTS * self._slot_bytes)
        self._memory = mmap.mmap(memory, _SLOTS * self._slot_bytes)
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptors = (control.fileno(), line.fileno(), memory)
        with control, line:
            command = [sys.executable, *self._program, *map(str, descriptors)]
            environment = os.environ | _ONE_THREAD
            self._keeper = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env=environment)
        os.close(memory)
        with contextlib.suppress(ConnectionError):  # dead already, as will be heard
            self._control.send(pickle.dumps(self._settings.model_copy(update={"domains": {}})))
        for end in (self._control, self._line):
            end.setblocking(False)
        self._loop.add_reader(self._control, self._hear)
        self._watch = Watch(self._loop, self._line.fileno(), self._receive_all, lambda: len(self._sent) > _SLOTS // 2)

    async def outcome(self, body: bytes, wish: Wish) -> Outcome:
        """`codec.outcome` of a body, or a reason: decoder_crashed, decode_timeout, decode_memory.

        Raises LocalFault when no keeper stays alive.
        """
        if self._broken:
            raise self._broken
        request = _Request(body, wish, self._loop.create_future())
        self._waiting.append(request)
        self._feed()
        return await request.answer

    async def close(self) -> None:
        """Ends both processes, whatever they are at."""
        self._hang_up()
        self._keeper.kill()  # the kernel ends the child with it
        await asyncio.to_thread(self._keeper.wait)
        self._memory.close()

    def _hang_up(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._watch.close()
            self._control.close()
            self._line.close()

    def _feed(self) -> None:
        while self._waiting and self._free:
            request = self._waiting.popleft()
            if not request.answer.done() and not self._send(request):
                self._waiting.appendleft(request)
                self._loop.call_later(_PAUSE_SECONDS, self._feed)
                return

    def _send(self, request: _Request) -> bool:
        """Hands a body over; False while the socket is full of what nobody has read yet."""
        request.slot = self._free.pop()
        start = request.slot * self._slot_bytes
        self._memory[start : start + len(request.body)] = request.body
        try:
            self._line.send(pickle.dumps((self._child, request.slot, len(request.body), request.wish)))
        except ConnectionError:
            pass  # the keeper is dead, and its end about to be heard
        except BlockingIOError:
            self._free.append(request.slot)
            return False
        except OSError:  # a message that no socket takes
            self._free.append(request.slot)
            request.answer.set_result(_lost(request.body, "decoder_crashed"))
            return True
        self._sent.append(request)
        return True

    def _receive_all(self) -> None:
        while self._receive():
            pass

    def _receive(self) -> bool:
        """The child's next answer; whether there was one."""
        try:
            message = self._line.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        columns, size = _read(message, self._slot_bytes) if message and self._sent else (None, None)
        if columns is None:  # it hung up, or is not in its right mind: `_hear` starts anew
            self._watch.close()
            self._keeper.kill()
            return False
        request = self._sent.popleft()
        start = request.slot * self._slot_bytes
        image = None if size is None else self._memory[start : start + size]
        self._give_back(request.slot, max(len(request.body), size or 0))
        if not request.answer.done():
            request.answer.set_result((columns, image))
        self._feed()
        return True

    def _give_back(self, slot: int, used_bytes: int) -> None:
        self._free.append(slot)
        if used_bytes > _RETURN_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE, slot * self._slot_bytes, self._slot_bytes)

    def _hear(self) -> None:
        """The keeper tells of an ended child, or is dead itself."""
        try:
            message = self._control.recv(_STATUS.size)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        self._receive_all()  # answers that the child gave before it ended count
        if message:
            self._blame(*_STATUS.unpack(message))
        else:
            self._start_again()

    def _start_again(self) -> None:
        """Another keeper; what was sent to the dead one is sent again."""
        self._hang_up()
        self._keeper.kill()
        self._keeper.wait()
        self._memory.close()
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        if self._keepers == _KEEPERS:
            self._fail(LocalFault("the decoding process ends again and again, or cannot be started; run the same command again"))
            return
        try:
            self._start()
        except OSError as error:
            self._fail(LocalFault(f"the decoding process ended and cannot be started again: {error}; run the same command again"))
            return
        self._feed()

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
        self._child += 1
        self._feed()

    def _fail(self, fault: LocalFault) -> None:
        self._broken = fault
        for request in self._waiting:
            if not request.answer.done():
                request.answer.set_exception(fault)


def _read(message: bytes, most: int) -> tuple[dict[str, object] | None, int | None]:
    """The child's answer: columns, and the size of the image; no columns when it is none."""
    try:
        columns, size = json.loads(message)
    except (ValueError, TypeError):
        return None, None
    is_sound = isinstance(columns, dict) and (size is None or (isinstance(size, int) and 0 <= size <= most))
    return (columns, size) if is_sound else (None, None)


def _lost(body: bytes, reason: str) -> Outcome:
    return {"reason": reason, "original_bytes": len(body)}, None


def _slot_bytes(settings: FetchSettings) -> int:
    """Room for the largest body and for the largest image that encoding can make; whole pages, taken when touched."""
    largest = max(settings.max_bytes, 4 * settings.image.max_pixels)
    return -(-largest // mmap.PAGESIZE) * mmap.PAGESIZE


# -- the keeper and its child: programs with one thread


def main() -> None:
    """The keeper: forks a child, waits for its end, says how it was, forks the next; ends with the worker."""
    control, line = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told = control.recv(_MESSAGE_BYTES)
    if not told:  # the worker is gone already
        return
    settings: FetchSettings = pickle.loads(told)
    arena = mmap.mmap(int(sys.argv[3]), _SLOTS * _slot_bytes(settings))
    keeper = os.getpid()
    prepare_process()
    blocklist.load(settings.blocklists)  # the children cannot open files
    for number in itertools.count():
        child = os.fork()
        if not child:
            control.close()
            _serve(line, arena, settings, number, keeper)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:  # the worker hung up
            return
        try:
            control.send(_STATUS.pack(status))
        except OSError:
            return


def _serve(line: socket.socket, arena: mmap.mmap, settings: FetchSettings, number: int, keeper: int) -> None:
    die_with_parent(keeper)
    for timer in _TIMERS:
        signal.signal(timer, signal.SIG_DFL)
    if not os.environ.get("CURATE_DEBUG"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # codecs complain of broken images to whoever reads the terminal
    confine(settings.decode_memory_bytes)
    slot_bytes = _slot_bytes(settings)
    while message := line.recv(_MESSAGE_BYTES):
        child, slot, size, wish = pickle.loads(message)
        if child != number:  # whoever it was for is dead, and it is sent again
            continue
        start = slot * slot_bytes
        _set_timers(settings.decode_seconds)
        columns, image = _outcome_here(arena[start : start + size], wish, settings)
        _set_timers(0.0)
        if image is not None:
            arena[start : start + len(image)] = image
        line.send(json.dumps((columns, None if image is None else len(image))).encode())


def _outcome_here(body: bytes, wish: Wish, settings: FetchSettings) -> Outcome:
    """`codec.outcome`, where memory that runs short is the cap's doing and so the body's fault."""
    try:
        columns, image = outcome(body, wish, settings)
    except MemoryError:
        return _lost(body, "decode_memory")
    except Exception as error:  # what a codec raises in a place where nobody expects it
        is_short = isinstance(error, cv2.error) and error.code == _CV2_NO_MEMORY
        return _lost(body, "decode_memory" if is_short else "decoder_crashed")
    return (columns | {"reason": "decode_memory"}, None) if columns.get("reason") == "local_fault" else (columns, image)


def _set_timers(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _WALL_FACTOR)


if __name__ == "__main__":
    main()
