"""A small ablation from its file to its table: rows, runs, resumption, what is held out, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import curate as library
from curate.ablate.arms import candidates, chosen
from curate.ablate.settings import load
from curate.errors import SettingsError
from curate.progress import Silent
from curate.settings import names
from curate.store import Pool
from tests.ablate.pools import held_out, scene_pool
from tests.train.pictures import TINY
from tests.train.test_filter_effect import drawn

ROWS, SEEDS, BATCH = 70, 2, 8
TRAIN = {"model": TINY, "batch_size": BATCH, "warmup_steps": 1, "threads": 1, "workers": 0}
ARMS = {
    "wide": {"where": "clip_score >= 0.3"},
    "clip": {"sweep": {"column": "clip_score", "fractions": [0.25, 0.5]}},
    "best": {"policy": "clip_top30", "fractions": {"clip_cut": 0.5}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of scenes with scores, of which one picture is also held out; ten have no score."""
    folder = tmp_path_factory.mktemp("ablate")
    rows = drawn(ROWS, 0, "train")
    scores = [None if at < 10 else at % 40 / 40 for at in range(len(rows))]
    scene_pool(folder / "pool", rows, scores)
    held_out(folder / "held_out.tar", [*drawn(12, 0, "eval"), replace(rows[-1], index=0)])
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to ablate in."""
    return shutil.copytree(made, tmp_path / "made")


def conf(folder: Path, **said: Any) -> Path:
    """A file of settings."""
    values = {"pool": str(folder / "pool"), "seeds": SEEDS, "samples_seen": 2 * BATCH, "train": TRAIN, "arms": ARMS}
    values["evaluate"] = {"data": str(folder / "held_out.tar"), "top": [1, 5]}
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(values | said, sort_keys=False))
    return file


def rows_of(folder: Path, **said: Any) -> tuple[Any, dict[str, list[Any]]]:
    pool, settings = Pool.open(folder / "pool"), load(conf(folder, **said))
    among = candidates(pool, settings)
    return among, chosen(pool, among, settings)


class StopsAfter(Silent):
    """Somebody who presses Ctrl-C when a number of runs are done."""

    def __init__(self, runs: int) -> None:
        self.left = runs

    def advance(self, task: str, n: int = 1, **facts: object) -> None:
        """Counts trainings."""
        self.left -= bool(facts)
        if not self.left:
            raise KeyboardInterrupt


def test_a_table_comes_out_and_what_was_trained_is_not_trained_again(folder: Path, curate: Callable) -> None:
    file, runs = conf(folder, arms={"wide": ARMS["wide"], "same": ARMS["wide"]}), folder / "pool" / "ablations" / "runs"
    with pytest.raises(KeyboardInterrupt):
        library.open(folder / "pool", StopsAfter(2)).ablate(file)
    assert len(list(runs.glob("*.parquet"))) == 2
    said = curate("ablate", file)
    assert said.code == 0 and "against random" not in said.out
    found = json.loads((folder / "pool" / "ablations" / "small" / "result.json").read_text())
    (data,) = library.open(folder / "pool").sql("SELECT count(*) AS n FROM samples WHERE clip_score >= 0.3").rows()
    arms = {arm["name"]: arm for arm in found["arms"]}
    assert list(arms) == ["wide", "same"]
    assert data["n"] - 1 <= arms["wide"]["rows"] <= data["n"]  # one of them is held out
    assert (found["items"], found["seeds"], found["runs"], found["trained"]) == (13, SEEDS, 2 * SEEDS, 2)  # equal rows are trained once
    told = {"value": 0, "low": 0, "high": 0, "p": 1, "verdict": "no difference"}
    assert found["winner"] is None and found["pairs"] == [{"a": "wide", "b": "same", "difference": told}]
    assert {arm["difference"]["verdict"] for arm in arms.values()} <= {"better", "worse", "no difference"}
    for line in arms.values():
        assert line["difference"]["value"] == pytest.approx(line["figure"]["value"] - line["random"]["value"])
    assert all(name in said.out for name in arms) and found["conclusion"] in said.out
    page = (folder / "pool" / "ablations" / "small" / "index.html").read_text()
    assert page.count("<circle") == 4 and "same" in page and not list(runs.glob("*.model"))

    next(runs.glob("*.parquet")).unlink()
    again = library.open(folder / "pool").ablate(file)
    assert again.trained == 1 and again.to_dict() | {"trained": 0} == {name: found[name] for name in again.to_dict()} | {"trained": 0}
    other = library.open(folder / "pool").ablate(file, "metric=zero_shot/top_1_accuracy", "arms.third.where=clip_score >= 0.3")
    assert other.trained == 0 and other.metric == ("zero_shot/top_1_accuracy",)


def test_an_arm_is_the_rows_that_its_policy_keeps_and_none_of_the_evaluation(made: Path) -> None:
    among, arms = rows_of(made)
    pool = library.open(made / "pool")
    scored = pool.sql("SELECT sample_id, clip_score FROM samples WHERE tar_file IS NOT NULL ORDER BY part, row").rows()
    ids = among.rows["sample_id"].to_pylist()
    assert set(ids) == {row["sample_id"] for row in scored} - {scored[-1]["sample_id"]}
    have = sorted((row for row in scored[:-1] if row["clip_score"] is not None), key=lambda row: (-row["clip_score"], row["sample_id"]))
    for share in (0.25, 0.5):
        places = arms[f"clip@{share}"][0]
        assert {ids[at] for at in places} == {row["sample_id"] for row in have[: int(share * len(have) + 0.5)]}
    kept = pool.filter("clip_top30", preview=True, fractions={"clip_cut": 0.5}).subset.kept
    assert kept - 1 <= len(arms["best"][0]) <= kept
    assert np.array_equal(*arms["best"])


def test_random_rows_are_drawn_by_the_seed_alone(made: Path) -> None:
    among, _ = rows_of(made)
    few, many, other = among.random(10, 0), among.random(30, 0), among.random(10, 1)
    assert len(set(few.tolist())) == 10 and set(few.tolist()) <= set(many.tolist()) and not np.array_equal(few, other)


def test_a_policy_that_draws_is_drawn_anew_for_each_seed(made: Path) -> None:
    _, arms = rows_of(made, arms={"random50": {"policy": "random", "parameters": {"share": 0.5}}})
    _, fixed = rows_of(made, arms={"random50": {"policy": "random", "parameters": {"share": 0.5, "seed": 0}}})
    assert not np.array_equal(*arms["random50"])
    assert np.array_equal(*fixed["random50"]) and np.array_equal(fixed["random50"][0], arms["random50"][0])


def test_a_share_of_the_pool_is_held_out_by_picture(folder: Path) -> None:
    file = conf(folder, held_out=0.3, arms={"wide": {"where": "true"}}, candidates="clip_score IS NOT NULL")
    settings = load(file)
    among = candidates(Pool.open(folder / "pool"), settings)
    apart, left = (set(table["image_sha256"].to_pylist()) for table in (among.held_out, among.rows))
    assert apart and not apart & left and 0.1 < among.held_out.num_rows / (among.held_out.num_rows + among.rows.num_rows) < 0.5
    found = library.open(folder / "pool").ablate(file)
    assert found.items == among.held_out.num_rows and found.candidates == among.rows.num_rows
    assert found.lines[0].difference.value == 0 and found.runs == SEEDS  # all rows, beside all rows: the same trainings


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ({"metric": "retrieval/image_to_text_recall_at_9"}, "image_to_text_recall_at_"),
        ({"arms": {"clip_top3": None}}, "did you mean 'clip_top30'"),
        ({"arms": {"mine": {"policy": "coyo", "where": "true"}}}, "one of policy, where and sweep"),
        ({"arms": {"mine": {"sweep": {"column": "clip_scor"}}}}, "did you mean 'clip_score'"),
        ({"arms": {"mine": {"sweep": {"column": "clip_score", "fractions": [1.5]}}}}, "not above 1"),
        ({"arms": {"clip": ARMS["clip"], "clip@0.5": {"where": "true"}}}, "two arms are called 'clip@0.5'"),
        ({"arms": {"random": {"where": "true"}}}, "cannot be called 'random'"),
        ({"arms": {"mine": {"where": "clip_score > 0.95"}}}, "less than train.batch_size=8"),
        ({"arms": {"mine": {"were": "true"}}}, "did you mean"),
        ({"candidates": "clip_score > 9"}, "candidates: clip_score > 9"),
        ({"candidates": "nonsense"}, "nonsense"),
        ({"seeds": 1}, "greater than or equal to 2"),
        ({"evaluate": {"data": None}}, "held_out=0.1"),
        ({"evaluate": {"data": "nowhere"}}, "nowhere"),
        ({"pool": ""}, "--pool POOL"),
        ({"train": "tiny_cn"}, "did you mean 'tiny_cnn'"),
    ],
)
def test_a_wrong_file_is_one_line_before_anything_is_trained(
    said: dict[str, Any], hint: str, made: Path, tmp_path: Path, curate: Callable
) -> None:
    folder = tmp_path
    (folder / "pool").symlink_to(made / "pool")
    (folder / "held_out.tar").symlink_to(made / "held_out.tar")
    answer = curate("ablate", conf(folder, **said))
    assert answer.code == 2 and hint in answer.err and answer.err.count("\n") == 1, answer.err
    assert not (made / "pool" / "ablations").exists()


def test_no_file_and_a_missing_one_are_named(curate: Callable, made: Path) -> None:
    for arguments, hint in ((["seeds=3"], "name at least one"), (["nowhere.yaml"], "nowhere.yaml"), (["nowhere"], "no ablate is called")):
        answer = curate("ablate", *arguments, "--pool", made / "pool")
        assert answer.code == 2 and hint in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize("name", names("ablate"))
def test_every_shipped_file_composes(name: str) -> None:
    settings = load(name, ("seeds=2",))
    assert settings.pool and settings.seeds == 2 and settings.training(1).samples_seen == settings.samples_seen


def test_the_file_in_the_readme_composes(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent.parent / "README.md").read_text()
    (tmp_path / "shown.yaml").write_text("candidates:" + text.split("```yaml\ncandidates:")[1].split("```")[0])
    settings = load(tmp_path / "shown.yaml")
    assert list(settings.arms) == ["clip_top30", "half", "mine", "large", "clip"] and len(settings.metric) == 2


def test_a_pools_own_evaluation_is_used_where_the_file_says_nothing() -> None:
    settings = load("policies", (), {"data": "held.tar", "name": "stamps"})
    assert (settings.evaluate.data, settings.evaluate.name) == ("held.tar", "stamps")
    with pytest.raises(SettingsError, match="did you mean"):
        load("policies", ("seds=3",))
