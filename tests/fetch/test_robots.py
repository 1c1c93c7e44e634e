"""Hosts are asked for robots.txt once a day, and what they answer, or do not answer, is obeyed (RFC 9309, 2.3)."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import schema as schemas
from curate.catalog.digest import digest
from curate.catalog.verify import check_alignment
from curate.errors import LocalFault
from curate.fetch import broker
from curate.fetch.link import open_link, runtime_folder
from curate.fetch.notes import Notes
from curate.fetch.origins import Origins, Page
from curate.fetch.phase import FetchPhase
from curate.lease import claim
from curate.stage import PartReport, PartTask
from curate.store import Pool
from tests.fetch.conftest import fetch, quick, response
from tests.fetch.hosts import HANG_UP, STALL, Hosts, moved, text

NO = "User-agent: *\nDisallow: /\n"
YES = "User-agent: *\nDisallow:\n"
BLOCKED, LATER, ALLOWED = "robots_disallowed", "robots_unreachable", None

# what stands at /robots.txt, the reason of a picture there, requests for robots.txt
STATUSES: list[tuple[str, bytes, str | None]] = [
    ("200 no", text(NO), BLOCKED),
    ("200 yes", text(YES), ALLOWED),
    ("200 empty", text(""), ALLOWED),
    ("201 no", text(NO, 201), BLOCKED),
    ("204", b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", ALLOWED),
    *[(f"{status}", text(NO, status), ALLOWED) for status in (400, 401, 402, 403, 404, 405, 408, 410, 418, 451, 499)],
    *[(f"{status}", text(NO, status), LATER) for status in (429, 500, 501, 502, 503, 504, 511, 599)],
    ("304", b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n", ALLOWED),
    ("302 without Location", text("", 302), ALLOWED),
    ("redirect to a file", moved(301, "file:///etc/hostname"), ALLOWED),
    ("redirect to a private address", moved(302, "http://169.254.169.254/robots.txt"), LATER),
    ("redirect to userinfo", moved(302, "http://a:b@127.0.0.1/robots.txt"), ALLOWED),
    ("loop", moved(302, "/robots.txt"), ALLOWED),
    ("stall", STALL, LATER),
    ("hang up", HANG_UP, LATER),
    ("not HTTP", b"220 ftp ready\r\n", LATER),
    ("body cut", response(NO.encode(), length=500), LATER),
    ("header of 200 KB", text(NO, 200, "X-Long: " + "a" * 200_000), LATER),
    ("HTML", text(f"<!DOCTYPE html>\n<html><body><pre>{NO}</pre></body></html>", 200, "Content-Type: text/html"), ALLOWED),
    ("BOM", text("\ufeff" + NO), BLOCKED),
    ("CRLF", text(NO.replace("\n", "\r\n")), BLOCKED),
    ("NUL", text(NO.replace("\n", "\0\n")), BLOCKED),
    ("600 KiB, rule first", text(NO + "# x\n" * 153_600), BLOCKED),
    ("600 KiB, rule last", text("# x\n" * 153_600 + NO), ALLOWED),
    ("10 GiB announced", response(NO.encode() + b"# x\n" * 160_000, length=10 << 30), BLOCKED),
    ("gzip unasked", text(gzip.compress(NO.encode()), 200, "Content-Encoding: gzip"), BLOCKED),
    ("br unasked", text(NO, 200, "Content-Encoding: br"), LATER),
    ("broken gzip", text(NO, 200, "Content-Encoding: gzip"), LATER),
    ("gzip bomb", text(gzip.compress(NO.encode() + b"\n" * (64 << 20)), 200, "Content-Encoding: gzip"), BLOCKED),
    ("noindex of robots.txt itself", text(YES, 200, "X-Robots-Tag: noindex"), ALLOWED),
    ("image/jpeg", text(NO, 200, "Content-Type: image/jpeg"), BLOCKED),
]  # fmt: skip


def test_every_answer_is_read_as_the_standard_says(hosts: Hosts) -> None:
    names = [hosts.add(robots) for _, robots, _ in STATUSES]
    rows = fetch([hosts.url(host) for host in names], quick(robots=True, total_seconds=1.5))
    found = {case[0]: row["reason"] for case, row in zip(STATUSES, rows, strict=True)}
    assert found == {name: reason for name, _, reason in STATUSES}
    for (name, _, reason), host, row in zip(STATUSES, names, rows, strict=True):
        asked = hosts.asked(host)
        assert asked.count("/robots.txt") == (6 if name == "loop" else 1), name
        assert asked.count("/image") == (reason is ALLOWED), name
        assert row["attempts"] == (reason is ALLOWED), name
        assert (row["signal"] is None) == (reason is ALLOWED), name


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_up_to_five_redirects_are_followed_wherever_they_lead(hosts: Hosts, status: int) -> None:
    cases = []
    for hops in range(1, 7):
        host, other = hosts.add(), hosts.add()
        hosts.files[host, "/robots.txt"] = moved(status, f"http://{other}:{{port}}/r1")
        for hop in range(1, hops):
            hosts.files[other, f"/r{hop}"] = moved(status, f"r{hop + 1}")
        hosts.files[other, f"/r{hops}"] = text(NO)
        cases.append((host, other, BLOCKED if hops <= 5 else ALLOWED))
    rows = fetch([hosts.url(host) for host, _, _ in cases], quick(robots=True))
    assert [row["reason"] for row in rows] == [reason for _, _, reason in cases]
    assert [len(hosts.asked(other)) for _, other, _ in cases] == [1, 2, 3, 4, 5, 5]


def test_rows_of_one_host_share_one_request_and_are_judged_each(hosts: Hosts) -> None:
    host = hosts.add(text("User-agent: *\nDisallow: /image/private\n"))
    paths = ["/image/1", "/image/private/2", "/image/3", "/image/private"] * 5
    rows = fetch([hosts.url(host, path) for path in paths], quick(robots=True), batch=2)
    assert [row["reason"] for row in rows] == [None, BLOCKED, None, BLOCKED] * 5
    assert (rows[1]["signal"], rows[1]["signal_value"]) == ("robots.txt", "Disallow: /image/private")
    assert hosts.asked(host)[0] == "/robots.txt"
    assert sorted(hosts.asked(host)[1:]) == ["/image/1"] * 5 + ["/image/3"] * 5


def test_a_redirect_is_judged_by_the_host_it_leads_to(hosts: Hosts) -> None:
    here, there = hosts.add(), hosts.add(text(NO))
    hosts.files[here, "/image"] = moved(302, f"http://{there}:{{port}}/image")
    (row,) = fetch([hosts.url(here)], quick(robots=True))
    assert (row["reason"], row["attempts"], row["final_url"]) == (BLOCKED, 1, hosts.url(there))
    assert hosts.asked(there) == ["/robots.txt"]


def test_hosts_that_cannot_be_reached_give_their_own_reason(hosts: Hosts) -> None:
    urls = ["http://127.0.0.1:1/x.jpg", "http://no-such-host.invalid/x.jpg", "http://10.0.0.1/x.jpg"]
    rows = fetch(urls, quick(robots=True, tdm_file=True))
    assert (rows[0]["reason"], rows[0]["attempts"]) == ("connect_failed", 3)
    assert rows[1]["reason"] in ("dns_not_found", "dns_timeout")
    assert rows[2]["reason"] == "blocked_address"


def test_another_port_is_another_host_and_its_own_names_count(hosts: Hosts) -> None:
    host = hosts.add(text("User-agent: our-bot\nDisallow: /\n"))
    (row,) = fetch([hosts.url(host)], quick(robots=True, robot_names=["our-bot"]))
    assert row["reason"] == BLOCKED
    (row,) = fetch([hosts.url(hosts.add(text("User-agent: our-bot\nDisallow: /\n")))], quick(robots=True))
    assert row["reason"] is None


def test_a_day_is_a_day_for_every_process_of_this_machine(hosts: Hosts) -> None:
    names = [hosts.add(text(NO)), hosts.add(text(YES)), hosts.add(text("", 503)), hosts.add()]
    for _ in range(2):
        rows = fetch([hosts.url(host) for host in names], quick(robots=True, tdm_file=True))
        assert [row["reason"] for row in rows] == [BLOCKED, None, LATER, None]
    os.kill(int((runtime_folder() / broker.LOCK).read_text()), signal.SIGKILL)  # what it knew is on disk
    said = json.dumps({"settings": {"robots": True, "tdm_file": True}, "lists": [[hosts.url(host) for host in names]]})
    other = [sys.executable, "-m", "tests.fetch.polite_worker"]
    assert json.loads(subprocess.run(other, input=said, text=True, capture_output=True, check=True).stdout) == [
        [BLOCKED, None, LATER, None]
    ]
    assert [hosts.asked(host).count("/robots.txt") for host in names] == [1, 1, 1, 1]
    assert [hosts.asked(host).count("/.well-known/tdmrep.json") for host in names] == [0, 1, 0, 1]


def test_what_could_not_be_had_is_asked_for_again_when_the_settings_say_so(hosts: Hosts) -> None:
    host = hosts.add(text("", 503))
    settings = quick(robots=True, robots_again_seconds=0.001)
    assert fetch([hosts.url(host)], settings)[0]["reason"] == LATER
    hosts.files[host, "/robots.txt"] = text(YES)
    assert fetch([hosts.url(host)], settings)[0]["reason"] is None


def test_crawl_delay_lengthens_the_interval_unless_the_domain_has_one_of_its_own(hosts: Hosts) -> None:
    slow, agreed = hosts.add(text("User-agent: *\nCrawl-delay: 1\n")), hosts.add(text("User-agent: *\nCrawl-delay: 30\n"))
    urls = [hosts.url(host, f"/image/{n}") for host in (slow, agreed) for n in range(3)]
    rows = fetch(urls, quick(robots=True, patience_seconds=0.5, domains={agreed: {"interval_seconds": 0.01}}))
    assert sorted(str(row["reason"]) for row in rows[:3]) == ["None", "deferred_politeness", "deferred_politeness"]
    assert [row["attempts"] for row in rows if row["reason"]] == [0, 0]
    assert [row["reason"] for row in rows[3:]] == [None] * 3


# -- in the pool


@pytest.fixture
def forget() -> Callable[[], None]:
    """Makes this machine's broker a new one that knows nothing."""

    def kill() -> None:
        os.kill(int((runtime_folder() / broker.LOCK).read_text()), signal.SIGKILL)
        for path in runtime_folder().glob(f"{broker.STORE}*"):
            path.unlink()

    return kill


def part(pool: Pool, number: int, urls: list[str], basis: str = "basis", previous: str | None = None) -> PartReport:
    lines = {
        "row": pa.array(range(len(urls)), pa.int32()),
        "sample_id": [f"{number}-{index}" for index in range(len(urls))],
        "url_id": [f"{number}-{index}" for index in range(len(urls))],
        "url": urls,
        "caption": ["x"] * len(urls),
    }
    rows = pool.write_part("rows", number, pa.table(lines), "r")
    with FetchPhase(quick(robots=True, tdm_file=True)).open() as fetch_part:
        return fetch_part(PartTask(str(pool.path), number, {"rows": str(pool.table_folder("rows") / rows.path)}, basis, previous))


def commit(pool: Pool, report: PartReport) -> None:
    with claim(pool, {file.table: schemas.table(file.table) for file in report.files}) as run:
        for file in report.files:
            run.commit(file.table, [file])


def test_the_pool_keeps_what_hosts_said_and_a_resume_asks_none_again(hosts: Hosts, tmp_path: Path, forget: Callable[[], None]) -> None:
    pool = Pool.create(tmp_path / "a pool")
    names = [hosts.add(text(NO)), hosts.add(text(YES), text('[{"location": "/x", "tdm-reservation": 1}]')), hosts.add(text("", 503))]
    commit(pool, part(pool, 1, [hosts.url(host) for host in names]))
    said = {(line["kind"], line["host"]): line for line in pool.snapshot("robots").read().to_pylist()}
    assert set(said) == {("robots", names[0]), ("robots", names[1]), ("tdmrep", names[1]), ("robots", names[2])}
    first = said["robots", names[0]]
    assert (first["text"], first["status"], first["port"], first["scheme"]) == (NO, 200, hosts.port, "http")
    assert (first["expires_at"] - first["fetched_at"]).total_seconds() == 86_400
    asked = len(hosts.log)
    forget()
    again = part(pool, 2, [hosts.url(host, "/image/2") for host in names])
    records = pq.read_table(pool.table_folder("fetched") / again.files[0].path).to_pylist()
    assert [record["reason"] for record in records] == [BLOCKED, None, LATER]
    assert hosts.log[asked:] == [(names[1], "/image/2")]
    assert [file.table for file in again.files] == ["fetched", "telemetry_fetch"]  # it asked for nothing new


def test_a_part_that_is_fetched_again_keeps_its_earlier_notes(hosts: Hosts, tmp_path: Path) -> None:
    pool = Pool.create(tmp_path / "pool")
    names = [hosts.add(text(YES)), hosts.add(text(YES))]
    commit(pool, part(pool, 1, [hosts.url(names[0])]))
    commit(pool, part(pool, 1, [hosts.url(host) for host in names], "other basis"))
    assert {line["host"] for line in pool.snapshot("robots").read().to_pylist()} == set(names)


def test_notes_are_not_content_and_not_aligned(hosts: Hosts, tmp_path: Path) -> None:
    from curate.catalog.findings import Check
    from curate.catalog.views import pin

    pool = Pool.create(tmp_path / "pool")
    report = part(pool, 1, [hosts.url(hosts.add(text(YES)))])
    rows = next((pool.table_folder("rows")).glob("00001-*.parquet"))
    commit(pool, PartReport(1, tuple(file for file in report.files if file.table != "robots")))
    before = digest(pool)
    commit(pool, PartReport(1, tuple(file for file in report.files if file.table == "robots")))
    assert rows.exists() and pool.snapshot("robots").files and digest(pool) == before
    check = Check("alignment", "")
    check_alignment(check, pin(pool))
    assert not check.failures


def test_hosts_with_endless_rules_do_not_fill_the_memory() -> None:
    rules = "".join(f"Disallow: /{number}/\n" for number in range(12_000))

    async def read(url: str) -> Page:
        return Page(200, f"User-agent: *\n{rules}".encode())

    async def work() -> None:
        link, notes = await open_link(), Notes()
        origins = Origins(link, read, quick(robots=True), notes)
        for _ in range(2):
            for host in range(20):
                assert (await origins.judge(f"http://endless{host}.example/7/x")).reason == BLOCKED
                assert (await origins.judge(f"http://endless{host}.example/x")).reason is None
                assert 0 < origins.characters <= 2 << 20
        assert len(notes.take()) == 20 and not notes.take()
        await link.close()

    asyncio.run(work())


def test_where_no_broker_can_be_one_line_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(LocalFault, match="set XDG_RUNTIME_DIR"):
        fetch(["http://127.0.0.1:1/"], quick())
