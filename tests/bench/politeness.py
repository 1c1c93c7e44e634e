"""What politeness and consent cost per request: `python -m tests.bench.politeness [REQUESTS]`.

CPU microseconds of client and broker for one request (asked, granted, begun, over), with 1, 16 and 256 under way in turn, at
as many sites as requests; and for judging a URL whose host's robots.txt is known. Prints one JSON object as last line.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from curate.fetch import broker
from curate.fetch.buffer import Room
from curate.fetch.link import open_link, runtime_folder
from curate.fetch.notes import Notes
from curate.fetch.origins import Origins, Page
from curate.fetch.politeness import Budget, Politeness
from curate.fetch.settings import FetchSettings

ROBOTS = b"User-agent: *\n" + b"".join(b"Disallow: /private%d/*.jpg$\nDisallow: /x%d/\n" % (n, n) for n in range(10))


async def slots(requests: int, under_way: int) -> dict[str, float]:
    """One measurement."""
    link = await open_link()
    politeness = Politeness(link, Budget(2, 0.5), Room(under_way))
    numbers = iter(range(requests))
    process = psutil.Process(int((runtime_folder() / broker.LOCK).read_text()))

    async def ask(numbers: Iterator[int]) -> None:
        for number in numbers:
            async with politeness.slot(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}") as slot:
                slot.sent()
                await asyncio.sleep(0)
                slot.began()

    theirs, ours, wall = sum(process.cpu_times()[:2]), time.process_time(), time.perf_counter()
    await asyncio.gather(*(ask(numbers) for _ in range(under_way)))
    ours, wall, theirs = time.process_time() - ours, time.perf_counter() - wall, sum(process.cpu_times()[:2]) - theirs
    await link.close()
    each = {"client_us": ours, "broker_us": theirs, "together_us": ours + theirs}
    return {name: round(seconds / requests * 1e6, 1) for name, seconds in each.items()} | {"requests_per_second": round(requests / wall)}


async def verdicts(urls: int) -> float:
    """CPU microseconds to judge a URL by a robots.txt of twenty rules and a tdmrep.json that is not there."""
    link = await open_link()

    async def read(url: str) -> Page:
        return Page(200, ROBOTS) if url.endswith("robots.txt") else Page(404)

    origins = Origins(link, read, FetchSettings(), Notes())
    for host in range(100):
        await origins.judge(f"https://host{host}.example/")
    began = time.process_time()
    for number in range(urls):
        await origins.judge(f"https://host{number % 100}.example/images/{number}/picture.jpg")
    await link.close()
    return round((time.process_time() - began) / urls * 1e6, 1)


async def opening() -> float:
    """Seconds until a worker that finds no broker has one."""
    began = time.perf_counter()
    await (await open_link()).close()
    return round(time.perf_counter() - began, 3)


def main(requests: int) -> None:
    """Measures with a broker of its own."""
    folder = Path(tempfile.mkdtemp(prefix="curate-bench-"))
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    found: dict[str, object] = {"requests": requests, "opening_seconds": asyncio.run(opening())}
    for under_way in (1, 16, 256):
        found[f"under_way_{under_way}"] = asyncio.run(slots(requests if under_way > 1 else requests // 4, under_way))
    found["judged_us"] = asyncio.run(verdicts(requests))
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
