"""Takes from this process what decoding an image does not need: memory without bounds, files, sockets, other processes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import platform
import resource
import struct

import psutil

_NO_NEW_PRIVILEGES, _SECCOMP = 38, 22  # prctl(2): PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
_FILTER_MODE = 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _IS, _RETURN = 0x20, 0x15, 0x06  # BPF: 32 bits of struct seccomp_data, jump when equal, return

_AT_LEAST = 0x35  # BPF: jump when greater or equal
_X32 = 0x40000000  # calls of the x32 ABI carry this bit and the same architecture

# Architecture (AUDIT_ARCH_*) and the numbers of: open, openat, openat2, socket, connect, clone, fork, vfork, clone3, execve,
# execveat, ptrace, process_vm_writev, pidfd_open, pidfd_getfd; then what needs no descriptor: truncate, rename, mkdir, link,
# unlink, chmod, chown, mknod, utime, setxattr, removexattr and their kin; kill and its kin; prlimit64, io_uring_setup.
_REFUSED = {
    "x86_64": (
        0xC000003E,
        (
            *(2, 257, 437, 41, 42, 56, 57, 58, 435, 59, 322, 101, 311, 434, 438),
            *(76, *range(82, 89), *range(90, 95), 132, 133, 188, 189, 190, 197, 198, 199, 235),
            *(258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 316, 452),
            *(62, 200, 234, 297, 302, 424, 425),
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(56, 437, 198, 203, 220, 435, 221, 281, 117, 271, 434, 438),
            *(45, *range(33, 39), 53, 54, 88, 5, 6, 7, 14, 15, 16, 276, 452),
            *(129, 130, 131, 240, 261, 424, 425),
        ),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def confine(memory_bytes: int) -> None:
    """From here on: no more memory than so much above what is taken, nothing opened or written, nothing started, no core dumps.

    Limits hold everywhere. System calls are refused too where Linux can (x86-64 and ARM): root is above some limits.
    """
    most_bytes = psutil.Process().memory_info().vms + memory_bytes
    limits = {
        resource.RLIMIT_AS: most_bytes,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    if platform.machine() in _REFUSED:
        with contextlib.suppress(OSError, AttributeError):
            _refuse_calls(*_REFUSED[platform.machine()])


def _refuse_calls(architecture: int, numbers: tuple[int, ...]) -> None:
    """seccomp(2): these calls end in EPERM, as does every call of another architecture."""
    steps = [(_LOAD, 0, 0, 4), (_IS, 0, len(numbers) + 3, architecture), (_LOAD, 0, 0, 0)]
    steps += [(_AT_LEAST, len(numbers) + 1, 0, _X32)]
    steps += [(_IS, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    # where a comparison holds, the jump goes over the other comparisons and the line that allows
    program = _Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
    library = ctypes.CDLL(None)
    library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    library.prctl(_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0)
