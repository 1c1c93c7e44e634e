"""Groups and evidence on hand-made hashes, and the shortcuts for crowded buckets against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from curate.dedupe import candidates
from curate.dedupe.candidates import compared_nodes, distinct_nodes
from curate.dedupe.colour import same_picture
from curate.dedupe.grouping import equal_rows, firsts, ranks
from curate.dedupe.settings import DedupeSettings
from tests.dedupe.arrays import Pictures, group

SETTINGS = DedupeSettings()
ONE_GRID = np.arange(192, dtype=np.uint8)


def pictures(ids: list[int], shas: list[int], hashes: dict[int, int], grids: dict[int, np.ndarray] | None = None) -> Pictures:
    places = sorted(hashes)
    shown = [(grids or {}).get(place, ONE_GRID) for place in places]
    return Pictures(
        sample_id=np.array([[0, value] for value in ids], np.uint64).reshape(-1, 2),
        sha256=np.array([[0, 0, 0, value] for value in shas], np.uint64).reshape(-1, 4),
        hashed=np.array(places, np.int64),
        hashes=np.array([hashes[place] for place in places], np.uint64),
        grids=np.array(shown, np.uint8).reshape(-1, 192),
    )


def test_the_smallest_sample_id_names_the_group() -> None:
    found = group(pictures([30, 10, 20, 5], [1, 1, 1, 2], {}), SETTINGS)
    assert found.representative.tolist() == [1, 1, 1, 3]
    assert found.size.tolist() == [3, 3, 3, 1]
    assert found.exact.all()


def test_equal_bytes_give_a_star_and_not_all_pairs() -> None:
    count = 500
    found = group(pictures(list(range(count, 0, -1)), [7] * count, dict.fromkeys(range(count), 99)), SETTINGS)
    assert len(found.evidence.first) == count - 1
    assert set(found.evidence.second.tolist()) == {count - 1}
    assert found.evidence.exact.all()


def test_perceptual_and_exact_matches_join_one_group() -> None:
    found = group(pictures([1, 2, 3, 4], [1, 1, 2, 3], {0: 0, 1: 0, 2: 0b111, 3: 2**40 - 1}), SETTINGS)
    assert found.representative.tolist() == [0, 0, 0, 3]
    assert found.exact.tolist() == [False, False, False, True]
    evidence = found.evidence
    lines = list(zip(evidence.first.tolist(), evidence.second.tolist(), evidence.distance.tolist(), evidence.exact.tolist(), strict=True))
    assert lines == [(0, 1, 0, True), (0, 2, 3, False)]


def test_chains_connect() -> None:
    found = group(pictures([1, 2, 3], [1, 2, 3], {0: 0, 1: 0b1111, 2: 0b11111111}), SETTINGS)
    assert found.representative.tolist() == [0, 0, 0]
    assert len(found.evidence.first) == 2


def test_rows_without_a_hash_still_match_by_bytes() -> None:
    found = group(pictures([3, 2, 1], [5, 5, 6], {2: 1}), SETTINGS)
    assert found.representative.tolist() == [1, 1, 2]


def test_only_bytes_when_perceptual_is_off() -> None:
    found = group(pictures([1, 2], [1, 2], {0: 0, 1: 0}), DedupeSettings(perceptual=False))
    assert found.size.tolist() == [1, 1]


def test_no_pictures_at_all() -> None:
    assert group(pictures([], [], {}), SETTINGS).size.tolist() == []


def test_brightness_is_forgiven_and_colour_is_not() -> None:
    grid = np.random.default_rng(0).integers(30, 220, (1, 192)).astype(np.uint8)
    grid[0, :3] = [200, 40, 40]
    recoloured = grid.copy()
    recoloured[0, :3] = [40, 200, 40]
    for factor in (0.9, 1.1):
        changed = np.minimum(grid * factor, 255).astype(np.uint8)
        assert same_picture(grid, changed, SETTINGS)[0]
        assert same_picture(changed, grid, SETTINGS)[0]
        assert not same_picture(recoloured, changed, SETTINGS)[0]
    assert not same_picture(grid, np.minimum(grid * 1.6, 255).astype(np.uint8), SETTINGS)[0]


def test_black_and_white_are_two_pictures() -> None:
    black, grey, white = (np.full((1, 192), value, np.uint8) for value in (0, 128, 255))
    assert not same_picture(black, white, SETTINGS)[0]
    assert not same_picture(grey, white, SETTINGS)[0]
    assert same_picture(white, np.full((1, 192), 250, np.uint8), SETTINGS)[0]


def crowd(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of few hashes and of colours that fall into well separated families."""
    random = np.random.default_rng(4)
    families = random.integers(0, 2, (12, 192)) * 180 + 30
    grids = (families[random.integers(0, 12, count)] + random.integers(-2, 3, (count, 192))).astype(np.uint8)
    hashes = random.choice(np.array([0, 3, 2**20, 2**63 + 2**11 + 1, 2**32 - 1], np.uint64), count)
    return hashes, grids


def _groups(count: int, hashes: np.ndarray, grids: np.ndarray, buckets: int) -> list[int]:
    numbers = list(range(count))
    shown = pictures(numbers, numbers, dict(enumerate(hashes.tolist())), dict(enumerate(grids)))
    return group(shown, SETTINGS, buckets).representative.tolist()


@pytest.mark.parametrize(("limit", "buckets"), [(1, 1), (8, 1), (8, 5), (10_000, 3)])
def test_crowded_buckets_give_the_same_groups(limit: int, buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, grids = crowd(400)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= SETTINGS.radius_bits
    same = np.array([same_picture(np.broadcast_to(grid, grids.shape), grids, SETTINGS) for grid in grids])
    reach = near & same
    expected = np.arange(400)
    for _ in range(400):
        lower = np.where(reach, expected[None, :], 400).min(axis=1)
        if (lower == expected).all():
            break
        expected = lower
    monkeypatch.setattr(candidates, "BUCKET_NODES", limit)
    assert _groups(400, hashes, grids, buckets) == expected.tolist()
    assert 12 <= len(set(expected.tolist())) < 60


def test_many_blank_pictures_are_one_node() -> None:
    hashes, grids = np.zeros(20_000, np.uint64), np.full((20_000, 192), 255, np.uint8)
    nodes = distinct_nodes(hashes, grids)
    assert len(nodes.hashes) == 1
    stays, edges = compared_nodes(nodes, SETTINGS)
    assert (len(stays), len(edges.first)) == (1, 0)


def test_nodes_keep_what_differs_apart() -> None:
    hashes, grids = crowd(300)
    nodes = distinct_nodes(hashes, grids)
    assert (nodes.hashes[nodes.of] == hashes).all()
    assert (nodes.grids[nodes.of] == grids).all()
    distinct = {(value, grid.tobytes()) for value, grid in zip(hashes.tolist(), grids, strict=True)}
    assert len(nodes.hashes) == len(distinct)


def test_classes_and_ranks() -> None:
    words = np.array([[2, 1], [1, 9], [2, 1], [1, 2]], np.uint64)
    classes = equal_rows(words)
    assert classes[0] == classes[2]
    assert len(set(classes.tolist())) == 3
    assert ranks(words).tolist() == [2, 1, 3, 0]
    assert firsts(np.array([1, 0, 1, 0]), np.array([5, 1, 2, 3])).tolist() == [1, 2]


def any_pictures(seed: int) -> Pictures:
    """Pictures of few bytes, few hashes that lie near each other, and few looks; some without a hash."""
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 120))
    hashes = np.array([0, 1, 3, 15, 255, 2**40, 2**40 + 1, 2**63], np.uint64)
    looks = random.integers(0, 2, (3, 192)) * 180 + 30
    shas = random.integers(0, max(count // 2, 1), count)
    ids = random.permutation(count)
    of_sha = {int(sha): (int(random.choice(hashes)), looks[random.integers(0, 3)], random.random() < 0.8) for sha in np.unique(shas)}
    shown = {at: of_sha[int(sha)] for at, sha in enumerate(shas)}
    hashed = {at: look[0] for at, look in shown.items() if look[2]}
    return pictures(ids.tolist(), shas.tolist(), hashed, {at: look[1] for at, look in shown.items()})


def by_hand(shown: Pictures) -> tuple[list[int], list[int], list[bool]]:
    """Representative, size and exactness of each picture, by comparing all with all."""
    count = len(shown.sample_id)
    place = {int(at): number for number, at in enumerate(shown.hashed)}
    reach = (shown.sha256[:, None, 3] == shown.sha256[None, :, 3]) | np.eye(count, dtype=np.bool_)
    bytes_alone = reach.copy()
    for one in place:
        for other in place:
            near = int(np.bitwise_count(shown.hashes[place[one]] ^ shown.hashes[place[other]])) <= SETTINGS.radius_bits
            same = same_picture(shown.grids[[place[one]]], shown.grids[[place[other]]], SETTINGS)[0]
            reach[one, other] |= near and same
    for _ in range(count.bit_length()):
        reach = (reach.astype(np.int64) @ reach) > 0
    ids = np.where(reach, shown.sample_id[None, :, 1].astype(np.int64), count)
    exact = [bool((reach[at] == bytes_alone[at]).all()) for at in range(count)]
    return ids.argmin(axis=1).tolist(), reach.sum(axis=1).tolist(), exact


@pytest.mark.parametrize(("seed", "buckets"), [*((seed, 1) for seed in range(20)), (0, 4), (7, 3)])
def test_the_rounds_agree_with_comparing_all_with_all(seed: int, buckets: int) -> None:
    shown = any_pictures(seed)
    found = group(shown, SETTINGS, buckets)
    assert (found.representative.tolist(), found.size.tolist(), found.exact.tolist()) == by_hand(shown)
