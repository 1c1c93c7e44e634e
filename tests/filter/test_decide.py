"""Policies against an independent evaluation in plain Python; representatives; quantiles; pending rows; no-op."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from curate.catalog.views import connect
from curate.errors import IdentityError, SettingsError
from curate.filter.decide import FilterReport, filter_pool, preview
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.shards.subset import read_subset
from curate.store import Pool
from tests.shards import pools
from tests.shards.pools import Sample, sample_id


def apply(pool: Pool, **settings: object) -> FilterReport:
    with claim(pool, {}) as run:
        return filter_pool(pool, run, FilterSettings.model_validate(settings))


def decisions(pool: Pool, name: str) -> list[dict[str, object]]:
    return pool.snapshot(f"decisions_{name}").read(["part", "row", "keep", "reason", "failed_rules"]).to_pylist()


def random_parts(seed: int, parts: int = 3, rows: int = 60) -> list[list[Sample]]:
    rng = random.Random(seed)
    return [
        [
            Sample(
                caption=rng.choice(["", "hi", "a b", "three little words", "boilerplate", f"caption {rng.random()}"]),
                reason=rng.choice([None] * 8 + ["http_not_found", "duplicate_row"]),
                score=rng.choice([None, math.nan, 0.1, 0.28, 0.3, 0.30001, 0.5, rng.random()]),
                width=rng.choice([90, 199, 200, 600, 601]),
                height=rng.choice([99, 200, 201, 300]),
                original_bytes=rng.choice([4999, 5000, 80_000]),
                language=rng.choice(["en", "en", "de"]),
                group=rng.choice([None, None, "g1", "g2", "g3"]),
            )
            for _ in range(rows)
        ]
        for _ in range(parts)
    ]


def expected_laion400m(sample: Sample, cut: float = 0.30) -> list[str]:
    failed = ["caption_short"] if len(sample.caption.strip()) < 5 else []
    failed += ["image_small"] if sample.original_bytes < 5000 else []
    missing = sample.score is None or math.isnan(sample.score)
    return failed + (["clip_score_missing"] if missing else ["clip_score_low"] if as_float32(sample.score) < cut else [])


def as_float32(score: float | None) -> float:
    return float(pa.scalar(score, pa.float32()).as_py())


def brute_force(parts: list[list[Sample]], rules) -> list[tuple[bool | None, str | None, list[str] | None]]:
    """Decisions as the documentation describes them, without a line of SQL."""
    flat = [(part, row, s) for part, samples in enumerate(parts) for row, s in enumerate(samples)]
    failed = {(part, row): rules(s) for part, row, s in flat}
    best: dict[str, tuple[int, int]] = {}
    for part, row, s in sorted(flat, key=lambda item: order(*item)):
        if s.group and not s.reason and not failed[part, row]:
            best.setdefault(s.group, (part, row))
    found = []
    for part, row, s in flat:
        names = failed[part, row]
        if s.reason:
            found.append((False, None, None))
        elif not names and s.group and best[s.group] != (part, row):
            found.append((False, "duplicate", ["duplicate"]))
        else:
            found.append((not names, names[0] if names else None, names))
    return found


def order(part: int, row: int, s: Sample) -> tuple[object, ...]:
    score = -math.inf if s.score is None or math.isnan(s.score) else as_float32(s.score)
    return (-s.width * s.height, -score, sample_id(part, row))


@pytest.mark.parametrize("seed", [1, 2])
def test_laion400m_decides_as_plain_python_does(tmp_path: Path, seed: int) -> None:
    parts = random_parts(seed)
    pool = pools.build(tmp_path / "pool", parts)
    report = apply(pool, policy="laion400m")
    found = [(d["keep"], d["reason"], d["failed_rules"]) for d in decisions(pool, "laion400m")]
    assert found == brute_force(parts, expected_laion400m)
    subset = report.subset
    assert subset.rows == len(found) == subset.kept + subset.refused + subset.pending + sum(subset.dropped.values())
    assert subset.dropped == dict(Counter(reason for _, reason, _ in found if reason))
    alone = Counter(name for _, _, names in found for name in names or ())
    only = Counter(names[0] for _, _, names in found if names and len(names) == 1)
    assert {name: (c.alone, c.only) for name, c in subset.rules.items()} == {name: (alone[name], only[name]) for name in subset.rules}


def test_datacomp_basic_decides_as_its_source_does(tmp_path: Path) -> None:
    def rules(s: Sample) -> list[str]:
        failed = ["caption_language"] if s.language != "en" else []
        failed += [] if len(s.caption.split()) > 2 and len(s.caption) > 5 else ["caption_short"]
        failed += [] if min(s.width, s.height) >= 200 else ["image_small"]
        return failed + ([] if max(s.width, s.height) / min(s.width, s.height) <= 3.0 else ["image_aspect"])

    parts = random_parts(3)
    pool = pools.build(tmp_path / "pool", parts)
    apply(pool, policy="datacomp_basic")
    assert [(d["keep"], d["reason"], d["failed_rules"]) for d in decisions(pool, "datacomp_basic")] == brute_force(parts, rules)


def test_coyo_decides_as_its_source_does(tmp_path: Path) -> None:
    parts = random_parts(5)
    texts = Counter(s.caption.strip() for samples in parts for s in samples)

    def rules(s: Sample) -> list[str]:
        words = len(s.caption.split())
        failed = ["image_small"] if s.original_bytes < 5000 or min(s.width, s.height) < 200 else []
        failed += ["image_aspect"] if max(s.width, s.height) / min(s.width, s.height) > 3.0 else []
        failed += ["caption_language"] if s.language != "en" else []
        failed += ["caption_short"] if words < 3 else ["caption_long"] if words > 256 or len(s.caption) > 1000 else []
        return failed + (["caption_repeated"] if texts[s.caption.strip()] > 10 else [])

    pool = pools.build(tmp_path / "pool", parts)
    apply(pool, policy="coyo")
    found = [(d["keep"], d["reason"], d["failed_rules"]) for d in decisions(pool, "coyo")]
    assert found == brute_force(parts, rules) and {"caption_short", "image_small"} <= {reason for _, reason, _ in found}
    assert any("caption_repeated" in (names or ()) for _, _, names in found)


SIZES = [(400, 401), (401, 401), (401, 1002), (401, 1003)]


DETERMINERS = {"a", "an", "the", "this", "that", "his", "their", "some", "no", "every", "which"}


@pytest.mark.parametrize("rare", [0, 3])
def test_cc12m_rules_decide_as_their_source_does(tmp_path: Path, rare: int) -> None:
    captions = [" ".join(f"w{number}" for number in range(words)) for words in (2, 3, 256, 257)]
    captions += ["The dog, a cat", "the the dog", "the the dog on that long red road home", "his DOG's well-known dog", ""]
    captions += ["!! the !!", "seldom the dog"]
    parts = [[Sample(caption=caption, width=w, height=h) for caption in captions for w, h in SIZES[: 2 if "seldom" in caption else 4]]]

    def words(s: Sample) -> list[str]:
        return re.findall(r"[^\W_](?:[^\W_]|['’-])*", s.caption.lower())

    having = Counter(word for s in parts[0] for word in set(words(s)))

    def rules(s: Sample) -> list[str]:
        said, tokens = words(s), len(s.caption.split())
        failed = [] if min(s.width, s.height) > 400 else ["image_small"]
        failed += ["image_aspect"] if max(s.width, s.height) / min(s.width, s.height) > 2.5 else []
        failed += ["caption_short"] if tokens < 3 else ["caption_long"] if tokens > 256 else []
        failed += ["caption_repetitive"] if said and (len(said) - len(set(said))) / len(said) > 0.2 else []
        failed += [] if DETERMINERS & set(said) else ["caption_no_determiner"]
        return failed + (["caption_rare_word"] if any(having[word] < rare for word in said) else [])

    pool = pools.build(tmp_path / "pool", parts)
    apply(pool, policy="cc12m_rules", parameters={"rare": rare})
    found = {name for d in decisions(pool, "cc12m_rules") for name in d["failed_rules"]}
    assert found >= {"caption_repetitive", "caption_no_determiner"} and ("caption_rare_word" in found) == (rare > 0)
    assert [(d["keep"], d["reason"], d["failed_rules"]) for d in decisions(pool, "cc12m_rules")] == brute_force(parts, rules)


def test_laion_multi_is_for_its_own_model(tmp_path: Path) -> None:
    column, parts = "clip_mclip_vit_b_32", [[Sample(language="de", score=0.261), Sample(language="de", score=0.25), Sample()]]
    with pytest.raises(IdentityError, match=column):
        apply(pools.build(tmp_path / "other", parts, groups=None), policy="laion_multi")
    pool = pools.build(tmp_path / "pool", parts, groups=None, clip=column)
    apply(pool, policy="laion_multi")
    assert [d["reason"] for d in decisions(pool, "laion_multi")] == [None, "clip_score_low", "caption_language"]


def test_a_random_share_is_nested_and_seeded(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", [[Sample() for _ in range(200)]], groups=None)

    def kept(name: str, **parameters: float) -> set[object]:
        apply(pool, policy="random", name=name, parameters=parameters)
        return {d["row"] for d in decisions(pool, name) if d["keep"]}

    third, half, other = kept("third", share=0.3), kept("half", share=0.5), kept("other", share=0.3, seed=1)
    assert 35 < len(third) < 90 and third < half and third != other


def test_no_host_has_more_than_its_cap(tmp_path: Path) -> None:
    parts = [[Sample(reason="http_not_found"), *[Sample() for _ in range(9)]], [Sample() for _ in range(5)]]
    pool = pools.build(tmp_path / "pool", parts, groups=None)
    apply(pool, policy="host_cap", parameters={"most": 4})
    assert Counter((d["keep"], d["reason"]) for d in decisions(pool, "host_cap")) == {
        (False, None): 1, (True, None): 4, (False, "sampled_out"): 10,
    }  # fmt: skip


def test_a_condition_keeps_what_where_would(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(4), groups=None)
    report = apply(pool, where="clip_score >= 0.3 AND (image_min_side > 150 OR caption_language = 'de')", name="mine")
    assert set(report.subset.rules) == {"rule_1", "rule_2", "duplicate"}
    assert report.subset.user_reasons == ("rule_1", "rule_2")
    with connect(pool, "mine") as connection:
        wanted = connection.execute(
            "SELECT part, row FROM samples WHERE tar_file IS NOT NULL AND NOT isnan(clip_score) AND clip_score >= 0.3"
            " AND (image_min_side > 150 OR caption_language = 'de') ORDER BY ALL"
        ).fetchall()
    assert [(d["part"], d["row"]) for d in decisions(pool, "mine") if d["keep"]] == wanted
    assert wanted


def test_a_group_whose_best_member_is_filtered_keeps_its_next_best(tmp_path: Path) -> None:
    samples = [
        Sample(group="g", width=900, height=900, score=0.1),  # the largest, but its score fails
        Sample(group="g", width=500, height=500, score=0.4),
        Sample(group="g", width=500, height=500, score=0.6),  # as large, better: represents the group
        Sample(group="g", width=400, height=400, score=0.9),
        Sample(group="g", reason="http_not_found"),
        Sample(group="h", score=0.1),
    ]
    pool = pools.build(tmp_path / "pool", [samples])
    apply(pool, where="clip_score > 0.3", name="mine")
    assert [d["reason"] for d in decisions(pool, "mine")] == ["rule_1", "duplicate", None, "duplicate", None, "rule_1"]
    apply(pool, where="clip_score > 0.3", name="mine", representative="clip_score DESC")
    assert [d["keep"] for d in decisions(pool, "mine")] == [False, False, False, True, False, False]
    apply(pool, where="clip_score > 0.3", name="mine", groups="none")
    assert [d["keep"] for d in decisions(pool, "mine")] == [False, True, True, True, False, False]


def test_a_preset_refuses_another_model_and_names_the_way_out(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", [[Sample()] * 4], clip="clip_tiny_scratch")
    with pytest.raises(IdentityError, match=r"clip_vit_b_32_openai.*clip_tiny_scratch.*mode=quantile"):
        apply(pool, policy="laion400m")
    assert apply(pool, policy="laion400m", mode="quantile").subset.mode == "quantile"
    assert apply(pool, policy="laion400m", parameters={"clip_cut": "0.4"}).subset.parameters["clip_cut"] == 0.4
    unscored = pools.build(tmp_path / "unscored", [[Sample()]], clip=None)
    with pytest.raises(IdentityError, match="has no clip_score"):
        apply(unscored, policy="laion400m")


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.35, 0.5, 0.75, 1.0])
def test_a_quantile_keeps_the_exact_count_and_breaks_ties_by_sample_id(tmp_path: Path, fraction: float) -> None:
    scores = [0.5] * 9 + [0.7] * 5 + [0.2, 0.9, None, math.nan] + [0.5] * 2
    samples = [Sample(score=score) for score in scores] + [Sample(reason="http_not_found")] * 7
    pool = pools.build(tmp_path / "pool", [samples], groups=None)
    report = apply(pool, policy="clip_top30", fractions={"clip_cut": fraction})
    ranked = sorted((-s, sample_id(0, n), n) for n, s in enumerate(scores) if s is not None and not math.isnan(s))
    wanted = {n for _, _, n in ranked[: min(math.floor(fraction * len(scores) + 0.5), len(ranked))]}
    assert {d["row"] for d in decisions(pool, "clip_top30") if d["keep"]} == wanted
    cut = report.subset.cuts[0]
    assert (cut.of, cut.kept, cut.denominator) == (20, len(wanted), "rows with an image")


def test_rows_not_fetched_or_not_scored_stay_undecided(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", [[Sample(), Sample(pending=True)], [Sample(), Sample(score_reason="decode_failed")]])
    assert [d["keep"] for d in decisions_of(pool)] == [True, None, True, False]
    late = pools.part_tables(pool, 2, [Sample()], pools.CLIP)
    with claim(pool, {}) as run:
        for name in ("rows", "fetched", "groups_pixels"):
            run.add(name, pool.snapshot(name).schema)
            run.commit(name, [pool.write_part(name, 2, late[name], "late")])
    assert [d["keep"] for d in decisions_of(pool)] == [True, None, True, False, None]
    assert apply(pool, where="url IS NOT NULL", name="urls", groups="none").subset.pending == 1  # reads no score


def decisions_of(pool: Pool) -> list[dict[str, object]]:
    apply(pool, where="clip_score > 0.3", name="mine")
    return decisions(pool, "mine")


def test_the_same_question_again_changes_nothing_and_another_one_does(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(5))
    first = apply(pool, policy="laion400m")
    version, text = pool.snapshot("decisions_laion400m").version, (pool.path / "subsets" / "laion400m.json").read_text()
    again = apply(pool, policy="laion400m")
    assert again.unchanged and again.subset == first.subset == read_subset(pool, "laion400m")
    assert pool.snapshot("decisions_laion400m").version == version
    assert (pool.path / "subsets" / "laion400m.json").read_text() == text
    other = apply(pool, policy="laion400m", parameters={"clip_cut": 0.28})
    assert not other.unchanged and other.subset.digest != first.subset.digest and other.subset.kept > first.subset.kept
    back = apply(pool, policy="laion400m")
    assert back.subset.digest == first.subset.digest and not back.unchanged


def test_a_preview_counts_and_writes_nothing(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(6))
    seen = preview(pool, FilterSettings(policy="demo"))
    assert pool.tables() == ["fetched", "groups_pixels", "rows", "scores_base"] and not (pool.path / "subsets").exists()
    done = apply(pool, policy="demo")
    assert seen.preview and seen.subset.dropped == done.subset.dropped and seen.subset.kept == done.subset.kept > 0


def test_decisions_are_row_aligned_and_a_plain_delta_reader_sees_them(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(7))
    subset = apply(pool, policy="demo").subset
    rows = pool.snapshot("rows").read(["part", "row"])
    assert pool.snapshot("decisions_demo").read(["part", "row"]).equals(rows)
    plain = pa.table(DeltaTable(str(pool.path / "tables" / "decisions_demo"), version=subset.decisions_version).to_pyarrow_table())
    assert plain.num_rows == rows.num_rows and sum(plain["keep"].to_pylist()) == subset.kept
    written = json.loads((pool.path / "subsets" / "demo.json").read_text())
    assert written["tables"].keys() == {"rows", "fetched", "scores_base", "groups_pixels"}
    assert pool.read_document("current") == {"policy": "demo"}
    with connect(pool) as connection:
        outcomes = dict(connection.execute("SELECT outcome, count(*) FROM samples GROUP BY outcome").fetchall())
    assert outcomes["kept"] == subset.kept and sum(outcomes.values()) == subset.rows


def test_a_representative_order_is_no_place_for_statements(tmp_path: Path) -> None:
    """DuckDB may write to the files that it may read: a policy from elsewhere must not overwrite the pool's."""
    pool = pools.build(tmp_path / "pool", random_parts(1))
    victim = Path(pool.snapshot("rows").paths()[0])
    before = victim.read_bytes()
    copy = f"COPY (SELECT 1) TO '{victim}' (FORMAT parquet, USE_TMP_FILE false)"
    smuggled = f"sample_id) FROM samples); {copy}; SELECT part, row FROM (SELECT part, row, row_number() OVER (ORDER BY sample_id"
    with pytest.raises(SettingsError, match="not statements"):
        apply(pool, where="true", representative=smuggled)
    assert victim.read_bytes() == before


def test_memory_is_bounded_by_the_setting_and_changes_no_decision(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(3))
    with connect(pool, memory_bytes=300 << 20) as connection:
        assert connection.execute("SELECT current_setting('memory_limit')").fetchall() == [("300.0 MiB",)]
    first = apply(pool, policy="demo", name="one").subset
    second = apply(pool, policy="demo", name="two", memory_bytes=256 << 20).subset
    assert first.digest == second.digest and first.kept > 0


def test_a_policy_by_rows_and_one_over_the_whole_pool_decide_alike(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(11))
    rules = "part, row, caption_language <> 'en' AS caption_language, coalesce(clip_score < 0.3, true) AS clip_score_low FROM samples"
    found = []
    for name, text in (("by_rows", f"SELECT {rules}"), ("whole", f"SELECT {rules} ORDER BY count(*) OVER ()")):
        (tmp_path / f"{name}.sql").write_text(text)
        found.append(
            (preview(pool, FilterSettings(policy=str(tmp_path / f"{name}.sql"))), apply(pool, policy=str(tmp_path / f"{name}.sql")))
        )
    by_rows, whole = found
    assert decisions(pool, "by_rows") == decisions(pool, "whole")
    assert by_rows[1].subset.digest == whole[1].subset.digest and 0 < whole[1].subset.kept < whole[1].subset.rows
    for before, after in found:
        assert (before.subset.rules, before.subset.kept, before.subset.pending) == (
            after.subset.rules,
            after.subset.kept,
            after.subset.pending,
        )


@pytest.mark.parametrize("keys", ["part, row + 1 AS row", "part, part AS row", "row AS part, part AS row"])
def test_a_policy_that_speaks_of_other_rows_is_refused(tmp_path: Path, keys: str) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(11))
    (tmp_path / "off.sql").write_text(f"SELECT {keys}, coalesce(clip_score < 0.3, true) AS clip_score_low FROM samples")
    with pytest.raises(SettingsError, match="of 180 rows, not one for each"):
        apply(pool, policy=str(tmp_path / "off.sql"))


def test_a_policy_that_fails_on_a_row_leaves_no_table(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", random_parts(12))
    with pytest.raises(SettingsError, match="Conversion"):
        apply(pool, where="CAST(caption AS INTEGER) > 3")
    assert "decisions_custom" not in pool.tables()
