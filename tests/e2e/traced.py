"""Small runs (`tests.e2e.small_run`) under strace: watched, or killed at the n-th system call of a kind."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.small_run import ROWS

CALLS = (
    "openat",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "rmdir",
)
WRITES = 8
MAIN, DELTA = "main", "delta"
"""A run's own thread, and those in which Delta Lake reads and writes its log."""
Point = tuple[str, int, str]  # call, its number, thread
_LINE = re.compile(r"^(?:(?P<thread>\d+) +)?(?P<name>\w+)\((?P<said>.*)$")


@dataclass(frozen=True)
class Call:
    """One system call: the thread, its name, the file that it is about, and for one that names a file, that name."""

    thread: int
    name: str
    path: str
    target: str = ""
    changes: bool = True  # not an opening to read


def calls_of(text: str) -> list[Call]:
    """The calls of a trace made with `-y`, in the order in which they began."""
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            quoted, opened = re.findall(r'"((?:[^"\\]|\\.)*)"', match["said"]), re.match(r"\d+<([^>]*)>", match["said"])
            names = (
                quoted
                if match["name"].startswith(("open", "rename", "link", "unlink", "mkdir", "rmdir"))
                else [opened[1]]
                if opened
                else []
            )
            changes = match["name"] != "openat" or any(flag in match["said"] for flag in ("O_CREAT", "O_WRONLY", "O_RDWR"))
            path, target = [*names, "", ""][:2]
            found.append(Call(int(match["thread"] or 0), match["name"], path, target, changes))
    return found


@dataclass
class Traced:
    """Runs in a folder; each has a name and a pool."""

    folder: Path
    server: subprocess.Popen[str]

    @staticmethod
    def works() -> bool:
        """Whether this machine has strace and lets it trace."""
        if shutil.which("strace") is None:
            return False
        return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Traced]:
        """The process that forks the runs; what one run loads, it has loaded."""
        (folder / "list.txt").write_text("".join(f"http://host{number}.example/{number}\n" for number in range(ROWS)))
        (folder / "modules").write_text("")
        with cls._server(folder) as first:
            assert first.run("first") == 0
        shutil.copy(folder / "first.modules", folder / "modules")
        with cls._server(folder) as found:
            yield found

    @classmethod
    @contextmanager
    def _server(cls, folder: Path) -> Iterator[Traced]:
        command = [sys.executable, "-m", "tests.e2e.small_run", str(folder / "modules")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None and server.stdin is not None and server.stdout.readline() == "ready\n"
            yield cls(folder, server)
            server.stdin.close()

    def pool(self, name: str) -> Path:
        """Where the run of that name keeps its pool."""
        return self.folder / name

    def forget(self, name: str) -> None:
        """Removes what a run left."""
        for path in self.folder.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def run(self, name: str) -> int:
        """Runs undisturbed; the exit code."""
        return self._end(name, self._begin(name), [])

    def watch(self, name: str) -> int:
        """Runs while all calls are written down, with the thread that makes them."""
        pid = self._begin(name)
        self.main = pid
        return self._end(
            name, pid, [["-f", "-p", str(pid), "-y", "-s", "1", "-e", f"trace={','.join(CALLS)}", "-o", f"{self.pool(name)}.trace"]]
        )

    def trace(self, name: str) -> list[Call]:
        """The calls of a run that was watched."""
        return calls_of(Path(f"{self.pool(name)}.trace").read_text())

    def points(self, name: str) -> list[Point]:
        """Where a run can be killed so that its pool is left in different states: calls of its own thread and of Delta Lake's.

        Calls that only read leave what the call before them left. Of writes that follow each other in one unpublished file,
        which only grows by them, the first, the last and every eighth are points.
        """
        counts: dict[tuple[int, str], int] = defaultdict(int)
        writes: dict[tuple[int, str], list[Point]] = defaultdict(list)
        found: list[Point] = []
        for call in self.trace(name):
            counts[call.thread, call.name] += 1
            if call.changes and f"{self.pool(name)}/" in call.path + call.target:
                point = (call.name, counts[call.thread, call.name], MAIN if call.thread == self.main else DELTA)
                (writes[call.thread, call.path] if "write" in call.name else found).append(point)
        thinned = [point for points in writes.values() for point in {*points[::WRITES], points[-1]}]
        return sorted({*found, *thinned})

    def kill(self, name: str, call: str, number: int, thread: str) -> str:
        """Runs until the n-th such call of a thread of that kind, in which the process is killed; the call, or nothing."""
        pid = self._begin(name)
        threads = [pid] if thread == MAIN else [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir() if int(path.name) != pid]
        attach = [word for one in threads for word in ("-p", str(one))]
        said = f"{self.pool(name)}.trace"
        inject = f"inject={call}:signal=KILL:when={number}"
        code = self._end(name, pid, [[*attach, "-y", "-s", "1", "-e", f"trace={call}", "-e", inject, "-o", said]])
        assert code in (0, -9), code
        lines = [line for line in Path(said).read_text().splitlines() if _LINE.match(line)]
        return lines[-1].strip() if code == -9 else ""

    def _begin(self, name: str) -> int:
        assert self.server.stdin is not None and self.server.stdout is not None
        Path(f"{self.pool(name)}.go").unlink(missing_ok=True)
        self.server.stdin.write(f"{self.pool(name)}\n")
        self.server.stdin.flush()
        pid, ready = int(self.server.stdout.readline()), Path(f"{self.pool(name)}.ready")
        while not ready.exists():
            time.sleep(0.002)
        ready.unlink()
        return pid

    def _end(self, name: str, pid: int, tracers: Sequence[list[str]]) -> int:
        """Attaches the tracers, lets the run go, and waits for its end."""
        watching = [subprocess.Popen(["strace", "-q", *words], stderr=subprocess.DEVNULL) for words in tracers]
        for words in tracers:
            for one in {words[at + 1] for at, word in enumerate(words) if word == "-p"}:
                _wait_for_tracer(Path(f"/proc/{pid}/task/{one}/status"))
        Path(f"{self.pool(name)}.go").touch()
        assert self.server.stdout is not None
        code = int(self.server.stdout.readline())
        for tracer in watching:
            tracer.wait(60)
        return code


def _wait_for_tracer(status: Path) -> None:
    """Returns when the thread is traced; one that has ended meanwhile makes no call any more."""
    with suppress(FileNotFoundError, ProcessLookupError):
        while "TracerPid:\t0" in status.read_text():
            time.sleep(0.002)
