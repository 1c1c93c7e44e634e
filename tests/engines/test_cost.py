"""What a worker spends, its children included."""

from __future__ import annotations

import subprocess
import sys

from curate.engines.cost import cpu_seconds

BURN = "import time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\ninput()"


def test_children_are_counted_while_they_live_and_afterwards() -> None:
    before = cpu_seconds()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"done\n"
        alive = cpu_seconds() - before
        child.communicate(b"\n")
    assert alive >= 0.35 and cpu_seconds() - before >= 0.35
