"""What a worker spends, its children included."""

from __future__ import annotations

import subprocess
import sys

BURN = "import time\nwhile time.process_time() < 0.4: pass\nprint('done', flush=True)\ninput()"


PARENT = """
import subprocess, sys
from curate.engines.cost import cpu_seconds
before = cpu_seconds()
with subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    assert child.stdout.readline() == b"done\\n"
    alive = cpu_seconds() - before
    child.communicate(b"\\n")
print(alive, cpu_seconds() - before)
"""


def test_children_are_counted_while_they_live_and_afterwards() -> None:
    """In a process of its own: those of other tests come and go meanwhile."""
    told = subprocess.run([sys.executable, "-c", PARENT, BURN], capture_output=True, text=True, check=True).stdout
    alive, afterwards = map(float, told.split())
    assert alive >= 0.35 and afterwards >= 0.35
