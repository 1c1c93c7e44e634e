"""What safety costs: `python -m tests.bench.guards`.

Three runs of the same command in turn over nginx's photos, each judged by the server's own log in steady state. *on*: all
defaults. *off*: no robots.txt, no tdmrep.json, no opt-outs, every address allowed, no gap between requests to a site, no floor
for the rate of bodies; decoding stays in its child. *hostile*: defaults, and beside the same clean rows one in ten rows of
every kind of fault that `tests.web.kinds` knows. `ratio` is on over off.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench import photos
from tests.bench.fetch import HOSTS, measured, write_list
from tests.bench.nginx import serve
from tests.web.answers import ANSWERS
from tests.web.kinds import KINDS, status, url
from tests.web.server import FaultServer, background_loop, running

OFF = (
    "fetch.robots=false", "fetch.tdm_file=false", "fetch.opt_out=false", "fetch.allow_addresses=[0.0.0.0/0]",
    "fetch.host_interval_seconds=0", "fetch.host_in_flight=64", "fetch.min_bytes_per_second=0",
)  # fmt: skip
OWN_FILES = dict.fromkeys(("robots.txt", ".well-known"), status("404 Not Found"))
HOSTILE = ("fetch.total_seconds=15",)


def mixed(path: Path, clean: Path, faults: FaultServer) -> None:
    """The clean list with one hostile row in ten."""
    rows = pq.read_table(clean).to_pylist()
    kinds = list(KINDS)
    hostile = [{"url": url(faults, kinds[number % len(kinds)], seed=number), "caption": "trouble"} for number in range(len(rows) // 9)]
    pq.write_table(pa.Table.from_pylist([*rows, *hostile]), path)


def main() -> None:
    """Prints a line a run, and one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = photos.folder()
    files = [path.name for path in sorted(folder.iterdir())]
    rates: dict[str, list[float]] = {"on": [], "off": [], "hostile": []}
    with (
        serve(folder) as server,
        background_loop() as loop,
        running(FaultServer(ANSWERS | OWN_FILES), loop) as faults,
        tempfile.TemporaryDirectory() as home,
    ):
        clean, hostile = Path(home) / "clean.parquet", Path(home) / "hostile.parquet"
        write_list(clean, server, files, options.urls)
        mixed(hostile, clean, faults)
        for number in range(options.rounds):
            for kind, listed, more in (("on", clean, ()), ("off", clean, OFF), ("hostile", hostile, HOSTILE)):
                rate, seconds, served = measured("ours", listed, server, more)
                rates[kind].append(rate)
                print(f"round {number + 1} {kind}: {rate:.0f} clean images/s steady ({served} served, {seconds:.0f} s)", flush=True)
    middle = {kind: statistics.median(found) for kind, found in rates.items()}
    pairs = (("on", "off"), ("hostile", "on"))
    shares = {kind: [one / other for one, other in zip(rates[kind], rates[against], strict=True)] for kind, against in pairs}
    print(
        json.dumps(
            {
                "name": "guards",
                "ratio": round(statistics.median(shares["on"]), 3),
                "ours": round(middle["on"], 1),
                "peer": round(middle["off"], 1),
                "unit": f"clean images/s in steady state, {HOSTS} hosts",
                "rounds": options.rounds,
                "hostile": round(middle["hostile"], 1),
                "hostile_share": round(statistics.median(shares["hostile"]), 3),
                "ratios": {kind: [round(share, 3) for share in found] for kind, found in shares.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
