"""The command line's frame: the list of commands, and what a person sees when something goes wrong.

Exit codes: 0 well · 1 stopped, the same command resumes · 2 wrong call · 3 finished with something wrong.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import click

from curate.cli import cluster, later, learn, look, removal, run, steps
from curate.cli.doctor import doctor
from curate.cli.estimate import estimate
from curate.errors import CurateError, MissingExtra

SECTIONS: dict[str, list[click.Command]] = {
    "The whole way": [run.demo, estimate, run.check, run.run],
    "Single steps, on a pool that exists": [
        steps.score,
        steps.derive,
        steps.dedupe,
        steps.decontaminate,
        steps.filter_,
        steps.pack,
        look.croissant,
    ],
    "On clusters": [cluster.work, cluster.commit, cluster.slurm],
    "After the first run": [later.add, later.retry, later.attach, later.compact],
    "Look": [look.sql, look.funnel, look.compare, look.report, look.status, look.history, look.verify, look.digest],
    "Remove": [removal.takedown, removal.purge, removal.sweep],
    "Learn": [learn.train, learn.evaluate, learn.ablate],
    "This machine": [doctor],
}

_EXTRAS = {
    "torch": "train", "torchvision": "train", "open_clip": "train", "safetensors": "train", "webdataset": "train",
    "ray": "ray", "pyspark": "spark", "img2dataset": "img2dataset",
    "tensorboard": "tensorboard", "wandb": "wandb",
    "botocore": "s3",
}  # fmt: skip
_LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO}


class Sections(click.Group):
    """A group whose help lists its commands under headings, in the order in which people need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, section after section."""
        return [str(command.name) for commands in SECTIONS.values() for command in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        return {str(command.name): command for commands in SECTIONS.values() for command in commands}.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections."""
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(str(command.name), command.get_short_help_str(90)) for command in commands])


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="curate-vlm", prog_name="curate")
def curate() -> None:
    """From URL lists to curated image-text shards.

    And to tables in which SQL finds what became of every row.

    \b
    Start here:  curate demo --pool demo-pool
    Your list:   curate run ingest --pool POOL input.path=LIST
    Afterwards:  curate funnel POOL; curate report POOL; curate sql POOL "FROM samples LIMIT 9"
    """


def main() -> NoReturn:
    """Runs the command of this process's arguments and exits with its code."""
    sys.excepthook = report_bug
    signal.signal(signal.SIGTERM, _stop)
    _quiet()
    code = execute(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C finds nothing left to stop
    sys.exit(code)


def _quiet() -> None:
    """Keeps what libraries tell their developers off the terminal, in this process and in its workers.

    Threads that wait for each other also sleep instead of spinning: on a machine that does other work besides, spinning
    makes a training step several times slower. To be called before such a library is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not _debugging():
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # each of its retries; what came of them is told once
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())


def _debugging() -> bool:
    return os.environ.get("CURATE_DEBUG", "0") not in ("", "0")


def execute(arguments: list[str]) -> int:
    """Runs one command; returns its exit code. What nobody foresaw passes through, to `report_bug`."""
    try:
        result = curate.main(arguments, prog_name="curate", standalone_mode=False)
        sys.stdout.flush()
        return int(result or 0)
    except CurateError as error:
        return _say(_one_line(error), error.exit_code)
    except click.ClickException as error:
        return _say(_with_hint(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _say("stopped; the same command resumes", 1)
    except BrokenPipeError:  # the reader, for example `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRAS:
            raise
        return _say(str(MissingExtra(package, _EXTRAS[package])), MissingExtra.exit_code)
    except OSError as error:
        if error.errno not in _LOCAL_FAULTS:
            raise
        return _say(f"this machine: {error}; make room and give the same command again", 1)


def report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Stands in for Python's traceback: one line, and the traceback in a file; CURATE_DEBUG=1 shows it."""
    if isinstance(error, KeyboardInterrupt):
        _say("stopped; the same command resumes", 1)
        return
    if _debugging():
        sys.__excepthook__(kind, error, trace)
        return
    log = _write_log("".join(traceback.format_exception(kind, error, trace)))
    summary = " ".join(str(error).split())[:300]
    _say(f"this is a bug in curate ({kind.__name__}: {summary}); the details are in {log}; CURATE_DEBUG=1 shows them here", 1)


def _one_line(error: CurateError) -> str:
    """What an error says; the traceback of a part that failed in a worker goes to a file as well."""
    first, *more = str(error).strip().splitlines() or [""]
    if not more or _debugging():
        return str(error)
    return f"{first.partition('Traceback')[0].strip()} {more[-1].strip()}; the details are in {_write_log(str(error))}"


def _write_log(text: str) -> Path:
    log = Path(tempfile.gettempdir()) / f"curate-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.write_text(f"curate {' '.join(sys.argv[1:])}\n{text}")
    return log


def _say(line: str, code: int) -> int:
    click.secho(line, fg="red", err=True)
    return code


def _with_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "curate"
    return f"{error.format_message()}  ({path} --help)"


def _stop(number: int, frame: FrameType | None) -> None:
    """Schedulers end jobs with SIGTERM: leave as after Ctrl-C, with what is finished committed."""
    raise KeyboardInterrupt
