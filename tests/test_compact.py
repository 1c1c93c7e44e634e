"""Copies of many parts in few files: read in place of the parts' own, exact in every version, in the way of nothing that is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as library
from curate import schema as schemas
from curate.catalog.views import connect
from curate.compact import CompactReport, compact, sources, unused
from curate.engines.base import EngineSettings
from curate.errors import Fenced, PoolBusy
from curate.lease import claim
from curate.removal.leftovers import sweep
from curate.run import run_phase, stale_parts
from curate.stage import Crew, PartReport, PartTask, Phase
from curate.store import Pool
from tests.dedupe.arrays import inline
from tests.engines.phases import Groups
from tests.engines.pools import plan
from tests.removal import handmade

CREW = Crew(inline, 1 << 19)
CAPTIONS = {part: [f"{part}/{row}" for row in range(3)] for part in range(6)}
TOLD = 'SELECT part, row, caption FROM "rows" ORDER BY ALL'


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Six parts of three rows."""
    made = Pool.create(tmp_path / "pool")
    plan(made, CAPTIONS)
    return made


def compacted(pool: Pool, file_rows: int = 9) -> CompactReport:
    with claim(pool, {}) as run:
        return compact(pool, run, CREW, file_rows=file_rows)


def read_files(pool: Pool, table: str, version: int | None = None) -> list[str]:
    """What SQL reads: numbers of the parts in each file."""
    return [",".join(str(file.part) for file in source.members) for source in sources(pool, pool.snapshot(table, version))]


def captions(pool: Pool, version: int | None = None) -> list[str]:
    with connect(pool, versions=None if version is None else {"rows": version}) as connection:
        return [line[2] for line in connection.execute(TOLD).fetchall()]


def change(pool: Pool, part: int, *, words: str) -> None:
    """Replaces a part as a retry does."""
    told = pool.snapshot("rows").read(parts=[part])
    at = told.column_names.index("caption")
    with claim(pool, {"rows": schemas.table("rows")}) as run:
        run.commit("rows", [pool.write_part("rows", part, told.set_column(at, "caption", pa.array([words] * 3)), "list")])


def test_few_files_hold_the_rows_of_many_and_a_second_call_writes_nothing(pool: Pool) -> None:
    before, digest = captions(pool), library.open(pool.path).digest()
    found = compacted(pool)
    assert (found.tables, found.written, found.before, found.part_files) == (1, 2, 0, 6) and found.bytes > 0
    assert read_files(pool, "rows") == ["0,1,2", "3,4,5"]
    assert captions(pool) == before and library.open(pool.path).digest() == digest
    for source in sources(pool, pool.snapshot("rows")):
        assert pq.read_table(source.path, partitioning=None).equals(
            pool.snapshot("rows").read(parts=[file.part for file in source.members]).replace_schema_metadata(None)
        )
    again = compacted(pool)
    assert (again.written, again.before, again.bytes) == (0, 2, 0)
    verified = library.open(pool.path).verify()
    assert verified.ok, verified.text()


def test_sql_does_not_open_the_files_that_a_copy_stands_in_for(pool: Pool) -> None:
    compacted(pool)
    before = captions(pool)
    pool.path.joinpath("tables/rows", pool.snapshot("rows").files[0].path).write_bytes(b"not read")
    assert captions(pool) == before


def test_a_part_that_changed_is_read_from_its_own_file_and_older_versions_as_they_were(pool: Pool) -> None:
    compacted(pool)
    version, before = pool.snapshot("rows").version, captions(pool)
    change(pool, 4, words="new")
    assert read_files(pool, "rows") == ["0,1,2", "3", "4", "5"]
    assert captions(pool) == [*before[:12], "new", "new", "new", *before[15:]]
    assert read_files(pool, "rows", version) == ["0,1,2", "3,4,5"] and captions(pool, version) == before
    found = compacted(pool)
    assert (found.written, found.before) == (1, 1) and read_files(pool, "rows") == ["0,1,2", "3,4,5"]
    assert captions(pool)[12] == "new" and captions(pool, version) == before


def test_parts_of_a_further_list_follow_in_files_of_their_own(pool: Pool) -> None:
    compacted(pool, file_rows=12)
    assert read_files(pool, "rows") == ["0,1,2,3", "4,5"]
    plan(pool, {part: ["a", "b", "c"] for part in range(6, 9)}, "more")
    assert read_files(pool, "rows") == ["0,1,2,3", "4,5", "6", "7", "8"]
    compacted(pool, file_rows=12)
    assert read_files(pool, "rows") == ["0,1,2,3", "4,5,6,7", "8"]
    assert len(captions(pool)) == 27


def test_what_is_done_stays_done_and_only_what_changed_is_stale(pool: Pool) -> None:
    with claim(pool, {}) as run:
        run_phase(pool, run, Groups(), EngineSettings(workers=1))
    compacted(pool)
    assert stale_parts(pool, Groups()) == ([], 6) and read_files(pool, "groups_alone") == ["0,1,2", "3,4,5"]
    change(pool, 2, words="new")
    assert [task.part for task in stale_parts(pool, Groups())[0]] == [2]


def test_a_table_that_grew_is_copied_with_nulls_where_a_part_lacks_the_column(pool: Pool) -> None:
    grown = pa.schema([*schemas.table("rows"), pa.field("source.mood", pa.string())])
    with claim(pool, {"rows": schemas.table("rows")}) as run:
        run.grow("rows", grown)
        had = pool.snapshot("rows")
        told = had.read([name for name in had.schema.names if name != "source.mood"], [5])  # type: ignore[union-attr]
        told = told.append_column("source.mood", pa.array(["glad"] * 3))
        run.commit("rows", [pool.write_part("rows", 5, told, "list", grown)])
    compacted(pool, file_rows=99)
    assert read_files(pool, "rows") == ["0,1,2,3,4,5"]
    with connect(pool) as connection:
        assert connection.execute('SELECT "source.mood", count(*) FROM "rows" GROUP BY 1 ORDER BY 1').fetchall() == [
            ("glad", 3),
            (None, 15),
        ]


def test_a_table_that_a_run_is_writing_is_refused(pool: Pool) -> None:
    with claim(pool, {"rows": schemas.table("rows")}), pytest.raises(PoolBusy, match="is writing table 'rows'"):
        compacted(pool)


def test_a_run_that_was_taken_over_leaves_no_copy(pool: Pool) -> None:
    def each(phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport]:
        yield from inline(phase, tasks)
        (pool.path / "leases/rows.json").unlink()  # as of a driver that was not heard of for too long
        change(pool, 0, words="of another run")

    with claim(pool, {}) as run, pytest.raises(Fenced):
        compact(pool, run, Crew(each, 1), file_rows=9)
    assert not list((pool.path / "compacted").rglob("*.parquet"))


def test_sweep_deletes_copies_that_the_newest_version_does_not_read(pool: Pool) -> None:
    compacted(pool)
    change(pool, 4, words="new")
    (gone,) = unused(pool)
    assert sweep(pool).files == 0, "it is young"
    assert sweep(pool, older_than_seconds=-60).files == 1 and not gone.exists()
    assert read_files(pool, "rows") == ["0,1,2", "3", "4", "5"] and len(captions(pool)) == 18


def test_a_takedown_takes_the_copies_along_and_proves_it(tmp_path: Path) -> None:
    pool = handmade.build(tmp_path / "pool")
    compacted(pool, file_rows=99)
    assert len(read_files(pool, "rows")) == len(read_files(pool, "fetched")) == len(read_files(pool, "scores_base")) == 1
    secret = handmade.PARTS[0][2]
    told = [path for path in pool.path.rglob("*.parquet") if secret.caption in str(pq.read_table(path, partitioning=None).to_pydict())]
    assert any("compacted" in path.parts for path in told)
    report = library.open(pool.path).takedown(where=f"sample_id = '{secret.sample_id}'")
    assert report.proof is not None and report.proof.ok, report.proof
    left = [path for path in pool.path.rglob("*.parquet") if secret.caption in str(pq.read_table(path, partitioning=None).to_pydict())]
    assert not left and not [path for path in unused(pool) if path.parent.name in ("rows", "fetched", "scores_base")]
    with claim(pool, {}) as run:
        compact(pool, run, CREW)
    assert library.open(pool.path).verify().ok


def test_verify_finds_a_copy_that_holds_other_rows(pool: Pool) -> None:
    compacted(pool)
    first, second = (source.path for source in sources(pool, pool.snapshot("rows")))
    first.write_bytes(second.read_bytes())
    found = library.open(pool.path).verify(deep=False)
    assert not found.ok and "does not hold the rows of the parts in its name" in found.text()


def test_a_file_that_is_none_of_ours_is_not_read(pool: Pool) -> None:
    compacted(pool)
    (pool.path / "compacted/rows/notes.txt").write_text("mine")
    assert len(captions(pool)) == 18


@pytest.mark.long
def test_killed_at_any_moment_it_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """`kill -9` of the command after 0, 1, 2 … copies; sql answers at each moment, and the last call does what is left."""
    pool = Pool.create(tmp_path / "pool")
    plan(pool, {part: [f"{part}/{row}" for row in range(20_000)] for part in range(150)})
    before, digest = captions(pool), library.open(pool.path).digest()
    command = [sys.executable, "-m", "curate", "compact", str(pool.path), "workers=1"]
    kills = 0
    for copies in range(3):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((pool.path / "compacted").rglob("*.parquet"))) < copies:
            time.sleep(0.005)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        process.wait()
        assert captions(pool) == before
    assert kills
    subprocess.run(command, check=True)
    assert len(read_files(pool, "rows")) == 3 and not unused(pool)
    assert captions(pool) == before and library.open(pool.path).digest() == digest
    assert library.open(pool.path).verify().ok
