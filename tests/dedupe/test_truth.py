"""Against the truth of the generated corpus: duplicates found, recoloured and distinct scenes kept apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from curate.dedupe.settings import DedupeSettings
from curate.demo.scenes import DUPLICATE_KINDS, SceneRow, scenes
from tests.dedupe.arrays import Groups, Pictures, group
from tests.dedupe.planted import found_by_kind, pictures_of

ROWS = 1500


@pytest.fixture(scope="module")
def rows() -> list[SceneRow]:
    return [row for row in scenes(ROWS, seed=7) if row.kind not in ("dead", "opted_out")]


@pytest.fixture(scope="module")
def pictures(rows: list[SceneRow]) -> Pictures:
    return pictures_of([row.path for row in rows], [row.image_bytes() for row in rows])


@pytest.fixture(scope="module")
def groups(pictures: Pictures) -> Groups:
    return group(pictures, DedupeSettings())


def recall(rows: list[SceneRow], groups: Groups) -> dict[str, float]:
    """Share of the duplicates of each kind that stand in the group of their original."""
    place = {row.index: at for at, row in enumerate(rows)}
    found, planted = Counter[str](), Counter[str]()
    for at, row in enumerate(rows):
        if row.duplicate_of is not None:
            planted[row.kind] += 1
            found[row.kind] += int(groups.representative[at] == groups.representative[place[row.duplicate_of]])
    assert min(planted[kind] for kind in DUPLICATE_KINDS) >= 70
    return {kind: found[kind] / planted[kind] for kind in DUPLICATE_KINDS}


def wrongly_merged(rows: list[SceneRow], groups: Groups) -> int:
    """Distinct scenes that lie in a group together with another scene."""
    truth = {(int(groups.representative[at]), row.scene) for at, row in enumerate(rows)}
    return len(truth) - len(np.unique(groups.representative))


def test_duplicates_are_found(rows: list[SceneRow], groups: Groups) -> None:
    found = recall(rows, groups)
    assert found.pop("exact_copy") == 1.0
    assert min(found.values()) >= 0.99, found


def test_distinct_pictures_stay_apart(rows: list[SceneRow], groups: Groups) -> None:
    distinct = len({row.scene for row in rows})
    assert sum(row.kind == "hue_change" for row in rows) >= 70
    assert wrongly_merged(rows, groups) <= distinct / 1000


def test_the_hash_alone_would_merge_recoloured_scenes(rows: list[SceneRow], pictures: Pictures) -> None:
    blind = DedupeSettings(chroma_tolerance=255.0, grey_tolerance=255.0)
    assert wrongly_merged(rows, group(pictures, blind)) >= 10


def test_exact_groups_are_those_with_equal_bytes(rows: list[SceneRow], groups: Groups) -> None:
    kinds = {int(groups.representative[at]): set[str]() for at in range(len(rows))}
    for at, row in enumerate(rows):
        if groups.size[at] > 1:
            kinds[int(groups.representative[at])].add(row.kind)
    for at in np.flatnonzero(groups.size > 1):
        changed = kinds[int(groups.representative[at])] & {"reencoded", "resized", "brightness"}
        assert groups.exact[at] == (not changed)


def test_copies_as_others_publish_them_are_found(rows: list[SceneRow]) -> None:
    originals = [(row.path, row.image_bytes()) for row in rows if row.kind == "original"][:100]
    for kind, found in found_by_kind(originals).items():
        assert found.copies == 100 and found.recall == found.precision == 1.0, (kind, found)
