"""curate's fetch and img2dataset in turn, on the same URLs of the same nginx: `python -m tests.bench.fetch`.

Steady state is the rate between the 20th and the 80th percent of the images that the server sent, by the server's own
log; from start to end is the wall time of the whole command. Both tools run two processes, resize to 256 pixels
(keep_ratio, only shrinking), encode JPEG at quality 95, compute sha256 and keep EXIF. curate also checks addresses,
asks robots.txt and TDM files of every host, keeps every host's budget, and decodes in isolated processes.
The codec loop is `prepare` over the same bytes in two processes that do nothing else.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.fetch.codec import prepare_process
from curate.media.image import ImageSettings, prepare
from tests.bench import photos
from tests.bench.nginx import Nginx, serve

HOSTS, PROCESSES, THREADS = 1000, 2, 32


def write_list(path: Path, server: Nginx, files: Sequence[str], urls: int) -> None:
    """A parquet list of `urls` addresses with captions."""
    addresses = [server.url(number, files[number % len(files)], HOSTS) for number in range(urls)]
    captions = [f"picture number {number}" for number in range(urls)]
    pq.write_table(pa.table({"url": addresses, "caption": captions}), path)


def run_ours(urls: Path, output: Path, more: Sequence[str] = ()) -> None:
    """curate's command."""
    fetch = ["fetch.allow_addresses=[127.0.0.0/8]", "fetch.contact=bench@example.org"]
    command = [sys.executable, "-m", "curate", "run", "fetch", "--pool", str(output), f"input.path={urls}"]
    _run([*command, f"engine.workers={PROCESSES}", *fetch, *more])


def run_peer(urls: Path, output: Path) -> None:
    """img2dataset's command."""
    said = {
        "url_list": urls, "output_folder": output, "input_format": "parquet", "url_col": "url", "caption_col": "caption",
        "output_format": "webdataset", "image_size": 256, "resize_mode": "keep_ratio", "resize_only_if_bigger": True,
        "processes_count": PROCESSES, "thread_count": THREADS, "compute_hash": "sha256", "enable_wandb": False,
        "number_sample_per_shard": 2000,
    }  # fmt: skip
    program = Path(sys.executable).parent / "img2dataset"
    _run([str(program), *(f"--{name}={value}" for name, value in said.items())])


def _run(command: Sequence[str]) -> None:
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # it slows every start down
    quiet["NO_ALBUMENTATIONS_UPDATE"] = "1"
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}")


def steady(moments: Sequence[float]) -> float:
    """Images per second between the 20th and the 80th percent."""
    first, last = len(moments) // 5, len(moments) * 4 // 5
    return (last - first) / (moments[last] - moments[first])


def measured(tool: str, urls: Path, server: Nginx, more: Sequence[str] = ()) -> tuple[float, float, int]:
    """Runs a tool into a fresh folder: (images/s in steady state, seconds from start to end, images served)."""
    server.clear()
    output = Path(tempfile.mkdtemp(prefix=f"curate-bench-{tool}-"))
    output.rmdir()
    begun = time.monotonic()
    run_ours(urls, output, more) if tool == "ours" else run_peer(urls, output)
    seconds = time.monotonic() - begun
    moments = server.finished()
    shutil.rmtree(output)
    return steady(moments), seconds, len(moments)


def codec_rate(folder: Path, seconds: float = 10.0) -> float:
    """Images per second of the bare codec loop, two processes together."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        return sum(pool.starmap(_loop, [(str(folder), seconds)] * PROCESSES))


def _loop(folder: str, seconds: float) -> float:
    prepare_process()
    bodies = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    settings, done, begun = ImageSettings(), 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        for body in bodies:
            prepare(body, settings)
        done += len(bodies)
    return done / (time.monotonic() - begun)


def main() -> None:
    """Prints a line a run, and one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=20_000)
    parser.add_argument("--short-urls", type=int, default=4_000, help="of the runs from start to end")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = photos.folder()
    files = [path.name for path in sorted(folder.iterdir())]
    rates: dict[str, list[float]] = {"ours": [], "peer": [], "codec": []}
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    with serve(folder) as server, tempfile.TemporaryDirectory() as home:
        for size in (options.urls, options.short_urls):
            write_list(Path(home) / f"{size}.parquet", server, files, size)
        for number in range(options.rounds):
            rates["codec"].append(codec_rate(folder))
            for tool in ("ours", "peer") if number % 2 == 0 else ("peer", "ours"):
                rate, _, served = measured(tool, Path(home) / f"{options.urls}.parquet", server)
                rates[tool].append(rate)
                _, whole, _ = measured(tool, Path(home) / f"{options.short_urls}.parquet", server)
                seconds[tool].append(whole)
                print(f"round {number + 1} {tool}: {rate:.0f} images/s steady ({served} served), {whole:.1f} s for {options.short_urls}")
            print(f"round {number + 1} codec loop: {rates['codec'][-1]:.0f} images/s", flush=True)
    print(json.dumps(summary(rates, seconds, options.short_urls)))


def summary(rates: dict[str, list[float]], seconds: dict[str, list[float]], short: int) -> dict[str, object]:
    """Medians, and ratios round by round."""
    ratios = [ours / peer for ours, peer in zip(rates["ours"], rates["peer"], strict=True)]
    whole = [peer / ours for ours, peer in zip(seconds["ours"], seconds["peer"], strict=True)]
    shares = [ours / codec for ours, codec in zip(rates["ours"], rates["codec"], strict=True)]
    middle = statistics.median
    return {
        "name": "fetch",
        "ratio": round(middle(ratios), 3),
        "ours": round(middle(rates["ours"]), 1),
        "peer": round(middle(rates["peer"]), 1),
        "unit": "images/s in steady state",
        "rounds": len(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "codec_share": round(middle(shares), 3),
        "codec_images_per_second": round(middle(rates["codec"]), 1),
        "start_to_end_ratio": round(middle(whole), 3),
        "start_to_end_seconds": {tool: round(middle(found), 1) for tool, found in seconds.items()},
        "start_to_end_urls": short,
    }


if __name__ == "__main__":
    main()
