"""A Slurm of one machine: `sbatch`, `srun` and `scancel` that really run a job's tasks as processes, two at a time.

`put_on_path(folder, patch)` writes the three commands into a folder and puts it on PATH. Jobs are sessions of their own,
so that scancel ends a task with all that it started.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
AT_ONCE = 2


def put_on_path(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Makes the commands; their jobs are noted in `folder/jobs`."""
    programs = folder / "slurm-bin"
    programs.mkdir()
    (folder / "jobs").mkdir()
    for name in ("sbatch", "srun", "scancel"):
        program = programs / name
        python_path = f"export PYTHONPATH={ROOT}:$PYTHONPATH"
        program.write_text(f'#!/bin/sh\n{python_path}\nexec "{sys.executable}" -m tests.engines.fake_slurm {name} "$@"\n')
        program.chmod(0o755)
    patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    patch.setenv("FAKE_SLURM_JOBS", str(folder / "jobs"))
    return folder / "jobs"


def sbatch(arguments: list[str]) -> int:
    """Runs the script once for each task of the array; with --wait until all have ended, else in the background."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--parsable", action="store_true")
    parser.add_argument("--array", default="0-0")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--cpus-per-task", type=int, default=1)
    parser.add_argument("--output", default="slurm-%A_%a.log")
    parser.add_argument("--dependency", default="")
    parser.add_argument("--partition", default="")
    _, rest = parser.parse_known_args(arguments)
    script = next(word for word in rest if not word.startswith("--"))
    directives = re.findall(r"^#SBATCH (\S+)", Path(script).read_text(), re.MULTILINE)
    said, rest = parser.parse_known_args([*directives, *arguments])  # the command line wins
    if said.partition == "none":
        print("sbatch: error: invalid partition specified: none", file=sys.stderr)
        return 1
    script, *given = [word for word in rest if not word.startswith("--")]
    jobs = Path(os.environ["FAKE_SLURM_JOBS"])
    number = next(number for number in itertools.count(1000) if _make(jobs / str(number)))
    print(number if said.parsable else f"Submitted batch job {number}", flush=True)
    if not said.wait and os.fork():
        return 0
    if not said.wait:
        os.setsid()
        devnull = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(devnull, standard)
    _after(jobs, said.dependency)
    code = _run_array(jobs / str(number), said, [script, *given])
    (jobs / str(number) / "ended").touch()
    return code


def _make(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _after(jobs: Path, dependency: str) -> None:
    for other in re.findall(r"\d+", dependency):
        while not (jobs / other / "ended").exists():
            time.sleep(0.05)


def _run_array(folder: Path, said: argparse.Namespace, command: list[str]) -> int:
    first, last = map(int, re.match(r"(\d+)-(\d+)", said.array).groups())  # type: ignore[union-attr]
    waiting, running, worst = list(range(first, last + 1)), list[subprocess.Popen[bytes]](), 0
    while waiting or running:
        while waiting and len(running) < AT_ONCE and not (folder / "cancelled").exists():
            running.append(_start(folder, waiting.pop(0), (first, last), said, command))
        waiting = [] if (folder / "cancelled").exists() else waiting
        worst = max([worst, *(abs(one.returncode) for one in running if one.poll() is not None)])
        running = [one for one in running if one.poll() is None]
        time.sleep(0.02)
    return worst


def _start(folder: Path, task: int, bounds: tuple[int, int], said: argparse.Namespace, command: list[str]) -> subprocess.Popen[bytes]:
    first, last = bounds
    told = {"JOB_ID": folder.name, "ARRAY_JOB_ID": folder.name, "ARRAY_TASK_ID": task, "ARRAY_TASK_MIN": first, "ARRAY_TASK_MAX": last}
    told |= {"ARRAY_TASK_COUNT": last - first + 1, "NTASKS": 1, "PROCID": 0, "JOB_NODELIST": "localhost"}
    told |= {"JOB_NUM_NODES": said.nodes, "CPUS_PER_TASK": said.cpus_per_task}
    environment = {**os.environ, **{f"SLURM_{key}": str(value) for key, value in told.items()}}
    log = Path(said.output.replace("%A", folder.name).replace("%a", str(task)).replace("%j", folder.name))
    with log.open("ab") as stream:
        started = subprocess.Popen(
            ["bash", *command], env=environment, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, start_new_session=True
        )
    (folder / f"task-{started.pid}").touch()
    return started


def srun(arguments: list[str]) -> int:
    """Runs a command as `--ntasks` tasks of the job, all on this machine; a signal that ends it ends them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ntasks", "-n", type=int, default=1)
    parser.add_argument("--nodes", "-N", type=int, default=1)
    parser.add_argument("--nodelist", "-w", default="")
    parser.add_argument("--exclude", default="")
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    said = parser.parse_args(arguments)
    tasks = [
        subprocess.Popen(said.command, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(said.ntasks)})
        for rank in range(said.ntasks)
    ]
    signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
    return max(abs(task.wait()) for task in tasks)


def scancel(arguments: list[str]) -> int:
    """SIGTERM to all tasks of the job; those that wait never start."""
    folder = Path(os.environ["FAKE_SLURM_JOBS"]) / arguments[0]
    (folder / "cancelled").touch()
    for path in folder.glob("task-*"):
        try:
            os.killpg(int(path.name.removeprefix("task-")), signal.SIGTERM)
        except ProcessLookupError:
            continue
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scancel": scancel}[sys.argv[1]](sys.argv[2:]))
