"""Cuts are read off a policy's SQL, however it is written."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from curate.catalog.cuts import Cut, cuts_of
from curate.catalog.subsets import Subset
from curate.schema import resources


def cuts(rule: str, **parameters: object) -> list[tuple[str, str, float]]:
    text = f"-- an é before it\nSELECT part, row, {rule} AS rule FROM samples"
    found = cuts_of(duckdb.connect(), Subset("x", policy_text=text, parameters=parameters))
    assert all(cut.rule == "rule" for cut in found)
    return [(cut.expression, cut.operator, cut.value) for cut in found]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("clip_score < 0.3", [("clip_score", "<", 0.3)]),
        ("0.3 > clip_score", [("clip_score", "<", 0.3)]),
        ("coalesce(clip_score < $cut, false)", [("clip_score", "<", 0.25)]),
        ("coalesce(clip_score, -1.0) < $cut", [("clip_score", "<", 0.25)]),
        ("NOT coalesce(clip_score > 0.3, false)", [("clip_score", "<=", 0.3)]),
        ("a < 5 OR b > -1.5", [("a", "<", 5.0), ("b", ">", -1.5)]),
        ("greatest(w, h) > 3 * least(w, h)", [("greatest(w, h) / nullif(least(w, h), 0)", ">", 3.0)]),
        ("count(*) OVER (PARTITION BY é) >= 20", [("count(*) OVER (PARTITION BY é)", ">=", 20.0)]),
        ("caption_language <> 'en'", []),
        ("a < b", []),
        ("a < $unknown", []),
        ("1 < 2", []),
    ],
)
def test_comparisons_with_a_number(rule: str, expected: list[tuple[str, str, float]]) -> None:
    assert cuts(rule, cut=0.25) == expected


def test_text_that_is_no_select_has_no_cuts() -> None:
    assert cuts_of(duckdb.connect(), Subset("x", policy_text="nonsense ;")) == []
    assert cuts_of(duckdb.connect(), Subset("x")) == []


@pytest.mark.parametrize("path", sorted((resources("conf") / "policy").glob("*.sql")), ids=lambda path: path.stem)
def test_every_shipped_policy_shows_its_cut_on_a_clip_score(path: Path) -> None:
    if "clip_cut" in path.read_text():
        found = cuts_of(duckdb.connect(), Subset("x", policy_text=path.read_text(), parameters={"clip_cut": 0.2}))
        column = "clip_dfn" if path.stem == "dfn_top15" else "clip_score"
        assert Cut("clip_score_low", column, "<", 0.2) in found
