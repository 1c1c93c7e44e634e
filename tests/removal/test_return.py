"""What was taken down does not come back: not with a further list, not under another URL, not with a retry, a purge or a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate.demo.server import host_name
from tests.removal import scan
from tests.removal.conftest import ROWS, SHARED, Served
from tests.removal.questions import pairs, rows

ADDED = 10


def elsewhere(url: str) -> str:
    """The same picture at another address."""
    return url.replace(url.split("/")[2].split(":")[0], host_name(next(n for n in range(3) if f"//{host_name(n)}:" not in url)))


@pytest.mark.long
def test_add_retry_and_run_bring_nothing_back(added: Path, served: Served, tmp_path: Path, curate: Callable) -> None:
    """A pool with a further list; rows are taken down, asked for again in every way there is, then bytes of dropped rows go."""
    pool = Path(shutil.copytree(added, tmp_path / "pool"))
    by_url, by_id, by_hash, *_ = pairs(pool, "true")
    missing, other = [line["url"] for line in rows(pool, "SELECT url FROM samples WHERE reason = 'http_not_found' ORDER BY url")][:2]
    secrets = [scan.secret(pool, pair["owner"]) for pair in (by_url, by_id, by_hash)]
    entries = [by_url["url"], by_id["owner"], by_id["guest"], secrets[2].sha256, missing]
    (tmp_path / "request.txt").write_text("\n".join(entries))
    assert curate("takedown", pool, "--list", tmp_path / "request.txt", "--because", "asked", "--yes").code == 0
    gone = {line["sample_id"] for line in rows(pool, "SELECT sample_id FROM samples WHERE reason = 'withdrawn'")}
    assert len(gone) == 7
    asked = add_again(pool, served, [by_url, by_id, by_hash], [missing], tmp_path, curate)
    assert not {by_url["url"], by_id["url"], by_hash["url"], missing} & asked, "what is barred by its URL is not requested"
    assert elsewhere(by_hash["url"]) in asked, "what is barred by its bytes is found out by a request"
    before = len(served.server.requests())
    assert curate("retry", pool, "--reason", "http_not_found").code == 0
    retried = [served.server.url(request.path) for request in served.server.requests()[before:] if request.path != "/robots.txt"]
    assert set(retried) == {other}
    assert curate("retry", pool).code == 0
    assert curate(*served.arguments(pool, 0.1)).code == 0
    assert curate("purge", pool, "--where", "outcome = 'dropped' AND tar_file IS NOT NULL", "--yes").code == 0
    nothing_is_back(pool, secrets, curate)
    everything_can_be_looked_at(pool, by_url, curate)


def add_again(pool: Path, served: Served, withheld: list[dict], failed: list[str], folder: Path, curate: Callable) -> set[str]:
    """Adds a list with the same rows, other captions of the same URLs, and the same images under other URLs; returns what was asked."""
    lines = [{"url": url, "caption": "other words"} for url in [*(pair["url"] for pair in withheld), *failed]]
    lines += [{"url": elsewhere(pair["url"]), "caption": "at another address"} for pair in withheld]
    known = pq.read_table(served.listed).to_pylist()
    lines += [{"url": line["url"], "caption": line["caption"]} for line in known if line["url"] in {pair["url"] for pair in withheld}]
    pq.write_table(pa.Table.from_pylist([{**line, "similarity": 1.0} for line in lines]), folder / "again.parquet")
    before = len(served.server.requests())
    said = curate("add", pool, folder / "again.parquet")
    assert said.code == 0, said.err
    found = rows(pool, f"SELECT url, reason, tar_file FROM samples WHERE part > {parts_before(pool)}")
    assert len(found) == len(lines) and {line["reason"] for line in found} == {"withdrawn"} and not any(line["tar_file"] for line in found)
    return {f"http://{request.host.split(':')[0]}:{served.server.url('/').split(':')[-1].rstrip('/')}{request.path}"
            for request in served.server.requests()[before:]}  # fmt: skip


def parts_before(pool: Path) -> int:
    """The last part of the lists that were there."""
    return int(rows(pool, "SELECT max(part) AS last FROM samples WHERE caption LIKE 'told otherwise%'")[0]["last"])


def nothing_is_back(pool: Path, secrets: list[scan.Secret], curate: Callable) -> None:
    """By the test's own search and by the command's."""
    for hidden in secrets:
        assert scan.places(pool, hidden) == []
    barred = {value for line in rows(pool, "SELECT sample_id, sha256 FROM suppressed") for value in line.values() if value}
    assert not barred & {
        value for line in rows(pool, "SELECT sample_id, sha256 FROM samples WHERE tar_file IS NOT NULL") for value in line.values()
    }
    assert curate("takedown", pool, "--prove").code == 0


def values(pool: Path, select: str) -> set[str]:
    return {value for line in rows(pool, select) for value in line.values() if value}


def everything_can_be_looked_at(pool: Path, withdrawn: dict, curate: Callable) -> None:
    """Status, history, report and funnel of a pool with all of this behind it."""
    said = curate("status", pool)
    assert said.code == 0 and "interrupted" not in said.out, said.out
    told = curate("history", pool, withdrawn["url"])
    assert told.code == 0 and "withdrawn" in told.out and "told otherwise" not in told.out, told.out
    assert curate("report", pool).code == 0
    counted = json.loads(curate("funnel", pool, "--format", "json").out)
    assert counted["rows"] == ROWS + SHARED + ADDED and counted["pending"] == 0
    library.open(pool).verify().require()
