"""Commands on a small pool: what they print, what they write, and that JSON is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest


def test_sql_prints_a_table(read_only: Path, curate: Callable) -> None:
    said = curate(
        "sql", read_only, "SELECT reason, count(*) AS n FROM samples WHERE NOT coalesce(keep, false) GROUP BY ALL ORDER BY n DESC, reason"
    )
    assert said.code == 0
    assert said.out.split("\n")[0].split() == ["reason", "n"]
    assert "clip_score_low" in said.out


def test_sql_prints_json_and_csv(read_only: Path, curate: Callable) -> None:
    query = "SELECT count(*) AS n FROM samples"
    assert json.loads(curate("sql", read_only, query, "--format", "json").out) == [{"n": 12}]
    assert curate("sql", read_only, query, "--format", "csv").out.split() == ['"n"', "12"]


def test_sql_writes_files_by_their_suffix(read_only: Path, tmp_path: Path, curate: Callable) -> None:
    query = "SELECT sample_id FROM samples WHERE keep"
    for name in ("kept.parquet", "kept.csv", "kept.json", "kept.txt"):
        assert curate("sql", read_only, query, "-o", tmp_path / name).code == 0
    assert pq.read_table(tmp_path / "kept.parquet").num_rows == 4
    assert len(json.loads((tmp_path / "kept.json").read_text())) == 4
    assert len((tmp_path / "kept.csv").read_text().split()) == 5
    assert (tmp_path / "kept.txt").read_text().startswith("sample_id")


def test_sql_refuses_parquet_at_a_terminal_and_what_is_no_select(read_only: Path, curate: Callable) -> None:
    assert curate("sql", read_only, "SELECT 1", "--format", "parquet").code == 2
    assert curate("sql", read_only, "DROP TABLE rows").code == 2
    assert "did you mean 'clip_score'" in curate("sql", read_only, "SELECT clip_scor FROM samples").err


@pytest.mark.parametrize("command", ["funnel", "verify", "digest", "status"])
def test_reports_come_as_text_and_as_json(command: str, read_only: Path, curate: Callable) -> None:
    text, data = curate(command, read_only), curate(command, read_only, "--format", "json")
    assert text.code == data.code == 0
    assert text.out.strip() and isinstance(json.loads(data.out), dict)


def test_digest_is_two_lines(read_only: Path, curate: Callable) -> None:
    lines = curate("digest", read_only).out.splitlines()
    assert [line.split()[0] for line in lines] == ["content", "scores"]
    assert all(len(line.split()[1]) == 64 for line in lines)


def test_verify_ends_with_3_where_a_file_is_not_what_was_published(pool: Path, curate: Callable) -> None:
    tar = next((pool / "tars").rglob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    said = curate("verify", pool)
    assert said.code == 3 and "FAILED" in said.out and said.err.count("\n") == 1
    assert json.loads(curate("verify", pool, "--format", "json").out)["ok"] is False


def test_history_tells_one_urls_story(read_only: Path, curate: Callable) -> None:
    said = curate("history", read_only, "http://a.example/0/3.jpg")
    assert said.code == 0 and "http_not_found" in said.out
    events = json.loads(curate("history", read_only, "http://a.example/0/3.jpg", "--format", "json").out)
    assert [event["phase"] for event in events][:1] == ["plan"]
    assert curate("history", read_only, "http://a.example/none.jpg").code == 2


def test_filter_previews_a_condition_and_writes_nothing(pool: Path, curate: Callable) -> None:
    before = sorted(path.name for path in (pool / "tables").iterdir())
    said = curate("filter", pool, "--where", "clip_score > 0.34", "--preview", "name=sharp")
    assert said.code == 0 and said.out.startswith("sharp: 3 of 12 rows kept (preview")
    assert sorted(path.name for path in (pool / "tables").iterdir()) == before


def test_filter_applies_a_condition(pool: Path, curate: Callable) -> None:
    assert curate("filter", pool, "name=sharp", "--where", "clip_score > 0.34").code == 0
    rows = json.loads(curate("sql", pool, "SELECT count(*) AS n FROM samples WHERE keep", "--policy", "sharp", "--format", "json").out)
    assert rows == [{"n": 3}]


def test_filter_refuses_what_is_no_parameter(pool: Path, curate: Callable) -> None:
    said = curate("filter", pool, "clip_top30", "clip_ct=0.3")
    assert said.code == 2 and "clip_cut" in said.err


def test_doctor_says_what_to_install(curate: Callable) -> None:
    found = {line["name"]: line for line in json.loads(curate("doctor", "--format", "json").out)}
    assert found["python"]["ok"] and {"cores", "memory", "disk here", "extra train", "extra ray", "java", "gpu", "dns"} <= set(found)
    assert all(line["advice"] for name, line in found.items() if not line["ok"] and name != "gpu")
    assert curate("doctor").out.count("\n") >= len(found)


def test_check_shows_steps_and_every_setting(curate: Callable) -> None:
    said = curate("check", "ingest", "input.path=list.csv", "fetch.attempts=2")
    assert said.code == 0
    assert said.out.startswith("recipe ingest: plan → prefilter → fetch")
    assert "list.csv" in said.out and "attempts" in said.out


def test_eval_takes_its_data_as_option_or_as_setting(read_only: Path, tmp_path: Path, curate: Callable) -> None:
    for said in (["--data", tmp_path / "none.tar"], [f"data={tmp_path / 'none.tar'}"]):
        refused = curate("eval", read_only, tmp_path, *said)
        assert refused.code == 2 and "none.tar" in refused.err and refused.err.count("\n") == 1


def test_a_new_length_of_training_replaces_the_stored_one(pool: Path, curate: Callable) -> None:
    from curate.store import Pool

    Pool.open(pool).write_document("settings", {"recipe": "demo", "settings": {"train": {"samples_seen": 999, "batch_size": 2}}})
    refused = curate("train", pool, "--where", "keep AND clip_score > 9", "epochs=1")
    assert refused.code == 2 and "there are 0 samples" in refused.err
