"""Batches: who gets which samples, how images are cropped, and that a step's batch does not depend on where one begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import torch

from curate.demo.scenes import scenes
from curate.errors import AccountingError, UsageError
from curate.progress import Silent
from curate.shards.reader import ShardReader
from curate.shards.selection import Selection
from curate.train.augment import random_crop, shrink, working_side
from curate.train.data import Batch, Cached, Recipe, digest, stream
from tests.shards import pools
from tests.shards.test_pack import apply, packed
from tests.train.pictures import selection

SIDE = 32


def recipe(batch_size: int = 8, world_size: int = 1, rank: int = 0) -> Recipe:
    return Recipe(open_clip.SimpleTokenizer(context_length=24), SIDE, (0.8, 1.0), 4, batch_size, world_size, rank)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    return selection(tmp_path_factory.mktemp("chosen"), scenes(43, 0, "eval"), [f"number {n}" for n in range(43)], seed=2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    samples = [[pools.Sample(caption=f"number {part * 16 + row}") for row in range(16)] for part in range(4)]
    pool = pools.build(tmp_path_factory.mktemp("shards") / "pool", samples)
    apply(pool)
    packed(pool)
    return ShardReader(pool.path / "shards" / "mine", seed=2)


def captions(batch: Batch) -> list[str]:
    tokenizer = open_clip.SimpleTokenizer()
    words = [tokenizer.decode([token for token in line.tolist() if 0 < token < 49406]) for line in batch.tokens]
    return ["".join(word.split()) for word in words]


def equal(first: list[Batch], second: list[Batch]) -> bool:
    assert len(first) == len(second)
    return all(torch.equal(a.images, b.images) and torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))


def test_a_selection_streams_every_sample_at_most_once_an_epoch(chosen: Selection) -> None:
    found = [captions(batch) for batch in stream(chosen, recipe(), 0, range(10))]
    assert [len(batch) for batch in found] == [8] * 10
    for epoch in (found[:5], found[5:]):
        assert len({name for batch in epoch for name in batch}) == 40
    assert found[:5] != found[5:]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_selection_gives_a_step_the_same_batch_whatever_the_start_and_the_workers(chosen: Selection, workers: int) -> None:
    whole = list(stream(chosen, recipe(), 0, range(13)))
    for start in (0, 4, 5, 7):
        assert equal(list(stream(chosen, recipe(), workers, range(start, 13))), whole[start:])


def test_two_processes_share_the_selection_of_one(chosen: Selection) -> None:
    alone = [sorted(captions(batch)) for batch in stream(chosen, recipe(8), 0, range(7))]
    ranks = [list(stream(chosen, recipe(4, 2, rank), 0, range(7))) for rank in (0, 1)]
    assert [sorted(captions(a) + captions(b)) for a, b in zip(*ranks, strict=True)] == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_go_on_where_they_were(shards: ShardReader, workers: int) -> None:
    whole = list(stream(shards, recipe(), workers, range(20)))
    for start in (3, 8, 13):
        assert equal(list(stream(shards, recipe(), workers, range(start, 20))), whole[start:])
    first_epoch = {name for batch in whole[:8] for name in captions(batch)}
    assert len(first_epoch) == 64


def test_in_memory_a_step_has_the_same_samples_on_any_number_of_processes(chosen: Selection) -> None:
    alone = Cached.load(chosen, recipe(8), 2, Silent())
    shared = [dataclasses.replace(alone, recipe=recipe(4, 2, rank)) for rank in (0, 1)]
    for one, a, b in zip(alone.batches(range(12)), *(cached.batches(range(12)) for cached in shared), strict=True):
        assert torch.equal(one.images, torch.cat([a.images, b.images]))
        assert torch.equal(one.tokens, torch.cat([a.tokens, b.tokens]))
    assert equal(list(alone.batches(range(7, 12))), list(alone.batches(range(12)))[7:])


def test_damaged_images_are_left_out_in_memory_and_replaced_when_streamed(tmp_path: Path) -> None:
    good = selection(tmp_path, scenes(20, 1, "eval"), [f"number {n}" for n in range(20)])
    tar = tmp_path / "part.tar"
    content = bytearray(tar.read_bytes())
    for line in good.rows.slice(0, 3).to_pylist():
        content[line["tar_offset"] : line["tar_offset"] + 400] = bytes(400)
    tar.write_bytes(content)
    kept = Cached.load(good, recipe(8), 2, Silent())
    assert len(kept.images) == 17
    streamed = [captions(batch) for batch in stream(good, recipe(20), 0, range(1))]
    assert set(streamed[0]) == {f"number{n}" for n in range(3, 20)} and len(streamed[0]) == 20
    with pytest.raises(UsageError, match="only 17 of 20"):
        Cached.load(good, recipe(18), 2, Silent())


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_source_raises_arrives_as_one_line(tmp_path: Path, workers: int) -> None:
    cut = selection(tmp_path, scenes(16, 1, "eval"))
    tar = tmp_path / "part.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(AccountingError, match=r"part\.tar") as caught:
        list(stream(cut, recipe(8), workers, range(2)))
    assert "\n" not in str(caught.value)


def test_digests_tell_sources_apart(chosen: Selection, shards: ShardReader) -> None:
    rows = chosen.rows
    other = Selection(chosen.pool, rows.set_column(rows.schema.get_field_index("caption"), "caption", pa.array(["x"] * 43)), seed=2)
    found = [digest(chosen), digest(other), digest(Selection(chosen.pool, rows, seed=3)), digest(shards)]
    assert len(set(found)) == 4
    assert digest(Selection(chosen.pool, rows, seed=2)) == found[0]


def test_a_crop_is_a_function_of_seed_epoch_and_sample() -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    first = random_crop(image, SIDE, (0.5, 1.0), 1, 2, "a")
    assert first.shape == (SIDE, SIDE, 3)
    assert np.array_equal(first, random_crop(image, SIDE, (0.5, 1.0), 1, 2, "a"))
    for seed, epoch, name in ((2, 2, "a"), (1, 3, "a"), (1, 2, "b")):
        assert not np.array_equal(first, random_crop(image, SIDE, (0.5, 1.0), seed, epoch, name))


def test_crops_cover_the_image_and_their_area_is_within_the_bounds() -> None:
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[:, :, 0], ramp[:, :, 1] = np.arange(100)[None, :], np.arange(100)[:, None]
    crops = [random_crop(ramp, 50, (0.25, 0.64), 0, 0, str(n)).astype(int) for n in range(300)]
    edges = [int(crop[0, -1, 0] - crop[0, 0, 0]) for crop in crops]
    assert 45 <= min(edges) <= 55 and 74 <= max(edges) <= 82
    assert min(crop[0, 0, 1] for crop in crops) <= 2 and max(crop[-1, -1, 1] for crop in crops) >= 97


def test_images_are_kept_just_large_enough_for_their_smallest_crop() -> None:
    assert working_side(64, (0.25, 1.0)) == 128
    assert shrink(np.zeros((300, 200, 3), np.uint8), 50).shape == (75, 50, 3)
    assert shrink(np.zeros((20, 90, 3), np.uint8), 40).shape == (40, 180, 3)
