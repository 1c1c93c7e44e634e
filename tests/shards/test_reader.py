"""Readers: every sample once, split and order as promised, corrupt shards named, resume on another number of ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.catalog.views import connect
from curate.errors import AccountingError, SchemaError, UsageError
from curate.shards.index import read_index
from curate.shards.order import permutation, ranks, words_of
from curate.shards.reader import Consumer, ShardReader, assigned
from curate.shards.selection import Selection
from curate.store import Pool
from tests.shards import pools
from tests.shards.pools import Sample
from tests.shards.test_pack import apply, kept_keys, packed

ROWS = "SELECT tar_file, tar_offset, tar_size, caption, sample_id, image_sha256 FROM samples WHERE tar_file IS NOT NULL ORDER BY part, row"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    samples = [[Sample(caption=f"caption {part} {row}") for row in range(16)] for part in range(4)]
    pool = pools.build(tmp_path_factory.mktemp("readers") / "pool", samples)
    apply(pool)
    packed(pool)
    return pool


@pytest.fixture
def folder(pool: Pool, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pool.path / "shards" / "mine", tmp_path / "elsewhere"))


def names(samples) -> list[str]:
    return [sample.sample_id for sample in samples]


def test_every_sample_comes_once_an_epoch_with_its_own_image(pool: Pool, folder: Path) -> None:
    reader, kept = ShardReader(folder, verify="sha256"), kept_keys(pool)
    found = list(reader.epoch(0))
    assert len(found) == len(reader) == 64 and set(names(found)) == set(kept)
    for image, caption, name in found:
        part, row = kept[name]
        assert (image, caption) == (pools.jpeg(part * 100_000 + row), f"caption {part} {row}")


def test_order_depends_on_seed_and_epoch_only(folder: Path) -> None:
    first = names(ShardReader(folder).epoch(3))
    assert names(ShardReader(folder).epoch(3)) == first
    assert names(ShardReader(folder).epoch(4)) != first != names(ShardReader(folder, seed=1).epoch(3))


@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (2, 1), (3, 2), (5, 3), (64, 2)])
def test_consumers_share_an_epoch_evenly(folder: Path, world_size: int, workers: int) -> None:
    reader, whole = ShardReader(folder), names(ShardReader(folder).epoch(2))
    consumers = [Consumer(rank, world_size, worker, workers) for rank in range(world_size) for worker in range(workers)]
    shares = [names(reader.epoch(2, consumer)) for consumer in consumers]
    assert [name for share in shares for name in share] == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert names(reader.epoch(2, consumers[-1], start=3)) == shares[-1][3:]


def test_consumers_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="rank 2 of 2"):
        Consumer(rank=2, world_size=2)


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_corrupt_shard_is_named_or_lost_whole(folder: Path) -> None:
    shard = read_index(folder).shards[1]
    damage(folder / shard.tar, shard.bytes - 2000)
    assert len(list(ShardReader(folder).epoch(0))) == 64  # sizes are right; only hashes tell
    with pytest.raises(AccountingError, match=rf"{shard.tar} is not the one that was packed"):
        list(ShardReader(folder, verify="sha256").epoch(0))
    reader = ShardReader(folder, verify="sha256", on_corrupt="skip")
    assert len(list(reader.epoch(0))) == 54 and reader.lost == {"00001.tar": 10}
    assert len(list(reader.epoch(1))) == 54 and reader.lost == {"00001.tar": 10}


@pytest.mark.parametrize("harm", ["cut", "missing", "link", "header", "parquet"])
def test_what_is_no_whole_regular_shard_is_refused(folder: Path, harm: str) -> None:
    tar = folder / "00002.tar"
    if harm == "cut":
        os.truncate(tar, 5000)
    elif harm == "header":
        damage(tar, 3)
    elif harm == "parquet":
        size = (folder / "00002.parquet").stat().st_size
        (folder / "00002.parquet").write_bytes(b"x" * size)
    else:
        moved = tar.rename(folder / "moved")
        if harm == "link":
            tar.symlink_to(moved)
    with pytest.raises(AccountingError, match=r"00002\.(tar|parquet)"):
        list(ShardReader(folder).epoch(0))


def test_an_index_that_names_other_files_is_refused(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"00001.tar"', '"../../00001.tar"'))
    with pytest.raises(AccountingError, match="not a shard's file name"):
        ShardReader(folder)
    path.unlink()
    with pytest.raises(UsageError, match="no packed shards"):
        ShardReader(folder)


def selection(pool: Pool, seed: int = 0) -> Selection:
    with connect(pool) as connection:
        return Selection(pool.path, connection.sql(ROWS).to_arrow_table(), seed=seed)


def test_a_selection_reads_unmodified_part_tars(pool: Pool) -> None:
    chosen, kept = selection(pool), kept_keys(pool)
    found = list(chosen.epoch(0))
    assert len(chosen) == 64 and set(names(found)) == set(kept)
    assert all(image == pools.jpeg(kept[name][0] * 100_000 + kept[name][1]) for image, _, name in found)
    assert names(chosen.epoch(0)) == names(found) != names(chosen.epoch(1))
    assert names(selection(pool, seed=1).epoch(0)) != names(found)


def test_a_selection_resumes_at_the_exact_sample_on_another_number_of_ranks(pool: Pool) -> None:
    chosen = selection(pool)
    whole = names(chosen.epoch(5))
    steps = [
        [names(chosen.epoch(5, Consumer(rank, 2)))[:10] for rank in range(2)],
        [names(chosen.epoch(5, Consumer(r, 3), 20)) for r in range(3)],
    ]
    before = [name for pair in zip(*steps[0], strict=True) for name in pair]
    after = [steps[1][n % 3][n // 3] for n in range(44)]
    assert before + after == whole


@pytest.mark.parametrize(("ranks_", "workers", "chunk", "start"), [(1, 2, 4, 0), (2, 3, 5, 7), (3, 1, 2, 60)])
def test_workers_in_turn_restore_their_ranks_order(ranks_: int, workers: int, chunk: int, start: int) -> None:
    for rank in range(ranks_):
        whole = assigned(64, start, Consumer(rank, ranks_), chunk).tolist()
        queues = [assigned(64, start, Consumer(rank, ranks_, w, workers), chunk).tolist() for w in range(workers)]
        merged: list[int] = []
        for turn in range(64):
            merged += queues[turn % workers][(turn // workers) * chunk : (turn // workers + 1) * chunk]
        assert merged == whole == list(range(start + rank, 64, ranks_))


def test_a_selection_refuses_what_it_cannot_read(pool: Pool, tmp_path: Path) -> None:
    with connect(pool) as connection:
        rows = connection.sql(ROWS).to_arrow_table()
    with pytest.raises(SchemaError, match="tar_offset"):
        Selection(pool.path, rows.drop_columns(["tar_offset"]))
    wrong = rows.set_column(rows.schema.get_field_index("image_sha256"), "image_sha256", pa.array(["0" * 64] * 64))
    with pytest.raises(AccountingError, match=r"tars/.*sha256"):
        list(Selection(pool.path, wrong).epoch(0))
    outside = rows.set_column(0, "tar_file", pa.array(["../secret.tar"] * 64))
    with pytest.raises(AccountingError, match="inside the pool"):
        list(Selection(pool.path, outside).epoch(0))


def test_orders_are_fixed_for_good() -> None:
    assert permutation(10, 0, 0).tolist() == [0, 9, 1, 6, 3, 5, 4, 2, 8, 7]
    words = words_of([pools.sample_id(0, n) for n in range(50)])
    places = ranks(words, 7)
    assert sorted(places.tolist()) == list(range(50))
    shuffled = np.random.default_rng(0).permutation(50)
    assert ranks(words[shuffled], 7).tolist() == places[shuffled].tolist()
    with pytest.raises(AccountingError, match="32 hex digits"):
        words_of(["../../etc/passwd"])


def test_reading_needs_no_torch() -> None:
    code = "import sys, curate.shards.reader, curate.shards.selection, curate.shards.pack; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
