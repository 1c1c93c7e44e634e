"""Sites are asked within their budget, and a slow one does not hold up the rest."""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from curate.errors import LocalFault, SettingsError
from curate.fetch import broker
from curate.fetch.buffer import Room
from curate.fetch.link import Deferred, open_link, runtime_folder
from curate.fetch.politeness import Budget, Politeness
from curate.fetch.settings import FetchSettings
from curate.media.url import site
from curate.settings import build, values
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
        ("a.b.intranet", "b.intranet"),
        ("", ""),
    ],
)
def test_hosts_belong_to_their_registrable_domain(host: str, wanted: str) -> None:
    assert site(host) == wanted


def run(work: Coroutine[object, object, object]) -> None:
    asyncio.run(work)


@asynccontextmanager
async def budgets(in_flight: int, interval_seconds: float, total: int = 100, **more: Any) -> AsyncIterator[Politeness]:
    link = await open_link()
    yield Politeness(link, Budget(in_flight, interval_seconds), Room(total), **more)
    await link.close()


async def ask(politeness: Politeness, hosts: list[str], hold_seconds: float = 0.0) -> dict[str, list[float]]:
    """When requests to each host started; every one holds its place for a while."""
    times: dict[str, list[float]] = {host: [] for host in hosts}
    open_now: dict[str, int] = dict.fromkeys(hosts, 0)

    async def one(host: str) -> None:
        async with politeness.slot(host) as slot:
            times[host].append(time.monotonic())
            slot.began()
            open_now[host] += 1
            assert open_now[host] <= 2
            await asyncio.sleep(hold_seconds)
            open_now[host] -= 1

    await asyncio.gather(*(one(host) for host in hosts))
    return times


def starts(hosts: list[str], *budget: Any, hold_seconds: float = 0.0, **more: Any) -> dict[str, list[float]]:
    async def work() -> dict[str, list[float]]:
        async with budgets(*budget, **more) as politeness:
            return await ask(politeness, hosts, hold_seconds)

    return asyncio.run(work())


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(sorted(times))]


def test_starts_keep_their_distance_and_count() -> None:
    assert min(gaps(starts(["a.example"] * 6, 2, 0.05, hold_seconds=0.08)["a.example"])) >= 0.05


def test_on_n_machines_each_starts_at_one_nth_of_the_rate() -> None:
    assert min(gaps(starts(["b.example"] * 4, 2, 0.02, machines=4)["b.example"])) >= 0.08


def test_domains_may_have_budgets_of_their_own() -> None:
    times = starts(["c.example", "www.c.example", "d.example"] * 3, 2, 0.05, domains={"c.example": Budget(2, 0.1)})
    assert min(gaps(times["c.example"] + times["www.c.example"])) >= 0.1
    assert min(gaps(times["d.example"])) >= 0.05


def test_a_busy_site_does_not_use_up_the_worker() -> None:
    hosts = ["busy.example"] * 20 + [f"s{index}.test" for index in range(20)]
    times = starts(hosts, 2, 0.05, 2)
    busy = times.pop("busy.example")
    assert max(max(found) for found in times.values()) < max(busy)  # all others started while the busy one still waited


def test_workers_of_one_machine_share_the_budget() -> None:
    async def work() -> None:
        async with budgets(2, 0.05) as one, budgets(2, 0.05) as other:
            found = await asyncio.gather(ask(one, ["e.example"] * 4, 0.12), ask(other, ["e.example"] * 4, 0.12))
        assert min(gaps(found[0]["e.example"] + found[1]["e.example"])) >= 0.05

    run(work())


def test_who_would_wait_too_long_is_sent_away_but_never_the_first() -> None:
    async def work() -> None:
        async with budgets(1, 0.3, patience_seconds=0.5) as politeness:
            outcomes = await asyncio.gather(*(ask(politeness, ["f.example"]) for _ in range(8)), return_exceptions=True)
            deferred = [isinstance(outcome, Deferred) for outcome in outcomes]
            assert deferred.count(True) >= 4 and not deferred[0] and not deferred[1]
        async with budgets(1, 0.3, patience_seconds=0.0) as politeness:
            await ask(politeness, ["f.example"])  # more than its patience away, but the head of the queue

    run(work())


def test_a_site_that_holds_its_requests_does_not_hold_those_who_wait() -> None:
    async def work() -> None:
        async with budgets(1, 0.01, patience_seconds=0.1) as politeness:
            holder = asyncio.create_task(ask(politeness, ["g.example"], 2.0))
            await asyncio.sleep(0.05)
            waiting = [asyncio.create_task(ask(politeness, ["g.example"])) for _ in range(4)]
            done = await asyncio.wait(waiting, timeout=1.7)
            assert [len(found) for found in done] == [3, 1]  # the head goes on waiting
            assert all(isinstance(task.exception(), Deferred) for task in done[0])
            await asyncio.gather(holder, *done[1])

    run(work())


def test_a_request_that_is_given_up_leaves_its_place() -> None:
    async def work() -> None:
        async with budgets(1, 0.05) as politeness:
            tasks = [asyncio.create_task(ask(politeness, ["h.example"], 30.0)) for _ in range(3)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(20):
                await ask(politeness, ["h.example"])
            assert not politeness.link.asks

    run(work())


def test_the_gap_counts_from_when_the_site_has_the_request() -> None:
    async def work() -> None:
        async with budgets(2, 0.05) as politeness:
            begun: list[float] = []

            async def slow_to_connect(seconds: float) -> None:
                async with politeness.slot("i.example") as slot:
                    await asyncio.sleep(seconds)
                    begun.append(time.monotonic())
                    slot.began()

            await asyncio.gather(slow_to_connect(0.2), slow_to_connect(0.0))
            assert min(gaps(begun)) >= 0.05

    run(work())


def test_what_one_finds_out_all_are_told() -> None:
    async def work() -> None:
        async with budgets(1, 0) as one, budgets(1, 0) as other:
            key = f"test:{time.time()}"
            text, number = await one.link.look(key)
            assert text is None
            waiting = [asyncio.create_task(politeness.link.look(key)) for politeness in (one, other, other)]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            one.link.publish(number, "found", time.time() + 60)
            assert [(await task)[0] for task in waiting] == ["found"] * 3
            assert (await other.link.look(key))[0] == "found"

    run(work())


def test_when_the_finder_leaves_another_takes_over() -> None:
    async def work() -> None:
        async with budgets(1, 0) as other:
            key = f"test:{time.time()}"
            async with budgets(1, 0) as one:
                await one.link.look(key)
                waiting = asyncio.create_task(other.link.look(key))
                await asyncio.sleep(0.05)
            text, number = await waiting
            assert text is None
            other.link.publish(number, "nobody", None)
            text, number = await other.link.look(key)
            assert text is None  # what was for those who waited is not kept
            other.link.drop(number)

    run(work())


def test_the_folder_of_the_broker_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "curate").chmod(0o755)
    with pytest.raises(LocalFault, match="only you may enter"):
        runtime_folder()


def test_a_broker_ends_when_nobody_is_left(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("r")))
    code = f"from curate.fetch import broker; broker.LINGER_SECONDS = 0.5; broker.main({str(runtime_folder())!r})"
    subprocess.run([sys.executable, "-c", code], check=True)

    async def work() -> None:
        async with budgets(1, 0.3) as politeness:
            await ask(politeness, ["j.example"])

    run(work())
    deadline = time.monotonic() + 20
    while (runtime_folder() / broker.SOCKET).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"a 1 x\n", b"a 1 x y z -1\n", b"\xff\n", b"p 9 9 9\n" * 9, b"r 7\nb 7\nq 7\n"]
)
def test_nonsense_does_not_end_the_broker(nonsense: bytes) -> None:
    async def work() -> None:
        async with budgets(1, 0.01) as politeness:
            pid = (runtime_folder() / broker.LOCK).read_text()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(str(runtime_folder() / broker.SOCKET))
                sock.sendall(nonsense)
                await ask(politeness, ["k.example"])
            await ask(politeness, ["k.example"])
            assert (runtime_folder() / broker.LOCK).read_text() == pid

    run(work())


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("{www.example.org: {in_flight: 8}}", "example.org"),
        ("{example.org: {in_flight: 0}}", "in_flight"),
        ("{a.org: {speed: 1}}", "speed"),
    ],
)
def test_wrong_budgets_of_domains_are_refused(domains: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(FetchSettings, values([f"domains={domains}"]))


def test_budgets_of_domains_take_over_what_they_do_not_say() -> None:
    settings = build(FetchSettings, values(["domains={example.org: {in_flight: 8}, 10.0.0.1: {interval_seconds: 0.1}}"]))
    assert settings.budgets() == {"example.org": Budget(8, 0.5), "10.0.0.1": Budget(2, 0.1, fixed=True)}


def test_the_server_sees_the_budget_kept_also_over_redirects(server: FaultServer) -> None:
    urls = [server.url(f"/hops/{index}", "127.0.0.9") for index in (1, 2)] + [server.url(f"/image/{i}", "127.0.0.9") for i in range(30, 34)]
    rows = fetch(urls, quick(host_interval_seconds=0.06, host_in_flight=2))
    assert [row["reason"] for row in rows] == [None] * 6
    times = sorted(moment for moment, host, _ in server.log if host == "127.0.0.9")
    assert len(times) == 9
    assert times[-1] - times[0] >= 8 * 0.06 - 0.03 and server.open_most <= 2
