"""A small internet of its own: `unshare --net --mount python -m tests.web.namespace`, as root.

The private addresses of `tests.web.spellings` and two public ones are really bound to the loopback device, one server
answers on all of them and counts who is dialled, and /etc/resolv.conf (in this mount namespace only) names a name server
that sends everybody to private addresses. Prints JSON: what became of each URL and which addresses were dialled.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from curate.fetch import guard
from curate.fetch.settings import FetchSettings
from curate.fetch.stage import FetchStage
from tests.web import client, spellings
from tests.web.answers import ANSWERS
from tests.web.dns import NameServer, Reply, serve_names
from tests.web.kinds import fixed, redirect
from tests.web.server import FaultServer, background_loop, response
from tests.web.spellings import PRIVATE_V4, PRIVATE_V6, PUBLIC, PUBLIC_V6, embeddings

PORTS = (80, 443, 6379, 8080)
REBINDINGS = 500
NAMES = {
    "loopback.test": ("127.0.0.1",), "metadata.test": ("169.254.169.254",), "ten.test": ("10.1.2.3",), "zero.test": ("0.0.0.0",),
    "v6.test": ("fd00:ec2::254",), "mapped.test": ("::ffff:10.1.2.3",), "compatible.test": ("::a01:203",), "local.test": ("fe80::1",),
    "nat64.test": ("64:ff9b::a01:203",), "sixtofour.test": ("2002:a01:203::1",), "public.test": (PUBLIC,), "public6.test": (PUBLIC_V6,),
}  # fmt: skip


def configure() -> None:
    """Binds every address to the loopback device of this namespace, and lets it use our name server."""
    v6 = [*PRIVATE_V6, PUBLIC_V6, *(form for inner in PRIVATE_V4 for form in embeddings(inner).values())]
    lines = ["link set lo up", *(f"addr add {text}/32 dev lo" for text in (*PRIVATE_V4, PUBLIC) if text != "0.0.0.0")]
    lines += [f"addr add {text}/128 dev lo nodad" for text in v6 if text not in ("::", "::1")]
    subprocess.run(["ip", "-force", "-batch", "-"], input="\n".join(lines), text=True, stderr=subprocess.DEVNULL, check=False)
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as resolver:
        resolver.write("nameserver 127.0.0.1\noptions timeout:2 attempts:2\n")
    os.chmod(resolver.name, 0o644)
    subprocess.run(["mount", "--bind", resolver.name, "/etc/resolv.conf"], check=True)
    os.unlink(resolver.name)


def zone(name: str, kind: str, before: int) -> Reply:
    """Known names, names that change their mind with every question, and for all others a private address."""
    if name in NAMES:
        return Reply(NAMES[name], ttl=0)
    if not name.endswith(".rebind.test"):
        return Reply(("10.1.2.3",), ttl=0)
    number = int(name.split(".")[0][1:])
    if name[0] == "m":  # both at once: two of a kind in either order, or one of each
        return Reply(
            ((PUBLIC, "10.1.2.3"), ("169.254.169.254", PUBLIC), ("10.1.2.3", PUBLIC_V6), (PUBLIC, "fd00:ec2::254"))[number % 4], ttl=0
        )
    return Reply((PUBLIC,) if (before + number) % 2 == 0 else ("127.0.0.1",), ttl=0) if kind == "A" else Reply(ttl=0)


def _sent(path: str) -> bytes:
    """/to/<code>?<target>, /chain/<steps>?<target>, /refresh?…, /alternate?…, /created?…"""
    start, _, told = path.partition("?")
    target = unquote(told)
    _, way, *which = start.split("/")
    if way == "chain" and which in (["3"], ["2"]):
        target = f"/chain/{int(which[0]) - 1}?{told}"
    code = {"to": which[0] if which else "", "refresh": "200", "alternate": "300", "created": "201"}.get(way, "302")
    name = "Refresh: 0; url=" if way == "refresh" else "Location: "
    return response(b"<html>", status=f"{code} As you like").replace(b"\r\n\r\n", f"\r\n{name}{target}\r\n\r\n".encode(), 1)


def _again(path: str) -> bytes:
    return response(b"", "Location: /image/2", status="302 Found")


def fetch(urls: list[str], **changes: object) -> dict[str, str | None]:
    """Reason by URL; the guard is as it comes."""
    said = client.settings(allow_addresses=[], attempts=1, total_seconds=60.0, connect_seconds=20.0, floor_seconds=30.0) | changes
    rows = pa.table({"url": pa.array(urls, pa.string()), "skip": pa.nulls(len(urls), pa.string())})
    with FetchStage(FetchSettings.model_validate(said)).open() as compute:
        found = [row for batch in compute(iter(rows.to_batches(max_chunksize=64))) for row in batch.column("reason").to_pylist()]
    return dict(zip(urls, found, strict=True))


class Canary:
    """Which addresses were dialled since the last look, `ADDRESS:PORT` each."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server

    def look(self) -> dict[str, int]:
        """Counts by address; forgets them."""
        found, self._server.accepts = self._server.accepts, Counter()
        return {f"{address}:{port}": count for (address, port), count in found.items()}


@contextmanager
def internet() -> Iterator[tuple[Canary, NameServer]]:
    """The server on all addresses and the name server, until the block ends."""
    sending = {name: fixed(_sent) for name in ("to", "chain", "refresh", "alternate", "created")}
    own_files = {"robots.txt": redirect("http://10.1.2.3/robots.txt"), ".well-known": redirect("http://[fd00:ec2::254]/x")}
    server = FaultServer(ANSWERS | sending | own_files | {"again": fixed(_again)})

    async def listen() -> None:
        for port in PORTS:
            server.listen("0.0.0.0", port)
            server.listen("::", port)

    with background_loop() as loop, serve_names(zone, "127.0.0.1", 53) as names:
        asyncio.run_coroutine_threadsafe(listen(), loop).result()
        yield Canary(server), names


def rebinding_urls() -> list[str]:
    """Names that change their mind between questions, a third with a redirect to themselves; and names that say both at once."""
    changing = [f"http://r{number}.rebind.test/{'again' if number % 3 == 0 else 'image/1'}" for number in range(REBINDINGS // 2)]
    return changing + [f"http://m{number}.rebind.test/image/1" for number in range(REBINDINGS // 2)]


def main() -> None:
    """Runs all of it and prints what came of it."""
    configure()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = "http://10.1.2.3:8080"
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""
    said: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, internet() as (canary, names):
        os.environ["XDG_RUNTIME_DIR"] = folder  # a broker that knows of this internet only
        controls = [f"http://{host}/image/1" for host in (PUBLIC, f"[{PUBLIC_V6}]", "public.test", "public6.test")]
        for title, urls in (
            ("public", controls),
            ("direct", spellings.direct()),
            ("sent", spellings.sent()),
            ("rebinding", rebinding_urls()),
        ):
            said[title] = {"reasons": fetch(urls), "dialled": canary.look()}
        own_files = fetch([*controls, *spellings.direct()], robots=True, tdm_file=True)
        said["own_files"] = {"reasons": own_files, "dialled": canary.look()}
        said["questions"] = len([q for q in names.log if q.name.endswith(".rebind.test")])
        guard.Guard._allows = lambda self, text: True  # type: ignore[method-assign]
        for title, urls in (("open_direct", spellings.direct()), ("open_sent", spellings.sent()), ("open_rebinding", rebinding_urls())):
            said[title] = {"reasons": fetch(urls, connect_seconds=1.0), "dialled": canary.look()}
    print(json.dumps(said))


if __name__ == "__main__":
    sys.exit(main())
