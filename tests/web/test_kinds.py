"""Every fault ends in its reason, after the right number of requests, in time and within the memory promised."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import schema as schemas
from curate.catalog.digest import digest
from curate.errors import REASONS
from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.lease import claim
from curate.recipe import load_recipe, run_recipe
from curate.stage import PartTask
from curate.store import Pool
from tests.fetch.conftest import fetch
from tests.web import client
from tests.web.client import DEADLINE_SECONDS, MAX_BYTES, Round
from tests.web.kinds import KINDS, url
from tests.web.ports import PORT_KINDS, Ports, environment
from tests.web.server import FaultServer

QUICK = [name for name, kind in KINDS.items() if not kind.slow]
SLOW = [name for name, kind in KINDS.items() if kind.slow]
PATIENT = {"total_seconds": 60.0, "connect_seconds": 30.0, "floor_seconds": 30.0}  # for a busy machine
SENT = {"host", "user-agent", "accept", "accept-encoding", "connection"}


@dataclass(frozen=True)
class Seen:
    """What became of a kind, and what the server saw of it."""

    row: dict[str, Any]
    requests: int
    round: Round


def hostile_environment(ports: Ports, folder: Path) -> dict[str, str]:
    """Proxies and passwords that nobody configured here: to use any of them would fail every row."""
    (folder / ".netrc").write_text("default login me password hush\n")
    (folder / ".netrc").chmod(0o600)
    dead_end = f"http://127.3.0.1:{ports.numbers['never_read']}"
    proxies = {name: dead_end for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
    return environment(ports) | proxies | {"HOME": str(folder), "NETRC": str(folder / ".netrc"), "no_proxy": ""}


@pytest.fixture(scope="module")
def seen(server: FaultServer, ports: Ports, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Each quick kind alone, one after the other; the slow ones at once; the ports at once."""
    warm = [server.url("/image/1", f"127.9.0.{number}") for number in range(1, 9)]
    groups = [
        {
            "settings": client.settings(**PATIENT),
            "rounds": [warm, *([url(server, kind)] for kind in QUICK), [url(server, "cookies_100", seed=7)]],
        },
        {"settings": client.settings(), "rounds": [warm, [url(server, kind) for kind in SLOW]]},
        {"settings": client.settings(), "rounds": [warm, [ports.url(kind) for kind in PORT_KINDS]]},
    ]
    quick, slow, shut = client.ask(groups, hostile_environment(ports, tmp_path_factory.mktemp("home")))
    found = {
        kind: Seen(answer["rows"][0], len(server.times(f"/f/{kind}/99/1")), answer) for kind, answer in zip(QUICK, quick[1:-1], strict=True)
    }
    for kind, row in zip(SLOW, slow[1]["rows"], strict=True):
        found[kind] = Seen(row, len(server.times(f"/f/{kind}/99/1")), slow[1])
    for kind, row in zip(PORT_KINDS, shut[1]["rows"], strict=True):
        found[kind] = Seen(row, ports.connections(kind), shut[1])
    return found


def wanted() -> Iterator[tuple[str, tuple[str | None, int, int]]]:
    """(kind, (reason, requests or connections that the server sees, attempts)) of the whole table."""
    yield from ((name, (kind.reason, kind.requests, kind.tries)) for name, kind in KINDS.items())
    yield from ((name, (port.reason, port.connections, port.tries)) for name, port in PORT_KINDS.items())


def test_every_kind_ends_in_its_reason_after_exactly_its_requests(seen: dict[str, Seen]) -> None:
    found = {kind: (got.row["reason"], got.requests, got.row["attempts"]) for kind, got in seen.items()}
    wrong = [f"{kind}: {found[kind]} is not {right}" for kind, right in wanted() if found[kind] != right]
    assert not wrong, "\n".join(wrong)
    assert len(found) == len(KINDS) + len(PORT_KINDS) >= 170
    assert {reason for reason, _, _ in found.values()} <= {None, *REASONS}


def test_no_kind_takes_more_memory_than_twice_the_largest_body(seen: dict[str, Seen]) -> None:
    greedy = {kind: got.round["rise_bytes"] for kind, got in seen.items() if got.round["rise_bytes"] > 2 * MAX_BYTES}
    assert not greedy


def test_bodies_are_read_up_to_their_cap_and_not_at_all_after_an_opt_out(seen: dict[str, Seen]) -> None:
    read_bytes = {kind: got.row["bytes_read"] for kind, got in seen.items()}
    assert not {kind: size for kind, size in read_bytes.items() if size > MAX_BYTES + (1 << 20)}
    assert read_bytes["chunk_endless"] > MAX_BYTES
    assert {size for kind, size in read_bytes.items() if seen[kind].row["reason"] in ("opt_out", "encoding_refused")} == {0}
    assert read_bytes["cl_huge"] == read_bytes["500_endless_body"] == read_bytes["redirect_endless_body"] == 0


def test_no_kind_outlives_its_deadline(seen: dict[str, Seen]) -> None:
    late = {kind: seen[kind].round["seconds"] for kind in (*SLOW, *PORT_KINDS) if seen[kind].round["seconds"] > DEADLINE_SECONDS + 15}
    assert not late  # exact on an idle machine in the long form below


def test_nothing_is_sent_that_tells_who_we_are_beyond_the_user_agent(server: FaultServer, seen: dict[str, Seen]) -> None:
    assert len(server.headers) >= len(KINDS)
    names = {name.lower() for text in server.headers.values() for name in re.findall(r"^([^:\s]+):", text, re.MULTILINE)}
    assert names <= SENT
    assert all("Accept-Encoding: identity" in text and "curate/" in text for text in server.headers.values())


def test_cookies_are_not_kept(server: FaultServer, seen: dict[str, Seen]) -> None:
    again = server.headers["/f/cookies_100/99/7"]
    assert "/f/cookies_100/99/1" in server.headers
    assert "\ncookie:" not in again.lower()


def test_retry_after_is_waited_for(server: FaultServer) -> None:
    urls = [server.url(f"/f/{kind}/1/8", f"127.7.0.{number}") for number, kind in enumerate(("429_second", "503_soon"), 1)]
    rows = fetch(urls, FetchSettings.model_validate(client.settings(**PATIENT)))
    assert [row["reason"] for row in rows] == [None, None]
    for kind in ("429_second", "503_soon"):  # a date has whole seconds: two from now is at least one
        first, second = server.times(f"/f/{kind}/1/8")
        assert second - first >= 1


@pytest.mark.long
def test_each_kind_alone_ends_within_a_second_of_its_deadline(
    server: FaultServer, ports: Ports, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = [[url(server, kind, seed=5)] for kind in KINDS] + [[ports.url(kind)] for kind in PORT_KINDS]
    warm = [server.url("/image/1", f"127.9.1.{number}") for number in range(1, 9)]
    (answers,) = client.ask([{"settings": client.settings(), "rounds": [warm, *rounds]}], environment(ports))
    seconds = {kind: answer["seconds"] for kind, answer in zip((*KINDS, *PORT_KINDS), answers[1:], strict=True)}
    rises = {kind: answer["rise_bytes"] for kind, answer in zip((*KINDS, *PORT_KINDS), answers[1:], strict=True)}
    most_mib = max(rises.values()) / 2**20
    with capsys.disabled():
        print(f"\nlongest {max(seconds.values()):.2f} s at a deadline of {DEADLINE_SECONDS} s; most memory {most_mib:.1f} MiB")
    assert not {kind: taken for kind, taken in seconds.items() if taken > DEADLINE_SECONDS + 1}
    assert not {kind: rise for kind, rise in rises.items() if rise > 2 * MAX_BYTES}


# -- recovery: a pool fetched through faults is the pool fetched without


def planned_pool(folder: Path, urls: list[str]) -> Pool:
    """A pool whose rows are these URLs."""
    folder.mkdir()
    listed = folder / "list.parquet"
    pq.write_table(pa.table({"url": urls, "caption": [f"picture {number}" for number in range(len(urls))]}), listed)
    run_recipe(load_recipe("ingest"), folder / "pool", [f"input.path={listed}"], only="plan")
    return Pool.open(folder / "pool")


def fetch_pass(pool: Pool, settings: FetchSettings, basis: str) -> Pool:
    """One pass over the pool: what failed before and may be tried again is, the rest stands."""
    phase, before = FetchPhase(settings), pool.snapshot("fetched")
    with claim(pool, {name: schemas.table(name) for name in ("telemetry_fetch", "fetched")}) as run, phase.open() as fetch_part:
        for part in sorted(pool.snapshot("rows").by_part):
            previous = before.path_of(part) if part in before.by_part else None
            report = fetch_part(PartTask(str(pool.path), part, {"rows": pool.snapshot("rows").path_of(part)}, basis, previous))
            for file in sorted(report.files, key=lambda file: file.table == "fetched"):
                run.commit(file.table, [file])
    return pool


def two_pools(server: FaultServer, folder: Path, urls: list[str], settings: FetchSettings) -> tuple[Pool, Pool]:
    """The same list fetched once without a fault and once with all of them."""
    try:
        server.faults = False
        clean = fetch_pass(planned_pool(folder / "clean", urls), settings, "first")
    finally:
        server.faults = True
        server.log.clear()
    return clean, fetch_pass(planned_pool(folder / "faulted", urls), settings, "first")


def attempts(pool: Pool) -> list[int]:
    return [row["attempts"] for row in rows(pool, "telemetry_fetch", "attempts")]


def rows(pool: Pool, table: str, *columns: str) -> list[dict[str, Any]]:
    snapshot = pool.snapshot(table)
    tables = [pq.read_table(snapshot.path_of(part), columns=list(columns), partitioning=None) for part in sorted(snapshot.by_part)]
    return list(pa.concat_tables(tables).to_pylist())


def test_kinds_that_recover_leave_no_trace_in_the_pool(server: FaultServer, tmp_path: Path) -> None:
    kinds = [kind for kind, what in KINDS.items() if what.recovers]
    urls = [url(server, kind, failures, 100 + number) for number, kind in enumerate(kinds) for failures in (0, 1, 2)]
    settings = FetchSettings.model_validate(client.settings(**PATIENT))
    clean, faulted = two_pools(server, tmp_path, urls, settings)
    assert set(attempts(clean)) == {1}
    assert len(kinds) >= 25
    assert {row["reason"] for row in rows(faulted, "fetched", "reason")} == {None}
    paths = [address.removeprefix("http://").partition("/")[2] for address in urls]
    assert [server.count("/" + path) for path in paths] == [int(path.split("/")[2]) + 1 for path in paths]
    assert sorted(attempts(faulted)) == sorted([1, 2, 3] * len(kinds))
    assert digest(faulted) == digest(clean)


def test_deadlines_missed_in_one_pass_are_made_good_in_the_next(server: FaultServer, tmp_path: Path) -> None:
    urls = [url(server, kind, failures, 300 + number) for number, kind in enumerate(SLOW) for failures in (0, 1)]
    settings = FetchSettings.model_validate(client.settings())
    clean, faulted = two_pools(server, tmp_path, urls, settings)
    failed = {row["reason"] for row in rows(faulted, "fetched", "reason")}
    assert failed == {None, "timeout_total", "too_slow"}
    assert all(REASONS[reason].retryable for reason in failed if reason)
    assert digest(faulted) != digest(clean)
    fetch_pass(faulted, settings, "second")
    assert {row["reason"] for row in rows(faulted, "fetched", "reason")} == {None}
    assert digest(faulted) == digest(clean)
