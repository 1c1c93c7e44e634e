"""The frame: help, exit codes, one line for whatever goes wrong."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from curate.cli import app
from curate.errors import PartsFailed, PoolBusy

COMMANDS = [command for commands in app.SECTIONS.values() for command in commands]
PROGRAM = [sys.executable, "-c", "from curate.cli import main; main()"]
# Says that it is up, then waits in Python until a signal comes.
WAITING = """
import time
from curate.cli import app, look
look.status.callback = lambda **_: print("up", flush=True) or time.sleep(60)
app.main()
"""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_says_what_it_is_for_with_examples(command: click.Command, curate: Callable) -> None:
    said = curate(command.name, "--help")
    assert said.code == 0 and said.err == ""
    purpose = said.out.split("\n")[2].strip()
    assert purpose.endswith(".") and len(purpose) <= 60
    examples = said.out.split("Examples:\n", 1)[1].split("\n\n", 1)[0].strip().split("\n")
    assert 1 <= len(examples) <= 3
    assert all(line.strip().startswith(f"curate {command.name}") for line in examples)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_example_of_the_help_parses(command: click.Command) -> None:
    import shlex

    examples = re.findall(rf"^ *curate ({command.name}.*)$", command.help or "", re.MULTILINE)
    assert examples, f"the help of {command.name} shows no example"
    for line in examples:
        command.make_context(str(command.name), shlex.split(line)[1:])


def test_the_list_of_commands_is_whole(curate: Callable) -> None:
    said = curate("--help")
    assert said.code == 0
    for name in re.findall(
        r"[a-z]+",
        "demo check run score dedupe filter pack add retry compact sql funnel report status history verify digest train eval ablate doctor",
    ):
        assert re.search(rf"^  {name} ", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["nonsense"], "No such command"),
        (["funel"], "No such command"),
        (["sql", "POOL"], "Missing argument"),
        (["funnel", "POOL", "--formt", "json"], "No such option"),
        (["funnel", "POOL", "--format", "xml"], "not one of"),
        (["funnel", "nowhere"], "nowhere"),
        (["run", "ingst", "--pool", "x"], "did you mean"),
        (["run", "ingest", "--pool", "x", "--only", "fetch", "--from", "fetch"], "not both"),
        (["check", "ingest", "input.path=x", "ftech.attempts=2"], "did you mean 'fetch'"),
        (["check", "ingest", "input.path=x", "fetch.attempts=0"], "greater than or equal to 1"),
        (["check", "ingest"], "input"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(
    arguments: list[str], hint: str, curate: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = curate(*arguments)
    assert said.code == 2
    assert hint in said.err and said.err.count("\n") == 1 and "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PoolBusy("another run holds it"), 1, "another run holds it"),
        (PartsFailed("3 parts"), 3, "3 parts"),
        (KeyboardInterrupt(), 1, "stopped; the same command resumes"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "make room"),
        (ModuleNotFoundError("No module named 'torch'", name="torch.nn"), 2, "pip install 'curate-vlm[train]'"),
    ],
)
def test_errors_have_their_exit_codes(
    error: BaseException, code: int, text: str, curate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(app.look.status, "callback", fail)
    said = curate("status", "POOL")
    assert said.code == code and text in said.err and said.err.strip().count("\n") == 0


def test_a_bug_is_one_line_with_its_traceback_in_a_file(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "CURATE_DEBUG": "0"}
    program = "from curate.cli import app, look\nlook.status.callback = lambda **_: 1 / 0\napp.main()"
    done = subprocess.run([sys.executable, "-c", program, "status", "POOL"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this is a bug in curate (ZeroDivisionError" in done.stderr and done.stderr.count("\n") == 1
    (log,) = tmp_path.glob("curate-*.log")
    assert "Traceback" in log.read_text() and str(log) in done.stderr
    shown = subprocess.run(
        [sys.executable, "-c", program, "status", "P"], env={**environment, "CURATE_DEBUG": "1"}, capture_output=True, text=True
    )
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_command_with_exit_1(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITING, "status", "POOL"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1 and err.strip() == "stopped; the same command resumes"


def test_a_reader_that_has_seen_enough_is_no_error(read_only: Path) -> None:
    sql = "SELECT * FROM range(30000)"
    line = f"{' '.join(PROGRAM[:1])} -c 'from curate.cli import main; main()' sql {read_only} '{sql}' --format csv | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith('"range"')
