"""The rows that kill their worker are found, and cost nobody else anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curate
from curate.catalog.digest import digest
from curate.catalog.verify import verify
from curate.engines.base import EngineSettings, PartFailure
from curate.fetch.phase import FetchPhase
from curate.isolate import MOST_ROWS, isolate
from curate.lease import claim
from curate.run import run_phase
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.stage import PartReport, PartTask, Phase
from curate.store import Pool
from tests.engines.phases import Groups
from tests.fetch.conftest import FaultServer, quick, serving
from tests.fetch.conftest import _loop as _loop  # the fault server's fixture needs it
from tests.fetch.phases import Deadly, path_of
from tests.plan import lists
from tests.score.pools import Row, jpeg, make_pool, noise

ONCE = EngineSettings(workers=1, tries=1)


# -- the search, on an engine that only counts


@dataclass(frozen=True)
class Divided(Groups):
    """Does nothing; goes on from what a report has done, or starts anew, as `resumes` says."""

    resumes: bool = False

    def after(self, task: PartTask, report: PartReport) -> PartTask:
        done = dict(task.beside) | {"done": " ".join(map(str, report.counters))}
        return replace(task, beside=done) if self.resumes else task


@dataclass
class Counting:
    """An engine whose worker dies on some rows, or on more than `at_most` rows together."""

    rows: int
    deadly: frozenset[int]
    at_most: int = 1 << 30
    tries: int = 1
    calls: list[int] = field(default_factory=list)

    def each(self, phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport | PartFailure]:
        (task,) = tasks
        given = set(range(self.rows)) - task.without
        self.calls.append(len(given))
        if given & self.deadly or len(given) > self.at_most:
            yield PartFailure(task.part, "died", crashed=True)
        else:
            yield PartReport(task.part, (), {"ok": len(given), "worker_crashed": len(task.without)}, {"done": len(given)})


def ordered(folder: Path, rows: int) -> PartTask:
    path = folder / f"{rows}.parquet"
    pq.write_table(pa.table({"row": pa.array(range(rows), pa.int32())}), path)
    return PartTask(str(folder), 0, {"rows": str(path)}, "basis")


@given(st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_exactly_the_rows_to_blame_are_left_out(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 300))
    deadly = frozenset(data.draw(st.sets(st.integers(0, rows - 1), min_size=1, max_size=5)))
    engine = Counting(rows, deadly)
    found = isolate(Divided(), ordered(tmp_path_factory.mktemp("part"), rows), engine, engine)
    assert isinstance(found, PartReport)
    assert found.reasons == {"ok": rows - len(deadly), "worker_crashed": len(deadly)}
    assert len(engine.calls) <= 1 + 2 * len(deadly) * max(1, (rows - 1).bit_length())


def test_where_all_rows_kill_the_part_fails_and_says_so(tmp_path: Path) -> None:
    engine = Counting(1000, frozenset(range(1000)))
    found = isolate(Divided(), ordered(tmp_path, 1000), engine, engine)
    assert isinstance(found, PartFailure) and "not the rows' fault" in found.message
    assert len(engine.calls) < 4 * MOST_ROWS + 40


def test_where_no_row_is_to_blame_the_part_fails_and_says_so(tmp_path: Path) -> None:
    """Together they need more memory than there is; alone each of them is well."""
    engine = Counting(64, frozenset(), at_most=40)
    found = isolate(Divided(), ordered(tmp_path, 64), engine, engine)
    assert isinstance(found, PartFailure) and "no single row is to blame" in found.message


# -- on real phases


@pytest.fixture
def server(_loop) -> Iterator[FaultServer]:  # type: ignore[no-untyped-def]
    yield from serving(_loop)


def work(pool: Pool, phase: Phase) -> Counter[str]:
    with claim(pool, {}) as run:
        return run_phase(pool, run, phase, ONCE).reasons


def test_a_url_that_kills_the_worker_costs_its_rows_and_no_request_of_others(server: FaultServer, tmp_path: Path) -> None:
    paths = ["/image/1", "/image/2", "/opt-out", "/image/3"]
    listed = lists.write(
        tmp_path / "list.parquet", lists.encoded([{"url": server.url(path), "caption": path} for path in paths], "parquet")
    )
    pools = {name: lists.planned(tmp_path / name, listed)[0] for name in ("killed", "calm")}
    assert work(pools["killed"], Deadly(quick(), paths=("/image/2",))) == {"ok": 2, "opt_out": 1, "worker_crashed": 1}
    assert sorted(path for _, _, path in server.log) == sorted(set(paths) - {"/image/2"}), "each once, and not the deadly one"
    ends = curate.open(pools["killed"].path).sql("SELECT url, outcome FROM samples WHERE reason = 'worker_crashed'").rows()
    assert [(path_of(line["url"]), line["outcome"]) for line in ends] == [("/image/2", "failed")]
    assert verify(pools["killed"]).ok
    work(pools["calm"], FetchPhase(quick()))
    settings = {"fetch": quick().model_dump(mode="json"), "engine": ONCE.model_dump(mode="json")}
    pools["killed"].write_document("settings", {"recipe": "ingest", "settings": settings})
    assert curate.open(pools["killed"].path).retry("worker_crashed").after["worker_crashed"] == 0
    assert digest(pools["killed"]) == digest(pools["calm"])


def written(pool: Pool, report: PartReport) -> pa.Table:
    """The only file of a report."""
    (file,) = report.files
    return pq.read_table(pool.table_folder(file.table) / file.path, partitioning=None)


def test_scores_of_rows_that_were_left_out_are_null_and_all_others_are_what_they_were(tmp_path: Path) -> None:
    shared = jpeg(noise(1))
    rows = [Row("a", shared), Row("b", jpeg(noise(2))), Row("c", shared), Row("gone", None), Row("d", shared[:600])]
    pool = make_pool(tmp_path / "pool", [rows])
    phase = ScorePhase(ScoreSettings(clip=None))
    inputs = {name: pool.snapshot(name).path_of(0) for name in phase.inputs}
    order = PartTask(str(pool.path), 0, inputs, "basis")
    with phase.open() as score:
        whole, without = (score(replace(order, without=frozenset(rows))) for rows in ((), (1, 2, 3)))
    whole_table, table = (written(pool, report) for report in (whole, without))
    assert table["reason"].to_pylist() == [None, "worker_crashed", "worker_crashed", None, "decode_truncated"]
    assert (whole.reasons, without.reasons) == ({"ok": 3, "decode_truncated": 1}, {"ok": 1, "worker_crashed": 2, "decode_truncated": 1})
    assert table.take([0, 3, 4]) == whole_table.take([0, 3, 4])
    scores = [name for name in table.column_names if name.startswith("image_")]
    assert scores and all(value is None for name in scores for value in table.take([1, 2])[name].to_pylist())
