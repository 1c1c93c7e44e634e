"""What `curate estimate` says of a list, beside what the whole list then gives."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate as package
from curate import steps
from curate.catalog.sql import query
from curate.catalog.status import status
from curate.errors import InputError, UsageError
from curate.forecast import Estimate, estimate, wilson
from curate.recipe import Recipe, run_recipe
from curate.store import Pool
from tests.e2e.lean_server import REASONS, expected, serving, url

ROWS, SAMPLE, PORT = 2_000, 500, 18473
"""The port is part of the addresses and so of the ids: with a fixed one the same rows are sampled every time."""
SETTINGS = ('fetch.allow_addresses=["127.0.0.0/8"]', "fetch.attempts=1", "fetch.host_interval_seconds=0.01", "engine.workers=2")
POLICY = "filter.where=original_width >= 300"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    for _ in range(60):  # another run of these tests may hold the port for a while
        with serving(PORT) as found:
            if found == PORT:
                yield found
                return
        time.sleep(1)
    raise RuntimeError(f"port {PORT} is in use")


@pytest.fixture(scope="module")
def listed(port: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimate") / "list.parquet"
    urls = [url(number, port) for number in range(ROWS)]
    captions = [f"caption {number} " + "word " * (number % 9) for number in range(ROWS)]
    pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    return path


@pytest.fixture(scope="module")
def said(listed: Path) -> Estimate:
    before = set(Path(tempfile.gettempdir()).glob("curate-estimate-*"))
    found = estimate(str(listed), [*SETTINGS, POLICY], rows=SAMPLE, price=0.5)
    assert set(Path(tempfile.gettempdir()).glob("curate-estimate-*")) == before, "the sample's pool is removed"
    return found


@pytest.fixture(scope="module")
def whole(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("whole") / "pool"
    recipe = Recipe("ingest", (steps.plan, steps.fetch, steps.score, steps.filter))
    run_recipe(recipe, folder, [f"input.path={listed}", *SETTINGS, POLICY, "filter.groups=none"])
    return Pool.open(folder)


def within(interval: object, truth: float) -> bool:
    return getattr(interval, "low") <= truth <= getattr(interval, "high")  # noqa: B009


def test_the_whole_list_ends_within_the_intervals(said: Estimate, whole: Pool) -> None:
    sql = """SELECT count(*) FILTER (tar_file IS NOT NULL) AS good, count(*) FILTER (outcome = 'kept') AS kept, sum(t.bytes_read) AS bytes
        FROM samples LEFT JOIN telemetry_fetch AS t USING (part, row)"""
    (truth,) = query(whole, sql).to_pylist()
    assert said.rows == ROWS and 0.8 * SAMPLE < said.sampled < 1.2 * SAMPLE
    assert truth["good"] == sum(expected(number) is None for number in range(ROWS))
    assert within(said.success, truth["good"] / ROWS)
    assert said.kept_rows is not None and within(said.kept_rows, truth["kept"])
    assert within(said.bytes_fetched, truth["bytes"])
    sizes = status(whole).bytes_on_disk
    assert within(said.disk_bytes, sizes["tars"] + sizes["tables"])
    assert all(0 < interval.high - interval.low < 0.5 * interval.value for interval in (said.success, said.bytes_fetched, said.disk_bytes))


def test_each_reason_has_its_share(said: Estimate) -> None:
    for reason, share in said.reasons.items():
        if reason in REASONS.values():
            truth = sum(expected(number) == reason for number in range(100)) / 100
            assert within(share, truth), reason
    assert "http_not_found" in said.reasons and said.busiest_site and said.busiest_rows == 2 and 0 < said.busiest_hours < said.hours.value
    assert said.price and said.price.value == pytest.approx(said.hours.value / 2)


def test_it_reads_as_text_and_as_json(said: Estimate) -> None:
    text = said.text()
    assert f"{ROWS:,} rows" in text and "with an image" in text and "by original_width >= 300" in text and "http_not_found" in text
    assert json.loads(json.dumps(said.to_dict(), allow_nan=False))["success"]["value"] == said.success.value


def test_at_the_terminal(listed: Path, curate: Callable, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    answer = curate("estimate", listed, *SETTINGS, "--rows", 30, "--keep", kept, "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["pool"] == str(kept) and Pool.open(kept).snapshot("fetched").files
    assert found["kept_rows"] is None and found["hours"]["high"] is None, "thirty rows tell no pace"
    assert curate("estimate", tmp_path / "none.csv").code == 2


def test_a_list_that_is_smaller_than_the_sample_is_known_exactly(listed: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.csv"
    rows = pq.read_table(listed).slice(0, 100).to_pylist()
    small.write_text("url,caption\n" + "".join(f"{row['url']},x\n" for row in [*rows, {"url": "nonsense"}]))
    found = package.estimate(str(small), SETTINGS)
    assert found.sampled == found.rows == 101
    good = sum(expected(number) is None for number in range(100)) / 101
    assert found.success.low == found.success.value == found.success.high == pytest.approx(good)
    assert found.bytes_fetched.low == found.bytes_fetched.high


def test_a_list_of_one_site_takes_as_long_as_its_budget_allows(listed: Path, tmp_path: Path, port: int) -> None:
    one = tmp_path / "one.txt"
    one.write_text("".join(f"http://127.9.9.9:{port}/i/{number}\n" for number in range(200)))
    found = estimate(str(one), [*SETTINGS, "fetch.host_interval_seconds=0.05"], rows=40)
    assert (found.busiest_site, found.busiest_rows) == ("127.9.9.9", 200)
    assert found.busiest_hours == pytest.approx(200 * 0.05 / 3600)
    assert found.hours.value >= found.busiest_hours


def test_wrong_calls(listed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one row"):
        estimate(str(listed), rows=0)
    with pytest.raises(InputError):
        estimate(str(tmp_path / "none.parquet"))


def test_wilson_is_wilson() -> None:
    """Against the interval of Newcombe (1998, table I): 81 of 263."""
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20).low == 0 and 0.13 < wilson(0, 20).high < 0.17
    assert wilson(5, 10, seen=1.0).low == 0.5
    assert math.isclose(wilson(5, 10, seen=0.5).low, wilson(10, 20).low)
