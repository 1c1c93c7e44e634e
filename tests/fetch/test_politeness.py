"""Sites are asked within their budget, and a slow one does not hold up the rest."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Coroutine

import pytest

from curate.fetch.buffer import UNTOLD_BYTES, ByteBudget, Lease
from curate.fetch.politeness import Politeness, site
from tests.fetch.conftest import FaultServer, fetch, quick


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("a.b.example.com", "example.com"),
        ("EXAMPLE.com.", "example.com"),
        ("x.example.co.uk", "example.co.uk"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::0001", "::1"),
        ("user.github.io", "user.github.io"),
        ("localhost", "localhost"),
        ("com", "com"),
        ("", ""),
    ],
)
def test_hosts_belong_to_their_registrable_domain(host: str, wanted: str) -> None:
    assert site(host) == wanted


def run(work: Coroutine[object, object, object]) -> None:
    asyncio.run(work)


def starts(politeness: Politeness, hosts: list[str], hold_seconds: float = 0.0) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {host: [] for host in hosts}
    open_now: dict[str, int] = dict.fromkeys(hosts, 0)

    async def ask(host: str) -> None:
        async with politeness.slot(host):
            times[host].append(time.monotonic())
            open_now[host] += 1
            assert open_now[host] <= 2
            await asyncio.sleep(hold_seconds)
            open_now[host] -= 1

    async def all_of_them() -> None:
        await asyncio.gather(*(ask(host) for host in hosts))

    run(all_of_them())
    return times


def test_starts_keep_their_distance_and_count() -> None:
    times = starts(Politeness(2, 0.05, 100), ["a.example"] * 6, hold_seconds=0.08)["a.example"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 0.05


def test_workers_share_the_budget() -> None:
    times = starts(Politeness(2, 0.02, 100, workers=4), ["a.example"] * 4)["a.example"]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.08


def test_a_busy_site_does_not_use_up_the_worker() -> None:
    hosts = ["busy.example"] * 20 + [f"s{index}.test" for index in range(20)]
    times = starts(Politeness(2, 0.05, 2), hosts)
    busy = times.pop("busy.example")
    assert max(max(found) for found in times.values()) < busy[-1]  # all others started while the busy one still waited


def test_the_server_sees_the_budget_kept_also_over_redirects(server: FaultServer) -> None:
    urls = [server.url(f"/hops/{index}", "127.0.0.9") for index in (1, 2)] + [server.url(f"/image/{i}", "127.0.0.9") for i in range(30, 34)]
    rows = fetch(urls, quick(host_interval_seconds=0.06, host_in_flight=2))
    assert [row["reason"] for row in rows] == [None] * 6
    times = sorted(moment for moment, host, _ in server.log if host == "127.0.0.9")
    assert len(times) == 9
    assert times[-1] - times[0] >= 8 * 0.06 - 0.03 and server.open_most <= 2


def test_bytes_are_reserved_in_order_and_given_back() -> None:
    async def work() -> None:
        budget = ByteBudget(100, 40)
        order: list[int] = []

        async def take(size: int) -> None:
            await budget.reserve(size)
            order.append(size)

        await take(50)
        tasks = [asyncio.create_task(take(size)) for size in (30, 5)]
        await asyncio.sleep(0)
        assert order == [50]  # 30 does not fit beside 50, and 5 does not jump the queue
        tasks[0].cancel()
        await asyncio.sleep(0)
        budget.release(50)
        await tasks[1]
        assert order == [50, 5] and budget.used_bytes == 5
        budget.release(5)
        await take(1000)  # alone, anything fits

    run(work())


def test_bodies_of_unknown_length_grow_one_at_a_time() -> None:
    async def work() -> None:
        budget = ByteBudget(64 << 20, 32 << 20)
        leases = [Lease(budget) for _ in range(8)]
        for lease in leases:
            await lease.take(UNTOLD_BYTES)

        async def grow(lease: Lease) -> None:
            await lease.grow(32 << 20)
            assert lease.size == 32 << 20
            assert budget.used_bytes <= 64 << 20
            await asyncio.sleep(0)
            lease.close()
            lease.close()

        await asyncio.gather(*map(grow, leases))
        assert budget.used_bytes == 0

    run(work())
