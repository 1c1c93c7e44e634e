"""Semantic duplicates in real pools: tables, keep rules, centroids that stay, and what a policy drops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.dedupe import DedupeReport, DedupeSettings, dedupe, output_tables
from curate.demo.scenes import SceneRow, scenes
from curate.engines.base import EngineSettings
from curate.errors import SchemaError, UsageError
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.media.image import ImageSettings, prepare
from curate.run import crew
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.stage import Crew
from curate.store import Pool
from tests.dedupe.arrays import inline
from tests.dedupe.embedded import SCORES, Embedded, add_parts, clumped, publish
from tests.score.pools import Row, make_pool, run_phase, tiny_clip

DIM = 16


def settings(**changes: object) -> DedupeSettings:
    return DedupeSettings(by="embeddings", semantic={"clusters": 5, "epsilon": 0.1, **changes})


def run(pool: Pool, said: DedupeSettings, bucket_rows: int = 1 << 19) -> DedupeReport:
    with claim(pool, output_tables(said)) as writer:
        return dedupe(pool, writer, said, crew(EngineSettings(workers=2, bucket_rows=bucket_rows)))


@pytest.fixture
def given(tmp_path: Path) -> Embedded:
    vectors = clumped(240, DIM, 1)
    return add_parts(Pool.create(tmp_path / "pool"), 0, [vectors[:100], vectors[100:130], vectors[130:]])


def by_hand(given: Embedded, keep: str, epsilon: float) -> dict[tuple[int, int], tuple[int, bool, float]]:
    """SemDeDup as published, row by row: cluster, whether it goes, largest cosine to one before it."""
    file = given.pool.read_document("fitted_groups_semantic")["file"]  # type: ignore[index]
    centroids = np.load(given.pool.path / str(file)).astype(np.float64)
    unit = given.vectors.astype(np.float64) / np.linalg.norm(given.vectors.astype(np.float64), axis=1, keepdims=True)
    closeness = unit @ centroids.T / np.linalg.norm(centroids, axis=1)
    cluster, found = closeness.argmax(axis=1), {}
    for number in range(len(centroids)):
        members = np.flatnonzero(cluster == number).tolist()
        by = {
            "hard": lambda at: round(closeness[at].max(), 12),
            "easy": lambda at: -round(closeness[at].max(), 12),
            "best": lambda at: np.inf if given.scores[at] is None else -given.scores[at],
        }[keep]
        members.sort(key=lambda at: (by(at), given.ids[at]))
        for place, at in enumerate(members):
            largest = max((float(unit[at] @ unit[other]) for other in members[:place]), default=0.0)
            found[given.place[at]] = (number, largest > 1 - epsilon, max(largest, 0.0))
    return found


def kept_by_policy(pool: Pool, **said: object) -> set[tuple[int, int]]:
    with claim(pool, {}) as writer:
        filter_pool(pool, writer, FilterSettings(name="all", **{"where": "true", "groups": "semantic", **said}))
    return {(line["part"], line["row"]) for line in pool.snapshot("decisions_all").read().to_pylist() if line["keep"]}


@pytest.mark.parametrize("keep", ["hard", "easy", "best"])
def test_removals_are_those_of_the_paper(given: Embedded, keep: str) -> None:
    report = run(given.pool, settings(keep=keep))
    lines = {(line["part"], line["row"]): line for line in given.pool.snapshot("groups_semantic").read().to_pylist()}
    expected = by_hand(given, keep, 0.1)
    gone = {place for place, (_, goes, _) in expected.items() if goes}
    assert 40 < len(gone) < 200 and len({cluster for cluster, _, _ in expected.values()}) == 5
    for place, (cluster, _, largest) in expected.items():
        assert lines[place]["group_cluster"] == cluster
        assert lines[place]["group_similarity"] == pytest.approx(largest, abs=1e-6)
    assert {place for place, line in lines.items() if line["group_similarity"] is None} == {
        (part, row) for part in range(3) for row in (2, 3)
    }
    assert {place for place in expected if lines[place]["group_similarity"] > 0.9} == gone
    kept = {place for place in lines if place[1] != 2} - gone
    assert kept_by_policy(given.pool) == kept
    assert report.rows == 240 and report.near_pairs == len(gone) == report.grouped_rows - report.groups
    assert given.pool.snapshot("pairs_semantic").read().num_rows == len(gone)


def test_what_a_smaller_epsilon_would_remove_is_known(given: Embedded) -> None:
    run(given.pool, settings())
    similarity = given.pool.snapshot("groups_semantic").read(["group_similarity"])["group_similarity"].drop_null().to_numpy()
    assert (similarity > 1 - 0.04).sum() == run(given.pool, settings(epsilon=0.04)).near_pairs < (similarity > 1 - 0.1).sum()


def test_evidence_names_the_row_that_was_near(given: Embedded) -> None:
    run(given.pool, settings())
    unit = {place: v / np.linalg.norm(v) for place, v in zip(given.place, given.vectors.astype(np.float64), strict=True)}
    groups = {(line["part"], line["row"]): line for line in given.pool.snapshot("groups_semantic").read().to_pylist()}
    for line in given.pool.snapshot("pairs_semantic").read().to_pylist():
        one, other = (line["part"], line["row"]), (line["other_part"], line["other_row"])
        assert line["match"] == "semantic" and line["distance"] is None
        assert line["similarity"] == pytest.approx(float(unit[one] @ unit[other]), abs=1e-6) and line["similarity"] > 0.9
        assert groups[one]["group_id"] == groups[other]["group_id"] and groups[one]["group_cluster"] == groups[other]["group_cluster"]


def test_many_buckets_find_what_one_finds(given: Embedded) -> None:
    alone = run(given.pool, settings()), given.pool.snapshot("groups_semantic").files, given.pool.snapshot("pairs_semantic").files
    document = given.pool.read_document("fitted_groups_semantic")
    with claim(given.pool, output_tables(settings())) as writer:
        for table in output_tables(settings()):
            writer.replace_all(table, [])
        (given.pool.path / "documents" / "fitted_groups_semantic.json").unlink()
        again = dedupe(given.pool, writer, settings(), Crew(inline, bucket_rows=60))
    assert (again, *(given.pool.snapshot(f"{table}_semantic").files for table in ("groups", "pairs"))) == alone
    assert given.pool.read_document("fitted_groups_semantic") == document
    assert not list((given.pool.path / "tmp").iterdir())


def test_rows_that_come_later_join_the_clusters_that_are_there(given: Embedded) -> None:
    first = run(given.pool, settings())
    before = given.pool.read_document("fitted_groups_semantic")
    assert run(given.pool, settings()) == DedupeReport(**{**vars(first), "recomputed": False})
    more = add_parts(given.pool, 3, [clumped(50, DIM, 1)])
    grown = run(given.pool, settings())
    assert grown.recomputed and grown.rows == 290 and given.pool.read_document("fitted_groups_semantic") == before
    gone = {place for place, (_, goes, _) in by_hand(given.and_also(more), "hard", 0.1).items() if goes}
    assert grown.near_pairs == len(gone)
    run(given.pool, settings(clusters=6))
    assert given.pool.read_document("fitted_groups_semantic") != before


def test_what_is_missing_is_said_in_one_line(given: Embedded, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="scores_other has no embedding_file: score the pool with a CLIP model"):
        run(given.pool, DedupeSettings(by="embeddings", scores="other"))
    with pytest.raises(UsageError, match="no column of numbers 'none': say semantic.score="):
        run(given.pool, settings(keep="best", score="none"))
    bare = add_parts(Pool.create(tmp_path / "bare"), 0, [np.zeros((3, DIM), np.float16)])
    with pytest.raises(UsageError, match="no embedding of scores_base was drawn"):
        run(bare.pool, settings())
    run(given.pool, settings())
    with pytest.raises(UsageError, match="groups_semantic holds groups of embeddings: say name="):
        run(given.pool, DedupeSettings(name="semantic", perceptual=False))


def test_embeddings_of_another_length_are_refused(given: Embedded) -> None:
    run(given.pool, settings())
    stored = given.pool.snapshot("scores_base").read(None, [1]).drop_columns(["part"])
    file = publish(given.pool, 1, np.ones((32, 8), np.float16), range(32), 32)
    changed = stored.set_column(stored.column_names.index("embedding_file"), "embedding_file", pa.array([file] * 32))
    with claim(given.pool, {"scores_base": SCORES}) as writer:
        writer.commit("scores_base", [given.pool.write_part("scores_base", 1, changed, "again", SCORES)])
    with pytest.raises(SchemaError, match="part 1: embeddings of scores_base are 32 x 8, not 32 x 16"):
        run(given.pool, settings())


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, list[SceneRow]]:
    """The generated corpus, scored by a small CLIP."""
    folder = tmp_path_factory.mktemp("scored")
    rows = [row for row in scenes(240, seed=7) if row.kind not in ("dead", "opted_out")]
    pictures = [prepare(row.image_bytes(), ImageSettings()).data for row in rows]
    shown = [Row(row.caption, picture) for row, picture in zip(rows, pictures, strict=True)]
    pool = make_pool(folder / "pool", [shown[:100], shown[100:]])
    clip = {"model": "tiny", "weights": f"local-dir:{tiny_clip(folder / 'tiny')}", "device": "cpu"}
    phase = ScorePhase(ScoreSettings(image=None, caption=None, clip=clip))
    run_phase(pool, phase, phase.schema)
    return pool, rows


def test_a_small_clip_finds_the_copies_of_the_generated_corpus(scored: tuple[Pool, list[SceneRow]]) -> None:
    pool, rows = scored
    run(pool, DedupeSettings(by="embeddings", semantic={"epsilon": 1e-4}))
    group = pool.snapshot("groups_semantic").read(["group_id"])["group_id"].to_pylist()
    at = {row.index: place for place, row in enumerate(rows)}
    copies = [row for row in rows if row.duplicate_of in at and row.kind in ("exact_copy", "reencoded", "resized")]
    assert len(copies) >= 25
    assert all(group[at[row.index]] and group[at[row.index]] == group[at[row.duplicate_of]] for row in copies)  # type: ignore[index]
    told = {(name, row.scene) for name, row in zip(group, rows, strict=True) if name}
    assert len(told) == len({name for name, _ in told})  # two scenes are in no group together
