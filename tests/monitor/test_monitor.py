"""What a run tells while it goes: the status document, metrics, events, curves; and that a dead driver is known as one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from curate.errors import LocalFault, MissingExtra, PartsFailed
from curate.lease import this_process
from curate.monitor.documents import FOLDER, KEPT, runs
from curate.monitor.settings import LogSettings
from curate.monitor.state import Task
from curate.monitor.watch import watched
from curate.progress import Progress, Silent
from curate.store import Pool
from tests.engines.phases import wait_until

ALERTS = Path(__file__).parent.parent.parent / "pipelines" / "alerts.yml"


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / 'a "pool"')


def some_work(progress: Progress) -> None:
    progress.start("fetch", 4, "parts")
    for done in range(1, 4):
        progress.advance("fetch", 1, ok=10 * done)
        progress.tally("fetch", {"ok": 10 * done, "dns_timeout": done}, {"bytes_read": 1000.0 * done, "cpu_seconds": 0.5 * done})
    progress.finish("fetch")
    progress.start("train", 20, "steps")
    progress.advance("train", 10, loss=2.5)
    progress.advance("train", 10, loss=1.25)
    progress.finish("train")


def watch(pool: Pool, **log: object) -> object:
    return watched(pool, this_process(), "run ingest", LogSettings(**log), Silent())


def test_the_document_says_how_far_a_run_is_and_how_it_ended(pool: Pool) -> None:
    with watch(pool) as progress:
        (begun,) = runs(pool)
        assert (begun.state, begun.tasks, begun.pid) == ("running", (), os.getpid())
        progress.start("fetch", 4, "parts")
        progress.advance("fetch", 3)
        progress.tally("fetch", {"ok": 30}, {"bytes_read": 3.0, "cpu_seconds": 1.5})
        wait_until(lambda: bool(runs(pool)[0].tasks))
        (task,) = runs(pool)[0].tasks
        assert (task["done"], task["total"], task["reasons"], task["counters"]["cpu_seconds"]) == (3, 4, {"ok": 30}, 1.5)
        assert task["rate"] > 0 and task["eta_seconds"] > 0
    assert [one.state for one in runs(pool)] == ["finished"]


@pytest.mark.parametrize(("error", "state"), [(PartsFailed("x"), "failed"), (LocalFault("x"), "stopped"), (KeyboardInterrupt(), "stopped")])
def test_the_document_says_when_it_went_wrong(pool: Pool, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), watch(pool) as progress:
        progress.start("fetch", 4, "parts")
        raise error
    assert [one.state for one in runs(pool)] == [state]
    with pytest.raises(LocalFault), watch(pool):
        raise LocalFault("refused before it began")
    assert len(runs(pool)) == 1


DRIVER = """
import sys, time
from curate.lease import this_process
from curate.monitor.settings import LogSettings
from curate.monitor.watch import watched
from curate.progress import Silent
from curate.store import Pool
with watched(Pool.open(sys.argv[1]), this_process(), "run ingest", LogSettings(every_seconds=0.1), Silent()) as progress:
    progress.start("fetch", None, "parts")
    print("up", flush=True)
    while True:
        progress.advance("fetch")
        time.sleep(0.002)
"""


def test_a_dead_driver_is_known_and_no_reader_ever_saw_half_a_document(pool: Pool) -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(pool.path)], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == b"up\n"
        (path,) = (pool.path / FOLDER).glob("*.json")
        seen = {json.loads(path.read_text())["heard"] for _ in range(2000)}
        metrics = path.with_suffix(".prom")
        assert all(metrics.read_text().endswith("# EOF\n") for _ in range(500))
        wait_until(lambda: json.loads(path.read_text())["heard"] not in seen)
        assert runs(pool)[0].state == "running"
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert runs(pool)[0].state == "dead"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "host": "elsewhere"}))
    assert runs(pool)[0].state == "running", "nobody knows of another machine's processes"
    path.write_text(json.dumps({**said, "host": "elsewhere", "heard": said["heard"] - 60}))
    assert runs(pool)[0].state == "dead"


def test_documents_of_old_runs_go(pool: Pool) -> None:
    (pool.path / FOLDER).mkdir()
    with watch(pool) as progress:
        some_work(progress)
    (one,) = (pool.path / FOLDER).glob("*.json")
    for number in range(KEPT + 5):
        (pool.path / FOLDER / f"2001-{number:02d}.json").write_text(one.read_text())
    with watch(pool):
        pass
    assert len(runs(pool)) == KEPT + 1 and not (pool.path / FOLDER / "2001-00.json").exists()


def test_metrics_are_openmetrics_and_read_by_the_older_parser_too(pool: Pool, tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    with watch(pool, metrics=str(folder)) as progress:
        some_work(progress)
    (file,) = folder.glob("curate-*.prom")
    families = {family.name: family for family in openmetrics(file.read_text())}
    rows = {sample.labels["reason"]: sample.value for sample in families["curate_rows"].samples}
    assert rows == {"ok": 30, "dns_timeout": 3}
    (read,) = families["curate_read_bytes"].samples
    assert (read.name, read.value, read.labels) == (
        "curate_read_bytes_total",
        3000,
        {"pool": 'a "pool"', "run": "run ingest", "task": "fetch"},
    )
    states = {sample.labels["state"]: sample.value for sample in families["curate_run_state"].samples}
    assert states == {"running": 0, "finished": 1, "stopped": 0, "failed": 0}
    assert {family.name for family in classic(file.read_text())} >= {"curate_rows", "curate_pool_free_bytes"}
    (own,) = (pool.path / FOLDER).glob("*.prom")
    assert own.read_text() == file.read_text()


def test_alerts_ask_for_figures_that_there_are(pool: Pool) -> None:
    import yaml

    with watch(pool) as progress:
        some_work(progress)
    (file,) = (pool.path / FOLDER).glob("*.prom")
    names = {sample.name for family in openmetrics(file.read_text()) for sample in family.samples}
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) > 4
    for rule in rules:
        assert set(re.findall(r"curate_\w+", rule["expr"])) <= names and rule["annotations"]["summary"]


def test_events_are_json_lines(pool: Pool, tmp_path: Path) -> None:
    with watch(pool, events=str(tmp_path / "events.jsonl")) as progress:
        some_work(progress)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"] == [
        "run_started", "task_started", "task_finished", "task_started", "task_finished", "run_ended",
    ]  # fmt: skip
    assert events[0]["pool"] == str(pool.path) and events[-1]["state"] == "finished"
    assert next(event for event in events if event["event"] == "task_finished")["reasons"] == {"ok": 30, "dns_timeout": 3}


def test_tensorboard_reads_the_curves(pool: Pool) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with watch(pool, to="tensorboard") as progress:
        some_work(progress)
    (folder,) = (pool.path / "logs").iterdir()
    curves = EventAccumulator(str(folder)).Reload()
    assert [(point.step, point.value) for point in curves.Scalars("train/loss")] == [(10, 2.5), (20, 1.25)]
    assert curves.Scalars("fetch/bytes_read")[-1].value == 3000 and curves.Scalars("fetch/rows_dns_timeout")[-1].step == 3


@pytest.mark.long
def test_wandb_takes_the_curves_offline(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with watch(pool, to="wandb", offline=True) as progress:
        some_work(progress)
    (file,) = (pool.path / "logs").glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/loss" in file.read_bytes()


@pytest.mark.parametrize(("board", "module"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_board_that_is_not_installed_is_one_line(pool: Pool, monkeypatch: pytest.MonkeyPatch, board: str, module: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with (
        pytest.raises(MissingExtra, match=rf"^{module} is not installed: run  pip install 'curate-vlm\[{board}\]'$"),
        watch(pool, to=board),
    ):
        pass
    assert runs(pool) == []


def test_a_folder_that_cannot_be_written_ends_no_run(pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with watch(pool, metrics=str(tmp_path / "nowhere" / "curate.prom"), events=str(tmp_path / "nowhere" / "events")) as progress:
        some_work(progress)
    assert runs(pool)[0].state == "finished" and "cannot tell how the run goes" in caplog.text


def test_a_rate_is_that_of_late() -> None:
    task = Task("fetch", 1000, "parts", begun=100.0)
    task.done = 100
    task.keep_time(110.0)
    assert task.rate == pytest.approx(10) and task.eta_seconds == pytest.approx(90)
    for second in range(600):
        task.done += 1
        task.keep_time(111.0 + second)
    assert task.rate == pytest.approx(1, rel=0.01)
    task.over = True
    task.keep_time(10_000.0)
    assert task.seconds == pytest.approx(610) and task.eta_seconds is None


def test_the_work_waits_for_nobody(pool: Pool) -> None:
    """The thread that writes is not the one that works; it is gone when the run is."""
    before = threading.active_count()
    with watch(pool, every_seconds=0.1) as progress:
        progress.start("fetch", None, "parts")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_the_whole_way_at_a_terminal(pool: Pool, curate: Callable, tmp_path: Path) -> None:
    """A setting of the command line, kept for the commands that follow."""
    lines = tmp_path / "list.csv"
    lines.write_text("url,caption\nhttp://127.0.0.1:9/a,one\nnonsense,two\n")
    events = tmp_path / "events"
    said = curate(
        "run", "fetch", "--pool", pool.path, f"input.path={lines}", "engine.workers=1", f"log.events={events}", "fetch.attempts=1"
    )
    assert said.code == 0, said.err
    told = json.loads(curate("status", pool.path, "--json").out)
    (run,) = told["runs"]
    fetch = next(task for task in run["tasks"] if task["name"] == "fetch")
    assert run["what"] == "run fetch" and fetch["reasons"] == {"blocked_address": 1, "bad_url": 1} and fetch["counters"]["cpu_seconds"] > 0
    assert "fetch" in curate("status", pool.path).out and "CPU" in curate("status", pool.path).out
    assert curate("filter", pool.path, "--where", "true", "name=all").code == 0
    assert '"run": "filter"' in events.read_text()
    assert curate("status", pool.path, "--watch").code == 0, "nothing is going on: it looks once and ends"


def test_seconds_of_gpus_are_told_beside_those_of_cpus(pool: Pool, curate: Callable) -> None:
    """As a scorer on a GPU leaves them with each part that ends."""
    with watch(pool) as progress:
        progress.start("score", 2, "parts")
        progress.advance("score", 2)
        progress.tally("score", {"ok": 20}, {"cpu_seconds": 2.0, "gpu_seconds": 40.0})
        progress.finish("score")
    assert "2 s CPU, 40 s GPU" in " ".join(curate("status", pool.path).out.split())
    (file,) = (pool.path / FOLDER).glob("*.prom")
    (family,) = [one for one in openmetrics(file.read_text()) if one.name == "curate_gpu_seconds"]
    assert [sample.value for sample in family.samples] == [40.0]
