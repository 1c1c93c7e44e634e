"""Our fetch and img2dataset in turn on a simulated web: who gets more pictures, and who is sooner done.

    python -m tests.bench.web [--rows 4000] [--hosts 2000] [--rounds 3]

Needs root: it makes a network and a mount namespace of its own, in which both ask the same name server on port 53 and
reach the same web (`tests/web/simulated.py`) at addresses that look public, so the guard runs unmodified. Both get the
same list, two processes and 256 px; each its documented settings otherwise. Times are from the start of a command to its
end, start-up included. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.web.simulated import ADDRESSES, World

PROCESSES = 2
INSIDE = "CURATE_BENCH_INSIDE"
PEER_SETTINGS = {
    "processes_count": PROCESSES, "thread_count": 256, "timeout": 10, "retries": 2, "image_size": 256, "resize_mode": "keep_ratio",
    "output_format": "webdataset", "compute_hash": "sha256", "enable_wandb": False, "input_format": "csv", "url_col": "url",
    "caption_col": "caption", "max_shard_retry": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One run. `seconds_to` are times until 95, 99 and 100 % of the pictures it got had left the server."""

    tool: str
    seconds: float
    pictures: int
    seconds_to: tuple[float, float, float]
    requests: int
    dns_questions: int
    dns_dropped: int

    def line(self, rows: int, fetchable: int) -> str:
        """For the reader."""
        marks = " / ".join(f"{seconds:.1f}" for seconds in self.seconds_to)
        return (
            f"{self.tool:<12} {self.seconds:6.1f} s  {rows / self.seconds:6.1f} rows/s  {self.pictures} of {fetchable} pictures "
            f"({100 * self.pictures / fetchable:.2f} %)  95/99/100 % after {marks} s  {self.requests} requests, "
            f"{self.dns_questions} questions to the resolver, {self.dns_dropped} dropped by it"
        )


def ours(listed: Path, folder: Path, rows: int) -> int:
    """`curate run ingest`, plan and fetch; returns pictures."""
    from curate.store import Pool

    said = (
        f"input.path={listed}", f"plan.rows_per_part={-(-rows // PROCESSES)}", f"engine.workers={PROCESSES}",
    )  # fmt: skip
    for step in ("plan", "fetch"):
        command = [sys.executable, "-m", "curate", "run", "ingest", "--pool", str(folder / "pool"), "--only", step, *said]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"curate ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(Pool.open(folder / "pool").snapshot("fetched").read(["reason"]).column("reason").null_count)


def peer(listed: Path, folder: Path, rows: int) -> int:
    """img2dataset; returns pictures."""
    import pyarrow.parquet as pq

    said = PEER_SETTINGS | {"number_sample_per_shard": -(-rows // PROCESSES)}
    arguments = [f"--{key}={value}" for key, value in said.items()]
    code = "from img2dataset import main; main()"
    command = [sys.executable, "-c", code, f"--url_list={listed}", f"--output_folder={folder / 'out'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"img2dataset ended with {done.returncode}: {done.stderr[-2000:]}")
    statuses = [pq.read_table(path, columns=["status"]).column("status").to_pylist() for path in (folder / "out").glob("*.parquet")]
    return sum(status == "success" for found in statuses for status in found)


def control(word: str) -> dict[str, object]:
    """Asks the simulated web about itself."""
    with urllib.request.urlopen(f"http://20.0.0.1/-/{word}", timeout=30) as answer:
        return dict(json.load(answer))


def measure(tool: str, listed: Path, rows: int) -> Result:
    """Runs one tool in a fresh folder on a web that has not seen it yet."""
    with tempfile.TemporaryDirectory() as folder:
        control("new")
        begun = time.monotonic()
        pictures = {"curate": ours, "img2dataset": peer}[tool](listed, Path(folder), rows)
        seconds = time.monotonic() - begun
        seen = control("read")
    served = list(map(float, seen["served"]))  # type: ignore[call-overload]
    marks = [served[min(len(served), -(-pictures * share // 100)) - 1] if served else 0.0 for share in (95, 99, 100)]
    counts = [int(str(seen[name])) for name in ("requests", "questions", "dropped")]
    return Result(tool, seconds, pictures, (marks[0], marks[1], marks[2]), *counts)


def write_list(world: World, path: Path) -> None:
    with path.open("w", newline="") as stream:
        rows = [(world.url(row), f"picture number {row} of a simulated web") for row in range(world.rows)]
        csv.writer(stream).writerows([("url", "caption"), *rows])


def summary(world: World, results: list[Result], fetchable: int) -> dict[str, object]:
    """The last line."""
    by_tool = {tool: [result for result in results if result.tool == tool] for tool in ("curate", "img2dataset")}
    rates = {tool: statistics.median(world.rows / result.seconds for result in found) for tool, found in by_tool.items()}
    shares = {tool: min(result.pictures for result in found) / fetchable for tool, found in by_tool.items()}
    return {
        "name": "web",
        "ratio": round(rates["curate"] / rates["img2dataset"], 3),
        "ours": round(rates["curate"], 2),
        "peer": round(rates["img2dataset"], 2),
        "unit": "rows/s",
        "rounds": len(by_tool["curate"]),
        "rows": world.rows,
        "hosts": world.hosts,
        "fetchable": fetchable,
        "success_ours": round(shares["curate"], 5),
        "success_peer": round(shares["img2dataset"], 5),
        "runs": [asdict(result) for result in results],
    }


def run(world: World, rounds: int) -> None:
    """Inside the namespaces."""
    resolv, server = (
        Path(tempfile.mkdtemp()) / "resolv.conf",
        [sys.executable, "-m", "tests.web.simulated", str(world.rows), str(world.hosts)],
    )
    resolv.write_text("nameserver 127.0.0.1\n")
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "route", "add", "local", ADDRESSES, "dev", "lo"],
        ["mount", "--bind", str(resolv), os.path.realpath("/etc/resolv.conf")],
    ):
        subprocess.run(command, check=True)
    listed = resolv.with_name("list.csv")
    write_list(world, listed)
    fetchable = sum(world.fetchable(row) for row in range(world.rows))
    web = subprocess.Popen(server, stdout=subprocess.PIPE)
    try:
        assert web.stdout is not None and web.stdout.readline() == b"ready\n"
        print(f"{world.rows} rows on {world.hosts} hosts, {fetchable} fetchable; img2dataset with {PEER_SETTINGS}", flush=True)
        results = []
        for number in range(rounds):
            for tool in ("curate", "img2dataset") if number % 2 == 0 else ("img2dataset", "curate"):
                results.append(measure(tool, listed, world.rows))
                print(results[-1].line(world.rows, fetchable), flush=True)
    finally:
        web.kill()
        web.wait()
        shutil.rmtree(resolv.parent, ignore_errors=True)
    print(json.dumps(summary(world, results, fetchable)))


def main() -> None:
    """Goes into namespaces of its own, then runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("rows", 4000), ("hosts", 2000), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    said = parser.parse_args()
    if INSIDE not in os.environ:
        if os.geteuid() != 0 or not shutil.which("unshare"):
            raise SystemExit("this benchmark makes a network of its own: it needs root and unshare (util-linux)")
        os.environ.update({INSIDE: "1", "NO_ALBUMENTATIONS_UPDATE": "1"})
        os.execvp("unshare", ["unshare", "-n", "-m", sys.executable, "-m", "tests.bench.web", *sys.argv[1:]])
    run(World(said.rows, said.hosts), said.rounds)


if __name__ == "__main__":
    main()
