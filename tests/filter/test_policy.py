"""Policy files: directives, overrides, and one line for everything that can be wrong with one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.errors import REASONS, SettingsError, UsageError
from curate.filter.condition import conjuncts, names_read
from curate.filter.decide import ask, preview
from curate.filter.policy import POLICY_REASONS, load, parse, shipped
from curate.filter.settings import FilterSettings
from curate.store import Pool
from tests.shards import pools
from tests.shards.pools import Sample, sample_id

EXTRA = {
    "concept_ids": pa.array([[0], []], pa.list_(pa.int32())),
    "caption_entity": pa.array([True, False]),
    "caption_copies": pa.array([1, 20], pa.int64()),
    "phrase_words": pa.array([0, None], pa.int32()),
    "phrase_share": pa.array([0.0, None]),
    "masked_clip_vit_b_32_openai": pa.array([0.2, None], pa.float32()),
    "contaminated": pa.array([True, None]),
    "clip_dfn": pa.array([0.2, 0.3], pa.float32()),
    "image_cluster_named": pa.array([True, None]),
    "neg_clip_loss": pa.array([-0.2, -0.1], pa.float32()),
    "normsim_inf": pa.array([0.5, None], pa.float32()),
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Two rows, with the columns that some policies need beside what curate computes by itself."""
    folder = tmp_path_factory.mktemp("pools")
    made = pools.build(folder / "pool", [[Sample(), Sample(score=0.1)]])
    pq.write_table(pa.table({"sample_id": [sample_id(0, 0), sample_id(0, 1)], **EXTRA}), folder / "extra.parquet")
    curate.open(folder / "pool").attach(folder / "extra.parquet", on="sample_id", name="extra")
    return made


def test_every_shipped_policy_has_a_source_and_runs(pool: Pool) -> None:
    assert len(shipped()) >= 12
    for name in shipped():
        assert load(FilterSettings(policy=name)).sources
        subset = preview(pool, FilterSettings(policy=name, mode="quantile" if name == "laion_multi" else "absolute")).subset
        assert subset.user_reasons == () and subset.rows == 2


def test_policy_reasons_are_reasons() -> None:
    assert set(POLICY_REASONS) < REASONS.keys() and all(REASONS[name].outcome == "dropped" for name in POLICY_REASONS)


def test_directives_are_read() -> None:
    text = """-- A title: with a colon.
-- source: one
-- source: two
-- requires: clip_x
-- parameter: cut = 0.5
-- parameter: word = 'a b'
-- parameter: free = quantile
-- fraction: cut keeps 0.25 of rows scored by clip_score in low
-- groups: pixels
-- representative: clip_score DESC
SELECT part, row, clip_score < $cut AS low FROM samples -- parameter: not = 1
"""
    policy = parse("mine", "mine.sql", text)
    assert policy.sources == ("one", "two") and policy.requires == "clip_x" and policy.groups == "pixels"
    assert policy.parameters == {"cut": 0.5, "word": "a b", "free": None} and policy.representative == "clip_score DESC"
    assert (policy.fractions[0].fraction, policy.fractions[0].denominator, policy.fractions[0].rule) == (0.25, "rows scored", "low")


HEAD = "-- parameter: cut = 0.5\n"
WRONG = {
    "-- parametr: cut = 1\nSELECT 1": r"bad.sql, line 1: unknown directive 'parametr'; did you mean 'parameter'",
    "-- parameter: cut 1\nSELECT 1": r"line 1: write  parameter: NAME = VALUE",
    HEAD + "-- fraction: cut keeps 2 of rows scored by a in b\nSELECT 1": r"between 0 and 1",
    HEAD + "-- fraction: cut keeps 0.5 of all by a in b\nSELECT 1": r"rows scored or of rows left by RULE, not of 'all'",
    HEAD + "-- fraction: cot keeps 0.5 of rows scored by a in b\nSELECT 1": r"'cot' is not declared; did you mean 'cut'",
    "SELECT part, row,\n  clipscore < 1 AS low FROM samples": r"bad.sql, line 2: no column 'clipscore'; did you mean 'clip_score'",
    "SELECT part, row,\n\n  clip_score << AS low FROM samples": r"bad.sql, line 3: .*syntax error",
    "SELECT part, row, true AS low FROM sample": r"no table 'sample'; did you mean 'samples'",
    "SELECT part, row, clip_score AS low FROM samples": r"rule 'low' is FLOAT, not BOOLEAN",
    "SELECT row, part, true AS low FROM samples": r"part, row and a column per rule, in this order; found row, part, low",
    "SELECT part, row FROM samples": r"a column per rule",
    'SELECT part, row, true AS "Low Score" FROM samples': r"a rule cannot be called 'Low Score'",
    "SELECT part, row, true AS duplicate FROM samples": r"'duplicate' is not a policy's reason",
    "SELECT part, row, true AS http_not_found FROM samples": r"'http_not_found' is not a policy's reason",
    "SELECT part, row, true AS low FROM samples; DROP TABLE samples": r"exactly one SELECT",
    "CREATE TABLE x AS SELECT 1": r"exactly one SELECT",
    "SELECT part, row, clip_score < $cot AS low FROM samples": r"\$cot has no `-- parameter:` line",
    HEAD + "SELECT part, row, true AS low FROM samples": r"'cut' is declared and not used",
    "SELECT part, row, false AS low FROM samples WHERE row = 0": r"answers 1 lines for 1 of 2 rows.*not into WHERE",
    "SELECT part, row, false AS low FROM samples, range(2)": r"answers 4 lines for 2 of 2 rows",
    "SELECT part, row, caption::INTEGER > 1 AS low FROM samples": r"bad.sql, line 1: Conversion Error",
    "SELECT part, row, false AS low FROM read_csv('/etc/passwd')": r"bad.sql.*Permission Error",
    "-- representative: no_such DESC\nSELECT part, row, false AS low FROM samples": r"representative: no column 'no_such'",
    "-- groups: pixel\nSELECT part, row, false AS low FROM samples": r"no duplicate groups 'pixel'; did you mean 'pixels'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_policy_is_one_line_that_says_where(pool: Pool, tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.sql"
    file.write_text(text)
    with pytest.raises(SettingsError, match=WRONG[text]) as caught:
        preview(pool, FilterSettings(policy=str(file)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "name a policy"),
        ({"policy": "laion40m"}, "did you mean 'laion400m'"),
        ({"policy": "nowhere/x.sql"}, "no policy file"),
        ({"policy": "laion400m", "parameters": {"clip_cutt": 1.0}}, "did you mean 'clip_cut'"),
        ({"policy": "laion400m", "parameters": {"clip_cut": "much"}}, "'much' is not a number"),
        ({"policy": "laion400m", "fractions": {"image_bytes": 0.5}}, "declares no fraction for 'image_bytes'"),
        ({"policy": "datacomp_basic", "mode": "quantile"}, "declares no fraction"),
        ({"policy": "demo", "name": "Not This"}, "cannot name a policy"),
        ({"policy": "demo", "where": "true"}, "not both"),
        ({"where": "clip_score >"}, "where: syntax error"),
        ({"where": "true AS x FROM rows"}, "where: write one condition"),
        ({"where": "true; DROP TABLE samples"}, "where: "),
        ({"where": "clipscore > 1"}, "where: no column 'clipscore'; did you mean 'clip_score'"),
        ({"where": "clip_score > 0", "parameters": {"x": 1.0}}, "values in itself"),
    ],
)
def test_wrong_settings_are_one_line(pool: Pool, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        preview(pool, FilterSettings.model_validate(settings))
    assert "\n" not in str(caught.value)


def test_a_pool_without_rows_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plan a list first"):
        ask(Pool.create(tmp_path / "empty"), FilterSettings(policy="demo"))


def test_conjuncts_are_split_at_the_top_only() -> None:
    assert conjuncts("a > 1 AND (b OR c AND d) AND x LIKE '%ü AND %'") == ["(a > 1)", "(b OR (c AND d))", "(x ~~ '%ü AND %')"]
    assert conjuncts("a BETWEEN 1 AND 3") == ["(a BETWEEN 1 AND 3)"]


def test_names_read_sees_through_subqueries() -> None:
    read = names_read("WITH x AS (SELECT * FROM samples WHERE s < $cut) SELECT part, row, a.b OVER_IT FROM x a JOIN scores_y USING (part)")
    assert read is not None and {"samples", "scores_y", "s", "b", "part", "row"} <= read
