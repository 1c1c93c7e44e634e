"""Views: everything joined once, and a connection that can read the pool and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from curate.catalog import views
from curate.errors import UsageError
from curate.store import Pool
from tests.catalog import pools

ATTACKS = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '{folder}/secret.parquet'",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "EXPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/out.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_paths = ['/etc/passwd']",
    "SELECT * FROM local_table",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_connection_reaches_nothing_but_the_pool(read_only_pool: Pool, tmp_path: Path, attack: str) -> None:
    duckdb.sql("SELECT 1 AS secret").write_parquet(str(tmp_path / "secret.parquet"))
    local_table = pa.table({"x": [1]})
    assert local_table.num_rows == 1
    with views.connect(read_only_pool) as connection, pytest.raises(duckdb.Error):
        connection.execute(attack.format(folder=tmp_path)).fetchall()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.parquet"]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1 AS part) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY (SELECT 1 AS part) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
        "SELECT 1; COPY (SELECT 1 AS part) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
        "DROP VIEW samples",
        "SET threads = 1",
        "",
    ],
)
def test_only_one_reading_statement_passes(pool: Pool, sql: str) -> None:
    """DuckDB itself would overwrite a file that it may read, so these must not reach it."""
    file = Path(pool.snapshot("rows").paths()[0])
    before = file.read_bytes()
    with views.connect(pool) as connection, pytest.raises(UsageError, match="one SELECT"):
        views.one_select(connection, sql.format(file=file))
    assert file.read_bytes() == before


def test_reading_statements_pass(read_only_pool: Pool) -> None:
    with views.connect(read_only_pool) as connection:
        for sql in ("FROM samples", "WITH a AS (SELECT 1) FROM a", "DESCRIBE samples", "SHOW TABLES", "EXPLAIN SELECT 1", "(SELECT 1)"):
            connection.execute(views.one_select(connection, sql)).fetchall()


def test_samples_has_each_input_row_once_with_its_end(read_only_pool: Pool) -> None:
    with views.connect(read_only_pool) as connection:
        found = connection.execute("SELECT part, row, outcome, reason, phase, keep FROM samples ORDER BY part, row").fetchall()
    expected = [(part, n, row.reason) for part, rows in enumerate(pools.usual_parts()) for n, row in enumerate(rows)]
    assert [(part, row, reason) for part, row, _, reason, _, _ in found] == expected
    ends = {reason: (outcome, phase, keep) for _, _, outcome, reason, phase, keep in found}
    assert ends == {
        None: ("kept", None, True),
        "duplicate_row": ("dropped", "plan", False),
        "prefilter": ("dropped", "prefilter", False),
        "opt_out": ("dropped", "fetch", False),
        "http_not_found": ("failed", "fetch", False),
        "decode_failed": ("failed", "score", False),
        "caption_short": ("dropped", "filter", False),
        "clip_score_low": ("dropped", "filter", False),
        "duplicate": ("dropped", "filter", False),
    }


def test_source_columns_stand_bare_only_where_the_name_is_free(read_only_pool: Pool) -> None:
    with views.connect(read_only_pool) as connection:
        names = [name for (name,) in connection.execute("SELECT column_name FROM (DESCRIBE samples)").fetchall()]
        assert {"source.similarity", "similarity", "source.URL", "url", "clip_tiny", "clip_score"} <= set(names)
        assert len({name.lower() for name in names}) == len(names)
        same = connection.execute('SELECT count(*) FROM samples WHERE similarity = "source.similarity"').fetchone()
    assert same == (12,)


def test_without_a_policy_scored_rows_are_pending(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", policy=None)
    with views.connect(pool) as connection:
        counts = dict(connection.execute("SELECT outcome, count(*) FROM samples GROUP BY ALL").fetchall())
    assert counts == {"pending": 7, "dropped": 3, "failed": 2}


def test_an_empty_pool_has_an_empty_ledger_with_all_columns(tmp_path: Path) -> None:
    with views.connect(Pool.create(tmp_path / "pool")) as connection:
        assert connection.execute("SELECT url, http_status, group_id, outcome FROM samples").fetchall() == []


def test_parts_that_lack_a_newer_column_show_null(pool: Pool) -> None:
    with views.connect(pool) as connection:
        before = connection.execute("SELECT version FROM (SELECT 1 AS version)").fetchone()
    assert before == (1,)
    narrow = pa.schema([field for field in pools.SCORES_SCHEMA if field.name != "clip_tiny"])
    data = pool.snapshot("scores_base").read(columns=narrow.names, parts=[1])
    file = pool.write_part("scores_base", 1, data, "older", narrow)
    with pools.claim(pool, {"scores_base": pools.SCORES_SCHEMA}) as run:
        run.commit("scores_base", [file])
    with views.connect(pool) as connection:
        scored = connection.execute("SELECT part, count(clip_score) FROM samples GROUP BY part ORDER BY part").fetchall()
    assert scored == [(0, 5), (1, 0)]


def test_versions_pin_a_table_to_what_it_was(pool: Pool) -> None:
    old = pool.snapshot("decisions_usual").version
    lines = pool.snapshot("decisions_usual").read(parts=[0])
    none = lines.set_column(2, "keep", pa.array([False] * 6)).set_column(3, "reason", pa.array(["caption_short"] * 6))
    pools.replace_part(pool, "decisions_usual", 0, none, pool.snapshot("decisions_usual").schema)
    with views.connect(pool) as now, views.connect(pool, versions={"decisions_usual": old}) as then:
        assert now.execute("SELECT count(*) FROM samples WHERE keep").fetchone() == (2,)
        assert then.execute("SELECT count(*) FROM samples WHERE keep").fetchone() == (4,)


def test_an_unknown_policy_offers_the_nearest(read_only_pool: Pool) -> None:
    with pytest.raises(UsageError, match="did you mean 'usual'"):
        views.connect(read_only_pool, policy="usuall")


def test_current_policy_and_clip_column_follow_the_document(pool: Pool) -> None:
    data = pool.snapshot("decisions_usual").read()
    pools.replace_part(pool, "decisions_zero", 0, data.slice(0, 0), pool.snapshot("decisions_usual").schema)
    assert views.current_policy(pool) == "usual", "zero has no subset yet"
    pools.write_subset(pool, "zero")
    os.utime(pool.path / "subsets" / "usual.json", (1, 1))
    assert views.current_policy(pool) == "zero"
    pool.write_document(views.CURRENT, {"policy": "usual", "clip_score": "clip_tiny"})
    assert views.current_policy(pool) == "usual"
    assert views.current_clip_column(pool, views.pin(pool)) == "clip_tiny"
