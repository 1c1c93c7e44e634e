"""What all tests share: one thread per native library, a broker of requests of their own, and a command line that answers
with exit code and output. And which of them stay together when two processes share the work, as in `make test`."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from xdist.scheduler import LoadScopeScheduling

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# What hosts said yesterday on ports that another server has today must not count.
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="curate-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)

TOGETHER = {
    "tests/engines/": "engines",
    "tests/e2e/test_demo.py": "demo",
    "tests/e2e/test_demo_words.py": "demo",
    "tests/e2e/test_report.py": "demo",
    "tests/removal/": "removal",
}
"""Tests that share a session fixture which is dear to set up; every other file stands for itself."""
FIRST = ("engines", "demo", "tests/e2e/test_kills.py", "removal", "tests/e2e/", "tests/train/", "tests/fetch/", "tests/web/")
"""What takes longest begins, so that no process is left with it at the end."""


def pytest_configure() -> None:
    """A shell that starts tests in the background has them ignore Ctrl-C, and so would every command that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest groups first."""
    items.sort(key=lambda item: next((at for at, name in enumerate(FIRST) if _group(item.nodeid).startswith(name)), len(FIRST)))


class _ByGroup(LoadScopeScheduling):
    """Gives each process whole groups (xdist's own `loadgroup` finds no group with pytest 9)."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Of `-n`; see `_ByGroup`."""
    return _ByGroup(config, log)


def _group(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return next((group for prefix, group in TOGETHER.items() if path.startswith(prefix)), path)


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def curate(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `curate ARGUMENTS` in this process."""
    from curate.cli.app import execute

    def run(*arguments: object) -> Said:
        capfd.readouterr()
        code = execute([str(argument) for argument in arguments])
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return run
