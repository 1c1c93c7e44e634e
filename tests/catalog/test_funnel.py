"""The funnel: every row is counted once, and rules are told apart."""

from __future__ import annotations

import json
from pathlib import Path

from curate.catalog.funnel import funnel
from curate.store import Pool
from tests.catalog import pools


def test_each_row_leaves_once(read_only_pool: Pool) -> None:
    found = funnel(read_only_pool)
    assert (found.rows, found.kept, found.dropped, found.failed, found.pending) == (12, 4, 6, 2, 0)
    assert [(stage.name, stage.rows_in, stage.rows_out) for stage in found.stages] == [
        ("plan", 12, 11),
        ("prefilter", 11, 10),
        ("fetch", 10, 8),
        ("score", 8, 7),
        ("filter", 7, 4),
    ]
    assert sum(reason.first for stage in found.stages for reason in stage.reasons) == 8


def test_rules_show_what_they_do_first_alone_and_only(read_only_pool: Pool) -> None:
    rules = {reason.reason: (reason.first, reason.alone, reason.only) for reason in funnel(read_only_pool).stages[-1].reasons}
    assert list(rules) == pools.RULES, "in the policy's order"
    assert rules == {"caption_short": (1, 1, 0), "clip_score_low": (1, 2, 1), "duplicate": (1, 1, 1)}


def test_a_rule_that_is_never_first_still_shows(tmp_path: Path) -> None:
    parts = [[pools.Row("a", clip=0.1, failed_rules=["caption_short", "clip_score_low"])], [pools.Row("bb", clip=0.9)]]
    rules = {reason.reason: reason for reason in funnel(pools.build(tmp_path / "pool", parts)).stages[-1].reasons}
    assert (rules["clip_score_low"].first, rules["clip_score_low"].alone, rules["clip_score_low"].only) == (0, 1, 0)


def test_rows_that_wait_are_pending_where_they_wait(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", policy=None)
    with pools.claim(pool, {"fetched": pool.snapshot("fetched").schema}) as run:
        run.replace_all("fetched", pool.snapshot("fetched").files[:1])
    found = funnel(pool)
    waiting = {stage.name: stage.pending for stage in found.stages}
    assert waiting == {"plan": 0, "prefilter": 0, "fetch": 3, "score": 0}
    assert found.rows == found.kept + found.dropped + found.failed + found.pending == 12


def test_text_and_json_tell_the_same(read_only_pool: Pool) -> None:
    found = funnel(read_only_pool)
    assert "12 rows = kept 4 + dropped 6 + failed 2 + pending 0" in found.text()
    assert "clip_score_low" in found.text() and "alone 2, only this 1" in found.text()
    assert json.loads(json.dumps(found.to_dict()))["stages"][4]["reasons"][1]["alone"] == 2
