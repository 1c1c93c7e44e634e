"""Settings: what composes, what is refused, and how a refusal reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from curate.errors import SettingsError
from curate.schema import resources
from curate.settings import GROUPS, Settings, build, compose, names

GROUP_FILES = [(key, name) for key in GROUPS for name in names(key)]


class Fetch(Settings):
    timeout_seconds: float = Field(default=3, gt=0)
    allow: tuple[str, ...] = ()
    mode: Literal["keep", "drop"] = "keep"


class Engine(Settings):
    name: str = "local"
    workers: int = 0


class Tree(Settings):
    path: str = "list.txt"
    engine: Engine = Engine()
    fetch: Fetch | None = Fetch()
    by_name: dict[str, Fetch] = {}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text("path: a.csv\nfetch:\n  timeout_seconds: 5\n")
    return file


def refusal(recipe: Path, *overrides: str, model: type[Settings] = Tree) -> str:
    with pytest.raises(SettingsError) as caught:
        build(model, compose(str(recipe), overrides))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", names("recipe"))
def test_every_recipe_composes(name: str) -> None:
    from curate.recipe import RecipeSettings

    needed = [] if "path" in compose(name).get("input", {}) else ["input.path=list.csv"]
    build(RecipeSettings, compose(name, needed))


@pytest.mark.parametrize(("key", "name"), GROUP_FILES)
def test_every_group_file_composes_into_the_recipe(key: str, name: str) -> None:
    from curate.recipe import RecipeSettings

    build(RecipeSettings, compose("ingest", ["input.path=list.csv", f"{key}={name}"]))


def test_conf_holds_no_file_that_no_test_composes() -> None:
    folders = {path.parent.name for path in resources("conf").rglob("*.yaml")}
    assert folders <= {"recipe", "ablate", *GROUPS}  # ablations are composed in tests/ablate


def test_overrides_win_over_the_group_and_the_group_over_the_recipe(recipe: Path) -> None:
    recipe.write_text("engine:\n  name: other\n  workers: 9\n")
    engine = compose(str(recipe), ["engine.workers=2", "engine=local"])["engine"]
    assert (engine["name"], engine["workers"], engine["tries"]) == ("local", 2, 3)


def test_a_recipe_may_name_a_group_and_the_command_line_another(recipe: Path) -> None:
    recipe.write_text("engine: local\n")
    assert compose(str(recipe))["engine"]["name"] == "local"
    recipe.write_text("engine: nowhere\ntrain: tiny_cnn\n")
    composed = compose(str(recipe), ["engine=local", "train.lr=0.5", "train=tiny_vit"])
    assert composed["engine"]["name"] == "local"
    assert (composed["train"]["epochs"], composed["train"]["lr"]) == (20, 0.5)
    assert composed.origins["train.lr"] == "the command line"
    assert composed.origins["train.epochs"] == "conf/train/tiny_vit.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("similarity > 0.3 AND WIDTH >= 256", "similarity > 0.3 AND WIDTH >= 256"),
        ("caption = 'it''s'", "caption = 'it''s'"),
        ("back\\slash\\", "back\\slash\\"),
        ("\\'", "\\'"),
        ("a,b=c", "a,b=c"),
        ("/data/*.parquet", "/data/*.parquet"),
        ("s3://bucket/a b?x=1", "s3://bucket/a b?x=1"),
        ("2024", "2024"),
        ("'2024'", "2024"),
        ("", ""),
        ("größe 貓", "größe 貓"),
    ],
)
def test_text_needs_no_quotes_but_the_shells(recipe: Path, text: str, value: str) -> None:
    assert build(Tree, compose(str(recipe), [f"path={text}"])).path == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("-2.5", -2.5), ("1e-3", 1e-3), ("true", True), ("null", None), ("[1,2]", [1, 2]), ("{a: 1}", {"a": 1}), ("1e", "1e")],
)
def test_numbers_lists_and_mappings_are_values(recipe: Path, text: str, value: Any) -> None:
    assert compose(str(recipe), [f"some.key={text}"])["some"]["key"] == value


def test_networks_in_a_list_need_no_quotes(recipe: Path) -> None:
    tree = build(Tree, compose(str(recipe), ["fetch.allow=[127.0.0.0/8, ::1/128]"]))
    assert tree.fetch and tree.fetch.allow == ("127.0.0.0/8", "::1/128")


def test_a_section_can_be_switched_off(recipe: Path) -> None:
    assert build(Tree, compose(str(recipe), ["fetch=null"])).fetch is None


def test_an_unknown_key_names_its_file_and_the_nearest(recipe: Path) -> None:
    recipe.write_text("fetch:\n  timeout_second: 5\n")
    assert refusal(recipe) == f"unknown key 'fetch.timeout_second' from {recipe}; did you mean 'fetch.timeout_seconds'?"


def test_an_unknown_key_of_the_command_line_says_so(recipe: Path) -> None:
    assert refusal(recipe, "ftech.mode=keep") == "unknown key 'ftech' from the command line; did you mean 'fetch'?"


def test_an_unknown_key_like_nothing_lists_what_there_is(recipe: Path) -> None:
    assert refusal(recipe, "fetch.xyzzy=1").endswith("there are: fetch.allow, fetch.mode, fetch.timeout_seconds")


def test_an_unknown_key_below_a_mapping_is_found(recipe: Path) -> None:
    assert "did you mean 'by_name.any.mode'" in refusal(recipe, "by_name.any.mod=keep")


def test_a_wrong_value_says_what_is_allowed(recipe: Path) -> None:
    assert refusal(recipe, "fetch.timeout_seconds=-1") == "fetch.timeout_seconds from the command line: must be greater than 0, not -1"
    assert refusal(recipe, "fetch.mode=kep") == "fetch.mode from the command line: must be 'keep' or 'drop', not 'kep'"


def test_a_wrong_value_of_a_file_names_the_file(recipe: Path) -> None:
    recipe.write_text("engine:\n  workers: many\n")
    assert str(recipe) in refusal(recipe)


def test_a_missing_key_is_asked_for(recipe: Path) -> None:
    class Strict(Settings):
        path: str
        fetch: Any = None
        other: int

    assert refusal(recipe, model=Strict) == "other is required: add  other=…"


@pytest.mark.parametrize(
    "override", ["nonsense", "=3", "a b=3", "~path", "+path=3", "hydra.run.dir=x", "recipe=ingest", "path=${fetch}", "path=[1"]
)
def test_what_is_no_override_is_refused(recipe: Path, override: str) -> None:
    if override == "path=[1":  # no list: text
        assert build(Tree, compose(str(recipe), [override])).path == "[1"
        return
    with pytest.raises(SettingsError):
        compose(str(recipe), [override])


@pytest.mark.parametrize("text", ["path: ${fetch}", "fetch: {_target_: os.system}", "defaults: [engine]", "- a", "a: [", "\t"])
def test_files_hold_plain_values_only(recipe: Path, text: str) -> None:
    recipe.write_text(text)
    with pytest.raises(SettingsError):
        compose(str(recipe))


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'ingest'"):
        compose("ingst")
    with pytest.raises(SettingsError, match="did you mean 'local'"):
        compose("ingest", ["engine=locl"])
    with pytest.raises(SettingsError, match="does not exist"):
        compose("nowhere.yaml")
