"""A fetch over a link that goes down in its middle: `unshare -n python -m tests.fetch.network_outage SECONDS`.

This process has one end of a link, and a default route over it; a server in a network of its own has the other end and
the addresses of 60 hosts. SECONDS long the route is gone: every connect ends in ENETUNREACH. Prints the rows as JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from tests.fetch.conftest import FaultServer, fetch, quick

HOSTS = [f"20.0.1.{number}" for number in range(1, 61)]
PORT = 8000


def once_under_way(action: Callable[[], None]) -> threading.Thread:
    """Does it, in a thread, when this process has 40 descriptors more than now: a stage takes some, the rest are requests."""
    wanted = _descriptors() + 40

    def watch() -> None:
        while _descriptors() < wanted:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _descriptors() -> float:
    """How many are open; to look takes one too, so without end when none is left."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return math.inf


def ip(text: str) -> None:
    subprocess.run(["ip", *text.split()], check=True)


async def serve() -> None:
    """The far end: waits for its link, takes the addresses, answers until it is killed."""
    while subprocess.run(["ip", "link", "show", "v1"], capture_output=True).returncode:
        await asyncio.sleep(0.02)
    for line in ("link set lo up", "addr add 20.0.0.2/24 dev v1", "link set v1 up", "route add local 20.0.1.0/24 dev lo"):
        ip(line)
    server = await asyncio.start_server(FaultServer().serve, "0.0.0.0", PORT)
    print("ready", flush=True)
    await server.serve_forever()


def main(down_seconds: float) -> None:
    """The near end."""
    far = subprocess.Popen(["unshare", "-n", sys.executable, "-m", __spec__.name], stdout=subprocess.PIPE)
    try:
        time.sleep(0.3)  # its network is its own from the first moment after exec
        for line in (
            "link set lo up",
            f"link add v0 type veth peer name v1 netns {far.pid}",
            "addr add 20.0.0.1/24 dev v0",
            "link set v0 up",
            "route add default via 20.0.0.2",
        ):
            ip(line)
        assert far.stdout is not None and far.stdout.readline() == b"ready\n"

        def go_down() -> None:
            ip("route del default")
            time.sleep(down_seconds)
            ip("route add default via 20.0.0.2")

        link = once_under_way(go_down)
        urls = [f"http://{host}:{PORT}/slow/{number}" for number in range(10) for host in HOSTS]
        rows = fetch(urls, quick(allow_addresses=(), in_flight=32, total_seconds=5.0, attempts=1))
        print(json.dumps([{"reason": row["reason"], "attempts": row["attempts"]} for row in rows]))
        link.join()
    finally:
        far.kill()
        far.wait()


if __name__ == "__main__":
    main(float(sys.argv[1])) if len(sys.argv) > 1 else asyncio.run(serve())
