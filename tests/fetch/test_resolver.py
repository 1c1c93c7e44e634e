"""Names become addresses: every answer of a name server ends as it should, asked for once, and a dead one fails no name."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import uvloop

from curate.errors import LocalFault, SettingsError
from curate.fetch.failures import ResolverSilent, resolver_reason
from curate.fetch.resolver import Resolver, literal
from curate.fetch.settings import FetchSettings
from curate.settings import build
from tests.fetch.conftest import FaultServer, fetch, quick
from tests.web.dns import NO_SUCH_NAME, REFUSED, SERVER_FAILURE, NameServer, Reply, serve_names

T = TypeVar("T")
HERE = ("127.0.0.1", "2600::1")


def zone(name: str, kind: str, before: int) -> Reply:
    """The first label says what happens."""
    first = name.partition(".")[0].rstrip("0123456789")
    return {
        "gone": Reply(code=NO_SUCH_NAME),
        "bare": Reply(),
        "six": Reply(("2600::2",)),
        "broken": Reply(code=SERVER_FAILURE),
        "refused": Reply(code=REFUSED),
        "silent": Reply(silent=True),
        "half": Reply(("2600::3",)) if kind == "AAAA" else Reply(code=SERVER_FAILURE),
        "slow": Reply(HERE, delay_seconds=0.1),
        "unkept": Reply((f"127.0.0.{1 + before}",), ttl=0),
        "twice": Reply(("127.0.0.1", "127.0.0.2", "127.0.0.1")),
    }.get(first, Reply(HERE))


def asked(
    names: NameServer, work: Callable[[Resolver], Awaitable[T]], *, loop: str = "asyncio", seconds: float = 2.0, give_up: float = 30.0
) -> T:
    """What `work` makes of a resolver that asks `names`."""

    async def run() -> T:
        resolver = Resolver([names.address], seconds, 8, give_up)
        try:
            return await work(resolver)
        finally:
            await resolver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        return runner.run(run())


async def outcomes(resolver: Resolver, hosts: list[str]) -> list[object]:
    """Addresses, or the reason why not."""
    found = await asyncio.gather(*(resolver.lookup(host, 80) for host in hosts), return_exceptions=True)
    return [resolver_reason(each) if isinstance(each, OSError) else each for each in found]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_answer_ends_as_addresses_or_as_its_reason(loop: str) -> None:
    wanted: dict[str, object] = {
        "good.test": [(socket.AF_INET, "127.0.0.1")],
        "Good.Test.": [(socket.AF_INET, "127.0.0.1")],
        "twice.test": [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2")],
        "six.test": [(socket.AF_INET6, "2600::2")],
        "half.test": [(socket.AF_INET6, "2600::3")],
        "localhost": [(socket.AF_INET, "127.0.0.1")],
        "gone.test": "dns_not_found",
        "bare.test": "dns_not_found",
        "a" * 64 + ".test": "dns_not_found",
        "broken.test": "dns_timeout",
        "refused.test": "dns_timeout",
        "silent.test": "dns_timeout",
    }
    with serve_names(zone) as names:
        assert asked(names, lambda resolver: outcomes(resolver, list(wanted)), loop=loop, seconds=0.5) == list(wanted.values())
        assert names.questions("good.test") == ["A"]  # one family is enough
        assert names.questions("gone.test") == ["A"]  # no such name: not of the other kind either
        assert names.questions("localhost") == []


def test_a_name_is_asked_for_once_however_many_want_it() -> None:
    hosts = [f"{kind}{number}.test" for number in range(10) for kind in ("good", "gone", "slow")]

    async def work(resolver: Resolver) -> tuple[int, int, int]:
        for _ in range(3):
            await outcomes(resolver, hosts * 5)
        found = resolver.statistics
        assert 0 < found.median_seconds <= found.p95_seconds
        return found.lookups, found.hits, found.queries

    with serve_names(zone) as names:
        assert asked(names, work) == (450, 300, 30)
        assert {name: names.questions(name) for name in hosts} == {name: ["A"] for name in hosts}
        assert 1 < names.waiting_most <= 8  # a small resolver is not overrun


def test_an_answer_that_is_not_to_be_kept_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.fetch.resolver._UNKEPT_SECONDS", 0.0)

    async def work(resolver: Resolver) -> list[list[tuple[int, str]]]:
        first = await resolver.lookup("unkept.test")
        held = await resolver.held("unkept.test")  # the request that waited for its turn
        return [first, held, await resolver.lookup("unkept.test")]

    with serve_names(zone) as names:
        found = asked(names, work)
    assert [addresses[0][1] for addresses in found] == ["127.0.0.1", "127.0.0.1", "127.0.0.2"]


def test_a_silent_name_is_told_from_a_silent_resolver() -> None:
    async def alone(resolver: Resolver) -> str:
        with pytest.raises(ResolverSilent):
            await resolver.lookup("silent.test")
        return "judged"

    async def beside_others(resolver: Resolver) -> str:
        silent = asyncio.ensure_future(outcomes(resolver, ["silent.test"]))
        number = 0
        while not silent.done():
            await resolver.lookup(f"good{number}.test")
            number += 1
            await asyncio.sleep(0.01)
        assert await silent == ["dns_timeout"]
        return "judged"

    with serve_names(zone) as names:
        assert asked(names, alone, seconds=0.4) == "judged"
        assert asked(names, beside_others, seconds=0.4) == "judged"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_dead_resolver_fails_no_name_and_is_left_alone_meanwhile(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    hosts = [f"good{number}.test" for number in range(40)]

    async def work(resolver: Resolver) -> list[object]:
        assert await outcomes(resolver, ["good.test"]) == [[(socket.AF_INET, "127.0.0.1")]]
        names.dead = True
        looking = asyncio.ensure_future(outcomes(resolver, hosts))
        await asyncio.sleep(2.0)
        assert not looking.done()
        names.dead = False
        return await looking

    with serve_names(zone) as names:
        assert asked(names, work, loop=loop, seconds=0.4) == [[(socket.AF_INET, "127.0.0.1")]] * 40
        assert sum(bool(names.questions(host)) for host in hosts[8:]) == 32
        assert max(len(names.questions(host)) for host in hosts[8:]) <= 2  # those that had not been asked for yet waited
    assert "requests wait" in caplog.records[0].message and "over after" in caplog.records[-1].message


def test_a_resolver_that_stays_away_stops_the_run() -> None:
    async def work(resolver: Resolver) -> None:
        await asyncio.gather(*(resolver.lookup(f"good{number}.test") for number in range(20)))

    with serve_names(zone) as names:
        names.dead = True
        with pytest.raises(LocalFault, match=r"resolver \(127\.0\.0\.1.*does not answer for 1 s.*same command"):
            asked(names, work, seconds=0.2, give_up=1.0)
    with pytest.raises(LocalFault):  # and one that is not there at all, which the system says at once
        asked(names, work, seconds=0.2, give_up=0.5)


def test_closing_ends_what_is_under_way() -> None:
    async def work(resolver: Resolver) -> list[asyncio.Task[object]]:
        tasks: list[asyncio.Task[object]] = [asyncio.ensure_future(resolver.lookup(f"silent{n}.test")) for n in range(20)]
        await asyncio.sleep(0.05)
        return tasks

    with serve_names(zone) as names:
        begun = time.monotonic()
        tasks = asked(names, work, seconds=30.0)
    assert all(task.cancelled() for task in tasks)
    assert time.monotonic() - begun < 20


def test_addresses_in_any_spelling_are_never_asked_for() -> None:
    spellings = ("127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.0.1", "127.0.0.1.", "0x7f000001")
    assert {literal(text) for text in spellings} == {(socket.AF_INET, "127.0.0.1")}
    assert literal("[::1]") == (socket.AF_INET6, "::1")
    assert [literal(text) for text in ("a.test", "1.2.test", "xn--nxasmq6b", "0-x.test")] == [None] * 4
    for text in ("1.2.3.4.5", "999.1.1.1", "a.test.7"):
        with pytest.raises(socket.gaierror):
            literal(text)


@pytest.mark.parametrize("text", ["9.9.9.9", "127.0.0.1:5353", "2620:fe::fe", "[::1]:5353"])
def test_name_servers_are_given_as_addresses(text: str) -> None:
    assert quick(resolvers=(text,)).resolvers == (text,)


@pytest.mark.parametrize("text", ["dns.example", "127.0.0.1:x", "127.0.0.1:0", ""])
def test_other_name_servers_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="name server"):
        build(FetchSettings, {"resolvers": [text]})


# -- in a fetch


def outage(server: FaultServer, dead_seconds: float, **changes: object) -> None:
    """A resolver that dies in the middle of a fetch costs no row anything."""
    hosts = [f"host{number}.test" for number in range(300)]
    urls = [f"http://{host}:{server.port}/image/{number}" for number, host in enumerate(hosts)]

    def slowly(name: str, kind: str, before: int) -> Reply:
        number = int(name.removeprefix("host").partition(".")[0] or 0) if name.startswith("host") else 0
        if number == 100 and not before:
            asyncio.get_running_loop().call_later(dead_seconds, setattr, names, "dead", False)
            names.dead = True
        return Reply(("127.0.0.1",), delay_seconds=0.01)

    with serve_names(slowly) as names:
        rows = fetch(urls, quick(resolvers=(names.address,), **changes))
    assert [row["reason"] for row in rows] == [None] * 300
    assert [row["attempts"] for row in rows] == [1] * 300
    assert {path: server.count(path) for _, _, path in server.log} == {f"/image/{number}": 1 for number in range(300)}
    assert max(names.seen.values()) > 1  # it really was dead


def test_a_resolver_dead_in_the_middle_of_a_fetch_fails_no_row(server: FaultServer) -> None:
    outage(server, 2.5, resolve_seconds=0.4, total_seconds=2.0, resolver_in_flight=8)


@pytest.mark.long
def test_a_resolver_dead_for_twenty_seconds_fails_no_row(server: FaultServer) -> None:
    outage(server, 20.0, total_seconds=10.0)


def test_a_fetch_names_what_is_wrong_with_a_name(server: FaultServer) -> None:
    hosts = ("good.test", "gone.test", "broken.test", "2130706433", "127.1", "999.1.1.1")
    with serve_names(zone) as names:
        rows = fetch([f"http://{host}:{server.port}/image/1" for host in hosts], quick(resolvers=(names.address,), allow_addresses=()))
    reasons = [row["reason"] for row in rows]
    assert reasons[:3] == ["blocked_address", "dns_not_found", "dns_timeout"]
    assert set(reasons[3:5]) <= {"blocked_address", "bad_url"} and reasons[5] in ("dns_not_found", "bad_url")
    assert [row["attempts"] for row in rows][:3] == [1, 1, 3]
    assert server.log == []
