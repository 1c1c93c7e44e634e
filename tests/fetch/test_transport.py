"""The transport itself: what is given up leaves nothing behind, a bug fails its own request, odd addresses have a reason."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest

from curate.errors import REASONS
from curate.fetch.buffer import ByteBudget
from curate.fetch.guard import Guard
from curate.fetch.transfer import Head, Transfer, TransportSettings
from curate.fetch.transport import Transport
from tests.fetch.conftest import FaultServer, fetch, quick
from tests.web.dns import NO_SUCH_NAME, Reply, serve_names

SETTINGS = TransportSettings("curate", "*/*", 2.0, 1000.0, 5.0, 32 << 10, None, 8)


def with_transport(work: Callable[[Transport, ByteBudget], Awaitable[Any]], guard: Any = None) -> Any:
    """What `work` returns; the transport is closed afterwards."""

    async def run() -> Any:
        budget = ByteBudget(8 << 20, 1 << 20)
        transport = Transport(SETTINGS, guard or Guard(["127.0.0.0/8"]).open_socket, budget)
        try:
            async with asyncio.timeout(30):
                return await work(transport, budget)
        finally:
            transport.close()

    return asyncio.run(run())


def transfer(url: str, judge: Callable[[Head], int | None] = lambda head: 1 << 20) -> Transfer:
    return Transfer(url, [], 20.0, judge, lambda what: None)


@pytest.mark.parametrize("path", ["/stall", "/endless", "/drip", "/image/1"])
def test_what_is_given_up_leaves_nothing_behind(server: FaultServer, path: str) -> None:
    async def work(transport: Transport, budget: ByteBudget) -> None:
        for seconds in (0.0, 0.05, 0.2):
            asked = [asyncio.ensure_future(transport.get(transfer(server.url(path)))) for _ in range(20)]
            await asyncio.sleep(seconds)
            for task in asked:
                task.cancel()
            for done in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(done, Transfer):
                    transport.release(done)
        assert not transport._active
        assert budget.used_bytes == 0
        good = await transport.get(transfer(server.url("/image/1")))
        assert good.body and good.reason is None
        ours = [end for end in psutil.Process().net_connections("tcp4") if end.raddr and end.raddr.port == server.port]
        assert len(ours) <= SETTINGS.kept_connections

    with_transport(work)


def test_what_is_done_is_forgotten_at_once(server: FaultServer) -> None:
    """Not when the garbage collector comes by, nor when the handle is used again: bodies are large."""

    async def work(transport: Transport, budget: ByteBudget) -> None:
        done = await asyncio.gather(*(transport.get(transfer(server.url("/image/1"))) for _ in range(20)))
        assert all(one.body for one in done)
        seen = [weakref.ref(one) for one in done]
        for one in done:
            transport.release(one)
        del done, one
        await asyncio.sleep(0.01)
        assert [ref() for ref in seen] == [None] * 20

    gc.disable()
    try:
        with_transport(work)
    finally:
        gc.enable()


def test_a_bug_is_told_to_whom_it_concerns(server: FaultServer) -> None:
    def broken(*args: object) -> Any:
        raise ZeroDivisionError

    async def work(transport: Transport, budget: ByteBudget) -> None:
        url = server.url("/image/1")
        asked = [transfer(url, broken), Transfer(url, [], 20.0, lambda head: 1 << 20, broken), transfer(url)]
        judged, announced, good = await asyncio.gather(*map(transport.get, asked), return_exceptions=True)
        assert isinstance(judged, ZeroDivisionError) and isinstance(announced, ZeroDivisionError)
        assert isinstance(good, Transfer) and good.body

    with_transport(work)

    async def dial(transport: Transport, budget: ByteBudget) -> None:
        with pytest.raises(ZeroDivisionError):
            await transport.get(transfer(server.url("/image/1")))

    with_transport(dial, broken)


ODD_HOSTS = (
    "%31%32%37.0.0.1", "127.0.0.1%00.example", "１２７.0.0.1", "127。0。0。1", "*", "*.example", "-a.example", "a..example", ".", "..",
    "a_b.invalid", "[::1", "[::ffff:127.0.0.1%25lo]", "[v1.a]", "a" * 64 + ".invalid", "a." * 150 + "invalid", "xn--", "xn--a.invalid",
    "xn--\xfc.invalid", "\xfc\xdf.invalid", "\u200d.invalid", "\U0001f600.invalid", "a,b", "a|b", "a%2fb", "a;b", "a'b", "a{b}", "0x7f.1",
    "1.2.3.4.5", "4294967296", "256.256.256.256", "localhost.", "a\u3002invalid", "\u0130.invalid", "\ufdfa.invalid",
)  # fmt: skip
ODD_REST = ("", ":0", ":99999", ":-1", ":a", ":٣", "/%zz", "/\xff\U0001f600", "?#", "/..//../x", '/[]{}|^`"<>', "?" + "%00" * 9, ":80:80/")
"""Ends of addresses: ports, paths, queries."""


def test_odd_addresses_in_lists_and_redirects_have_a_reason_and_fail_nothing_else(server: FaultServer) -> None:
    odd = [f"{scheme}://{host}{rest}" for scheme in ("http", "https") for host in ODD_HOSTS for rest in ODD_REST]
    odd += [f"http://127.0.0.1:{server.port}{rest}" for rest in ODD_REST if not rest.startswith(":")]
    settings = quick(
        attempts=1,
        total_seconds=2.0,
        allow_addresses=("127.0.0.1/32",),
        patience_seconds=-1.0,
    )
    urls = [server.url("/image/1"), *odd, server.url("/image/2")]
    with serve_names(lambda name, kind, before: Reply(code=NO_SUCH_NAME)) as names:  # a dead one would make the fetch wait
        rows = fetch(urls, settings.model_copy(update={"resolvers": (names.address,)}), batch=64)
    assert rows[0]["reason"] is rows[-1]["reason"] is None
    assert {row["reason"] for row in rows[1:-1]} <= REASONS.keys() - {"local_fault"}
