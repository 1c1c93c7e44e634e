"""A pool after its first run, by its commands: retry, add, and the recipe again. Killed in between, it ends as if nothing had happened."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate.catalog.digest import digest
from curate.catalog.funnel import funnel
from curate.catalog.verify import verify
from curate.cli.app import execute
from curate.demo.corpus import write_list
from curate.demo.scenes import build
from curate.demo.server import Server
from curate.demo.settings import ScenesSettings, ServerSettings
from curate.lease import claim
from curate.recipe import load_recipe, run_recipe
from curate.run import run_phase
from curate.store import Pool
from tests.e2e.runs import ask, start
from tests.fetch.phases import Troubled, path_of

ROWS, FIRST, LOST = 150, 100, 30


@dataclass(frozen=True)
class Later:
    """A served corpus, the two halves of its list, and a pool of the first that an outage left incomplete."""

    server: Server
    folder: Path

    @property
    def pool(self) -> Path:
        return self.folder / "pool"

    @property
    def settings(self) -> list[str]:
        """Of the recipe, as the person gives them each time."""
        return [
            f"input.path={self.folder / 'first.parquet'}", "plan.rows_per_part=25", 'fetch.allow_addresses=["127.0.0.0/8"]',
            "fetch.host_interval_seconds=0.02", "filter.where=image_min_side >= 200", "pack.shard_samples=50",
            "report.enabled=false", "engine.workers=2", "engine.wave_parts=1",
        ]  # fmt: skip

    def command(self, pool: Path, name: str, *arguments: object) -> list[str]:
        """`curate NAME POOL …` as a process's arguments."""
        given = ["--pool", str(pool), *self.settings] if name == "run" else [str(pool)]
        words = ["ingest"] if name == "run" else []
        return [sys.executable, "-m", "curate", name, *words, *given, *map(str, arguments)]

    def requests(self) -> Counter[str]:
        return Counter(request.path for request in self.server.requests())


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Later]:
    folder = tmp_path_factory.mktemp("later")
    corpus = build(folder / "corpus", ScenesSettings(rows=ROWS, seed=9))
    with Server(corpus, folder / "server.log", ServerSettings(count_attempts=False, hosts=20)) as server:
        rows = pq.read_table(write_list([corpus], folder, server.url))
        pq.write_table(rows.slice(0, FIRST), folder / "first.parquet")
        more = pa.concat_tables([rows.slice(60, 40), rows.slice(FIRST)])
        pq.write_table(more.append_column("mood", pa.array(["glad"] * more.num_rows)), folder / "more.parquet")
        found = Later(server, folder)
        job = run_recipe(load_recipe("ingest"), found.pool, found.settings, only="plan")
        lost = sorted({path_of(url) for url in rows.slice(0, FIRST)["url"].to_pylist()})[:LOST]
        with claim(job.pool, {}) as run:
            run_phase(job.pool, run, Troubled(job.settings.fetch, reason="dns_timeout", lost=tuple(lost)), job.settings.engine)
        here(found.command(found.pool, "run"))
        failed = library.open(found.pool).sql("SELECT count(*) AS n FROM samples WHERE reason = 'dns_timeout'").rows()
        assert failed[0]["n"] >= LOST
        yield found


def here(command: list[str]) -> None:
    """Gives the command in this process, which has loaded everything already."""
    assert execute(command[3:]) == 0


def kill_after(later: Later, command: list[str], requests: int, log: Path) -> None:
    """Starts the command and kills it with SIGKILL once the server has seen so many of its requests."""
    before = sum(later.requests().values())
    process = start(command, log)
    until = time.monotonic() + 120
    while sum(later.requests().values()) < before + requests:
        assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def digest_after(later: Later, pool: Path, give: Callable[[list[str]], None]) -> dict[str, str]:
    """Retries, adds, compacts in between, and runs the recipe again; `give` gives the commands that fetch."""
    give(later.command(pool, "retry", "--reason", "dns_timeout"))
    here(later.command(pool, "compact"))
    give(later.command(pool, "add", later.folder / "more.parquet"))
    asked = later.requests()
    here(later.command(pool, "run"))
    assert later.requests() == asked, "the recipe brings all parts up to date without a request"
    found = Pool.open(pool)
    parts = {name: len(found.snapshot(name).by_part) for name in ("rows", "fetched", "telemetry_fetch", "scores_base", "groups_pixels")}
    assert len(set(parts.values())) == 1, parts
    verify(found).require()
    return digest(found)


@pytest.mark.long  # `make kill-sweep` runs it too; what a resumed retry and add ask for is tested in tests/fetch
def test_killed_in_the_middle_of_retry_and_add_the_pool_is_the_same(later: Later, tmp_path: Path) -> None:
    calm, killed = (Path(shutil.copytree(later.pool, tmp_path / name)) for name in ("calm", "killed"))
    undisturbed = digest_after(later, calm, here)

    def disturbed(command: list[str]) -> None:
        kill_after(later, command, 8, tmp_path / "log")
        here(command)

    assert digest_after(later, killed, disturbed) == undisturbed
    counted = funnel(Pool.open(killed))
    assert (counted.rows, counted.pending) == (ROWS + 40, 0)
    assert not [name for stage in counted.stages for name in stage.reasons if name.reason == "dns_timeout"]


def test_commands_say_what_they_did_and_what_comes_next(later: Later, tmp_path: Path, curate: Callable) -> None:
    pool, before = Path(shutil.copytree(later.pool, tmp_path / "pool")), later.requests()
    said = curate("compact", pool)
    assert said.code == 0 and "files to read in place of" in said.out
    said = curate("retry", pool, "--reason", "dns_timeout")
    assert said.code == 0 and f"{LOST} URLs asked again" in said.out and "→ 0" in said.out
    assert "curate score" in said.out and "curate run ingest" in said.out
    assert sum((later.requests() - before).values()) == LOST
    assert "nothing to ask again" in curate("retry", pool, "--reason", "dns_timeout").out
    said = curate("retry", pool, "--reason", "opt_out")
    assert said.code == 2 and said.err.count("\n") == 1 and "not asked again" in said.err
    before = later.requests()
    said = curate("add", pool, later.folder / "more.parquet")
    assert said.code == 0 and "40 rows are there already" in said.out and "from part 4 on" in said.out
    assert set(later.requests() - before) <= {path_of(url) for url in pq.read_table(later.folder / "more.parquet")["url"].to_pylist()[40:]}
    again = ask("add", pool, later.folder / "more.parquet")
    assert again["rows"]["is_new"] is False and again["fetch"]["parts"] == 0
    assert curate("report", pool).code == 0
    verified = curate("verify", pool)
    assert verified.code == 0, verified.out
    assert curate("history", pool, pq.read_table(later.folder / "more.parquet")["url"][60].as_py()).code == 0
    said = curate("run", "ingest", "--pool", pool, *[one.replace("first.parquet", "more.parquet") for one in later.settings])
    assert said.code == 2 and "curate add" in said.err
