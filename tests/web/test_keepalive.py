"""Connections that are used again: what a server did with one of them is not taken for the next URL's fault or answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from tests.fetch.conftest import fetch, quick
from tests.web.bodies import picture
from tests.web.server import FaultServer, Serving, image_answer

HOST = "127.5.0.1"


def kept(seed: int) -> bytes:
    """The good answer, without a word about closing."""
    return image_answer(seed).replace(b"Connection: close\r\n", b"")


async def _asked(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split(" ")[1]


async def well_behaved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while path := await _asked(reader):
            writer.write(kept(int(path[1:])))


def closes_after(seconds: float) -> Serving:
    """One answer per connection; says nothing about it and closes a little later."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(kept(int((await _asked(reader))[1:])))
            await writer.drain()
            await asyncio.sleep(seconds)

    return serve


def forges(seconds: float) -> Serving:
    """With each answer, or a little later while the connection is idle, comes another that nobody asked for."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while path := await _asked(reader):
                forged = kept(666)
                writer.write(kept(int(path[1:])) + (b"" if seconds else forged))
                if seconds:
                    await asyncio.sleep(seconds)
                    writer.write(forged)

    return serve


def run(
    server: FaultServer, loop: asyncio.AbstractEventLoop, serve: Serving, count: int, **changes: object
) -> tuple[list[str | None], int]:
    """(digest or reason of each of `count` URLs, connections that were made)."""

    async def listen() -> int:
        return server.listen(HOST, serve=serve)

    port = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    rows = fetch([f"http://{HOST}:{port}/{seed}" for seed in range(count)], quick(attempts=1, total_seconds=60.0, **changes), batch=1)
    assert {row["attempts"] for row in rows} == {1}
    return [row["reason"] or row["sha256"] for row in rows], server.accepts[HOST, port]


def digests(count: int) -> list[str]:
    return [hashlib.sha256(picture(seed)).hexdigest() for seed in range(count)]


def test_connections_are_used_again(server: FaultServer, loop: asyncio.AbstractEventLoop) -> None:
    found, connections = run(server, loop, well_behaved, 40, in_flight=2)
    assert found == digests(40)
    assert connections <= 2


@pytest.mark.parametrize("seconds", [0.0, 0.002])
@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_connection_that_died_while_idle_costs_no_attempt(
    server: FaultServer, loop: asyncio.AbstractEventLoop, seconds: float, in_flight: int
) -> None:
    found, connections = run(server, loop, closes_after(seconds), 60, in_flight=in_flight)
    assert found == digests(60)
    assert connections == 60


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_an_answer_that_nobody_asked_for_is_nobodys_image(server: FaultServer, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    found, connections = run(server, loop, forges(seconds), 4, in_flight=1, host_interval_seconds=0.3)
    assert found == digests(4)
    assert connections == 4
