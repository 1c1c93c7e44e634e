"""What all tests share: one thread per native library, a broker of requests of their own, and a command line that answers
with exit code and output."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# What hosts said yesterday on ports that another server has today must not count.
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="curate-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)


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
