"""A pool on disk: durable, content-named, readable by others."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from curate import schema
from curate.errors import LocalFault, SchemaError, UsageError
from curate.lease import claim
from curate.stage import PartFile
from curate.store import Pool

ROWS = schema.table("rows")


def rows(*urls: str) -> pa.Table:
    return pa.table({"row": pa.array(range(len(urls)), pa.int32()), "url": list(urls)})


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "a pool <é>")


def write(pool: Pool, part: int, *urls: str, basis: str = "b") -> PartFile:
    return pool.write_part("rows", part, rows(*urls), basis)


def test_create_opens_an_existing_pool_and_refuses_a_folder_of_other_things(tmp_path: Path, pool: Pool) -> None:
    assert Pool.create(pool.path).path == pool.path
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        Pool.create(tmp_path / "other")
    with pytest.raises(UsageError, match="is no pool"):
        Pool.open(tmp_path / "other")


def test_a_path_that_delta_readers_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="percent sign"):
        Pool.create(tmp_path / "100%25")


@pytest.mark.parametrize("sign", ["*", "?"])
def test_a_path_that_duckdb_takes_for_a_pattern_is_refused(tmp_path: Path, sign: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        Pool.create(tmp_path / f"pool{sign}")


def test_a_pool_whose_making_was_killed_is_made_by_the_same_call(tmp_path: Path) -> None:
    code = "import os, sys; from curate import store; store.os.replace = lambda *_: os.kill(os.getpid(), 9); store.Pool.create(sys.argv[1])"
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path / "pool")], check=False)
    assert died.returncode == -9 and not (tmp_path / "pool" / "pool.json").exists()
    assert Pool.create(tmp_path / "pool").tables() == []


def test_a_newer_format_is_refused(pool: Pool) -> None:
    (pool.path / "pool.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="newer curate"):
        Pool.open(pool.path)


def test_equal_values_give_equal_names_and_the_name_holds_the_sha256(pool: Pool) -> None:
    first, second, third = write(pool, 3, "a", "b"), write(pool, 3, "a", "b"), write(pool, 3, "a", "c")
    assert first == second and first.path != third.path
    stored = pool.table_folder("rows") / first.path
    assert first.path == f"00003-{hashlib.sha256(stored.read_bytes()).hexdigest()}.parquet"


def test_snapshots_are_pinned_and_a_part_is_replaced_in_one_commit(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}) as run:
        run.commit("rows", [write(pool, part, "a", "b") for part in (1, 0)])
        before = pool.snapshot("rows")
        run.commit("rows", [write(pool, 1, "a", "z", basis="new")])
    after = pool.snapshot("rows")
    assert before.read(["part", "row", "url"]).to_pydict() == {"part": [0, 0, 1, 1], "row": [0, 1, 0, 1], "url": ["a", "b", "a", "b"]}
    assert after.read(["url"]).column("url").to_pylist() == ["a", "b", "a", "z"]
    assert after.version == before.version + 1
    assert (after.by_part[0].basis, after.by_part[1].basis) == ("b", "new")
    assert pool.snapshot("rows", before.version).files == before.files


def test_a_plain_delta_reader_sees_the_table(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}) as run:
        run.commit("rows", [write(pool, 0, "a"), write(pool, 1, "b")])
    found = DeltaTable(str(pool.table_folder("rows"))).to_pyarrow_table()
    assert sorted(found.column("url").to_pylist()) == ["a", "b"]
    assert found.schema.field("part").type == pa.int32()


def test_a_wave_committed_twice_changes_nothing(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}) as run:
        files = [write(pool, part, "a") for part in range(3)]
        run.commit("rows", files)
        version = pool.snapshot("rows").version
        run.commit("rows", files)
    assert pool.snapshot("rows").version == version
    assert pool.snapshot("rows").read(["part"]).num_rows == 3


def test_replace_all_leaves_exactly_the_given_files(pool: Pool) -> None:
    with claim(pool, {"rows": ROWS}) as run:
        run.commit("rows", [write(pool, part, "a") for part in range(3)])
        kept = write(pool, 1, "a")
        run.replace_all("rows", [kept])
    assert pool.snapshot("rows").files == (kept,)


def test_a_table_that_does_not_conform_names_the_column(pool: Pool) -> None:
    with pytest.raises(SchemaError, match=r"unexpected column 'ulr'; did you mean 'url'"):
        pool.write_part("rows", 0, pa.table({"row": pa.array([0], pa.int32()), "ulr": ["a"]}), "b")
    with pytest.raises(SchemaError, match=r"'source_row' should be int64"):
        pool.write_part("rows", 0, pa.table({"row": pa.array([0], pa.int32()), "source_row": ["a"]}), "b")
    with pytest.raises(SchemaError, match="'row' .* is missing"):
        pool.write_part("rows", 0, pa.table({"url": ["a"]}), "b")


def test_the_log_and_the_data_are_synced_before_and_after_the_commit(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order that survives a power cut; issue 4 checks the same from a system call trace."""
    import os

    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))[1])
    with claim(pool, {"rows": ROWS}) as run:
        synced.clear()
        run.commit("rows", [write(pool, 0, "a")])
    kinds = ["tmp" if "/tmp/" in name.removeprefix(str(pool.path)) else Path(name).name for name in synced]
    assert kinds[:2] == ["tmp", "rows"]
    assert kinds[2].endswith(".json") and kinds[3] == "_delta_log"


def test_a_disk_that_refuses_is_a_local_fault(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LocalFault, match="No space left"):
        write(pool, 0, "a")


def test_documents_round_trip(pool: Pool) -> None:
    assert pool.read_document("models") is None
    pool.write_document("models", {"a": 1})
    pool.write_document("models", {"a": 2})
    assert pool.read_document("models") == {"a": 2}
    assert [path.name for path in (pool.path / "documents").iterdir()] == ["models.json"]
