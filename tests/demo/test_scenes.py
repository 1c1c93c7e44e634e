"""The generated corpus: same settings, same bytes; the noise it promises; and pictures that hashes can tell apart."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.demo.corpus import Corpus, counts, write_list
from curate.demo.render import SHAPES, Scene, Thing, render
from curate.demo.scenes import DUPLICATE_KINDS, KINDS, SceneRow, build, cached, scene_rows, scenes
from curate.demo.settings import ScenesSettings

ROWS = 400


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build(tmp_path_factory.mktemp("corpus") / "scenes", ScenesSettings(rows=ROWS, seed=3))


@pytest.fixture(scope="module")
def rows() -> list[SceneRow]:
    return scenes(ROWS, 3)


def test_equal_settings_give_equal_bytes(rows: list[SceneRow]) -> None:
    again = scenes(ROWS, 3)
    assert again == rows
    assert [row.image_bytes() for row in again[:20]] == [row.image_bytes() for row in rows[:20]]


def test_one_row_is_pinned_to_the_byte() -> None:
    thing = Thing("red", "star", "big")
    pixels = render(Scene(7, 200, 160, "woven", (thing, Thing("blue", "ring", "small")), "left"))
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "e3be32f25635675c"


def test_another_seed_gives_other_scenes(rows: list[SceneRow]) -> None:
    other = scenes(ROWS, 4)
    assert not {row.scene.seed for row in rows} & {row.scene.seed for row in other}
    assert not {row.path for row in rows} & {row.path for row in other}


def test_eval_split_is_clean_and_disjoint(rows: list[SceneRow]) -> None:
    evaluation = scenes(ROWS, 3, "eval")
    assert {row.kind for row in evaluation} == {"original"}
    assert all(row.caption == row.true_caption for row in evaluation)
    assert not {row.scene.seed for row in rows} & {row.scene.seed for row in evaluation}


def test_noise_has_the_promised_proportions(corpus: Corpus) -> None:
    kinds = counts(corpus.truth(), "kind")
    assert set(kinds) == set(KINDS)
    assert sum(kinds[kind] for kind in DUPLICATE_KINDS) == 0.2 * ROWS
    assert counts(corpus.truth(), "swapped") == {"true": 0.3 * ROWS, "false": 0.7 * ROWS}
    assert counts(corpus.truth(), "expected_reason") == {
        "null": 0.94 * ROWS, "image_small": 0.02 * ROWS, "opt_out": 0.02 * ROWS, "http_not_found": 0.02 * ROWS,
    }  # fmt: skip


def test_swapped_captions_name_nothing_that_is_there(rows: list[SceneRow]) -> None:
    for row in rows:
        if row.swapped:
            assert not any(f"{thing.colour} {thing.shape}" in row.caption for thing in row.scene.things)
        elif row.kind != "near_duplicate_caption":
            assert row.caption == row.true_caption


def test_captions_name_every_thing(rows: list[SceneRow]) -> None:
    english = [row for row in rows if row.language == "en"]
    assert all(f"{thing.colour} {thing.shape}" in row.true_caption for row in english for thing in row.scene.things)


def test_near_duplicate_captions_differ_in_form_only(rows: list[SceneRow]) -> None:
    near = [row for row in rows if row.kind == "near_duplicate_caption"]
    assert near and all(row.caption != row.true_caption == rows[row.source or 0].true_caption for row in near)
    assert all(row.scene.seed != rows[row.source or 0].scene.seed for row in near)


def test_hue_change_keeps_all_but_one_colour(rows: list[SceneRow]) -> None:
    for row in (row for row in rows if row.kind == "hue_change"):
        source = rows[row.source or 0]
        changed = [a.colour != b.colour for a, b in zip(row.scene.things, source.scene.things, strict=True)]
        assert sum(changed) == 1 and row.duplicate_of is None
        assert row.scene.seed == source.scene.seed


def test_relation_is_what_the_picture_shows() -> None:
    pair = (Thing("red", "square", "big"), Thing("blue", "square", "big"))
    for relation, axis, first_is_lower in (("left", 1, True), ("right", 1, False), ("above", 0, True), ("below", 0, False)):
        pixels = render(Scene(5, 240, 240, "plain", pair, relation)).astype(int)
        red = np.argwhere(pixels[:, :, 0] - pixels[:, :, 2] > 90).mean(0)[axis]
        blue = np.argwhere(pixels[:, :, 2] - pixels[:, :, 0] > 90).mean(0)[axis]
        assert (red + 60 < blue) if first_is_lower else (blue + 60 < red)


def test_every_shape_draws_another_picture() -> None:
    drawn = {shape: render(Scene(1, 200, 200, "plain", (Thing("red", shape, "big"),))).tobytes() for shape in SHAPES}
    assert len(set(drawn.values())) == len(SHAPES)


def test_duplicates_are_what_they_say(corpus: Corpus) -> None:
    answers, bodies = corpus.answers(), corpus.bodies()
    for line in corpus.truth().to_pylist():
        if line["kind"] not in DUPLICATE_KINDS:
            continue
        mine, other = (bodies[a.offset : a.offset + a.size_bytes] for a in (answers[line["address"]], answers[line["duplicate_of"]]))
        assert (mine == other) == (line["kind"] == "exact_copy")
        size, original = Image.open(io.BytesIO(mine)).size, Image.open(io.BytesIO(other)).size
        assert (size != original) == (line["kind"] == "resized")


def test_small_pictures_are_small(rows: list[SceneRow]) -> None:
    small = [max(row.scene.width, row.scene.height) for row in rows if row.kind == "too_small"]
    others = [min(row.scene.width, row.scene.height) for row in rows if row.kind not in ("too_small",)]
    assert max(small) <= 56 and min(others) >= 160


def phash(pixels: np.ndarray) -> int:
    """64-bit hash of the low frequencies of the grey picture, after the usual recipe (32 x 32, DCT, median)."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    k, n = np.arange(8)[:, None], np.arange(32)[None, :]
    basis = np.cos(np.pi * k * (2 * n + 1) / 64)
    low = (basis @ grey @ basis.T).ravel()
    return int("".join("1" if value > np.median(low[1:]) else "0" for value in low), 2)


def test_hashes_part_distinct_scenes_and_join_duplicates() -> None:
    """A smaller run of what is measured at 2,000 rows: no distinct pair within 4 bits, nearly all duplicates within."""
    drawn = scene_rows(ScenesSettings(rows=300, seed=11, min_side_pixels=160, max_side_pixels=240, hue_changes=0.0))
    hashes = [phash(np.asarray(Image.open(io.BytesIO(row.image_bytes())))) for row in drawn]
    root = [row.index if row.duplicate_of is None else row.duplicate_of for row in drawn]
    near = {(a, b) for a in range(300) for b in range(a) if (hashes[a] ^ hashes[b]).bit_count() <= 4}
    assert not [pair for pair in near if root[pair[0]] != root[pair[1]]]
    copies = [row for row in drawn if row.duplicate_of is not None]
    joined = [row for row in copies if (hashes[row.index] ^ hashes[row.duplicate_of or 0]).bit_count() <= 4]
    assert len(joined) >= 0.97 * len(copies)


def test_list_and_truth_have_the_same_lines(corpus: Corpus, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    written = write_list([corpus], tmp_path, lambda address: "http://127.1.0.1:80" + address)
    lines, truth = pq.read_table(written), pq.read_table(tmp_path / "truth.parquet")
    assert lines.num_rows == ROWS and lines.column_names[:2] == ["url", "caption"]
    assert lines.column("url").equals(truth.column("url")) and "kind" not in lines.column_names


def test_cached_corpus_is_drawn_once(tmp_path: Path) -> None:
    settings = ScenesSettings(rows=8, seed=1)
    first = cached(tmp_path, settings)
    calls: list[str] = []
    assert cached(tmp_path, settings, lambda what, done, total: calls.append(what)) == first
    assert not calls
    assert cached(tmp_path, ScenesSettings(rows=9, seed=1)) != first
