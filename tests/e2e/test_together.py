"""Three commands at once on one pool: a list is added, another is scored, a policy is applied; and somebody reads all the while."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

import curate
from tests.e2e.reader import reading
from tests.e2e.runs import ROWS, ask, finish, site, start


def test_adding_scoring_and_filtering_run_side_by_side(tmp_path: Path) -> None:
    pool, first, second = tmp_path / "pool", tmp_path / "first.parquet", tmp_path / "second.parquet"
    with site(tmp_path / "site") as served:
        listed = pq.read_table(served.list_path)
        pq.write_table(listed.slice(0, ROWS // 2), first)
        pq.write_table(listed.slice(ROWS // 2), second)
        for step in ("plan", "fetch"):
            finish([*served.command(pool, f"input.path={first}"), "--only", step], tmp_path / "log")
        commands = {
            "add": ["add", str(pool), str(second)],
            "score": ["score", str(pool)],
            "filter": ["filter", str(pool), "--where", "original_width >= 100", "name=live"],
        }
        words = {name: [sys.executable, "-m", "curate", *command] for name, command in commands.items()}
        with reading(pool) as reader:
            running = {name: start(command, tmp_path / name) for name, command in words.items()}
            codes = {name: process.wait() for name, process in running.items()}
            assert codes == dict.fromkeys(words, 0), {name: (tmp_path / name).read_text()[-1500:] for name in words}
    assert reader.complaints == [] and reader.looks > 3
    for name in ("score", "filter"):  # what came in meanwhile
        subprocess.run(words[name], check=True, capture_output=True)
    assert ask("verify", pool)["ok"]
    told = curate.open(pool).sql("SELECT count(*) AS n, count(*) FILTER (outcome = 'pending') AS pending FROM samples").rows()
    assert told == [{"n": ROWS, "pending": 0}]
