"""The fetch stage alone in a process: `python -m tests.web.client ANSWERS < JSON`, so that memory and time are its own.

Reads [{"settings": {…}, "rounds": [[url, …], …]}, …]. Each group is a stage of its own, which fetches the URLs of one
round at once and then those of the next. Writes to ANSWERS, for each round, its rows (without image bytes), its seconds, and how many
bytes of memory it took above what was held before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage

Group = dict[str, Any]
Round = dict[str, Any]

FLOOR_SECONDS = 1.0
DEADLINE_SECONDS = 3.0
MAX_BYTES = 8 << 20


def settings(**changes: object) -> dict[str, object]:
    """Those for which `tests.web.kinds` tells reasons: loopback allowed, deadlines short, no pauses."""
    base: dict[str, object] = {
        "allow_addresses": ["127.0.0.0/8"], "host_interval_seconds": 0.0, "host_in_flight": 512, "in_flight": 512,
        "backoff_seconds": 0.01, "backoff_cap_seconds": 0.05, "total_seconds": DEADLINE_SECONDS, "connect_seconds": 0.4,
        "max_bytes": MAX_BYTES, "min_bytes_per_second": 4000, "floor_seconds": FLOOR_SECONDS,
    }  # fmt: skip
    unasked = {name: False for name in ("robots", "tdm_file") if name in FetchSettings.model_fields}  # one fault at a time
    return base | unasked | changes


def ask(groups: list[Group], environment: dict[str, str] | None = None) -> list[list[Round]]:
    """Runs this module; one answer per group. They come in a file: out of a pipe they came cut off once, at 128 KiB."""
    with tempfile.NamedTemporaryFile() as answers:
        command = [sys.executable, "-m", "tests.web.client", answers.name]
        done = subprocess.run(command, input=json.dumps(groups), capture_output=True, text=True, env=environment, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return list(json.load(answers))


def _family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _forget_peaks() -> int:
    """Sets the high-water marks of this process and its children back to what they hold now; returns that in bytes."""
    for process in _family():
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    lines = (line for process in _family() for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """See above."""
    Path(sys.argv[1]).write_text(json.dumps([_answer(group) for group in json.load(sys.stdin)], default=str))


def _answer(group: Group) -> list[Round]:
    answers = []
    with FetchStage(FetchSettings.model_validate(group["settings"])).open() as compute:
        for urls in group["rounds"]:
            rows = pa.table({"url": pa.array(urls, pa.string()), "skip": pa.nulls(len(urls), pa.string())})
            held_bytes, started = _forget_peaks(), time.monotonic()
            batches = list(compute(iter(rows.to_batches(max_chunksize=64))))
            seconds = time.monotonic() - started
            rows = [record for batch in batches for record in batch.drop_columns(["image"]).to_pylist()]
            answers.append({"rows": rows, "seconds": seconds, "rise_bytes": _peak_bytes() - held_bytes})
    return answers


if __name__ == "__main__":
    main()
