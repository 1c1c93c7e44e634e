"""The README as someone reads it who is new here: its commands, with their placeholders filled in, given as they stand.

Those that a test gives `apart` have a process of their own, as at a prompt; the others are spared the start of one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.cli.app import execute

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
NOISE = re.compile(r"Traceback|Warning|WARNING|deprecat", re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """What a command printed; it ended well, and no library talked to its developers."""

    out: str
    err: str


def commands(needle: str, count: int, words: Mapping[str, object]) -> list[str]:
    """`count` lines of the first bash block with the line `needle`, else with `needle` in one; each of `words` occurs and is replaced."""
    for fits in (lambda line: line == needle, lambda line: needle in line):
        for language, text in BLOCKS:
            lines = text.splitlines()
            first = next((number for number, line in enumerate(lines) if fits(line)), None)
            if language == "bash" and first is not None:
                return _filled(lines[first : first + count], count, words)
    raise AssertionError(f"the README shows no command with {needle!r}")


def python(needle: str, words: Mapping[str, object]) -> str:
    """The Python block with `needle`, its placeholders filled in."""
    (text,) = (text for language, text in BLOCKS if language == "python" and needle in text)
    (filled,) = _filled([text], 1, words)
    return filled


def give(line: str, *more: str, folder: Path | None = None, apart: bool = False) -> Said:
    """Types one command, with `more` behind it, in `folder`; fails where it fails or where noise comes with the answer."""
    program, *arguments = shlex.split(line)
    assert program in ("curate", "python"), line
    own = apart or program == "python"
    code, out, err = (_apart if own else _here)(program, [*arguments, *more], folder or Path.cwd())
    assert code == 0, f"{line}\n{out[-2000:]}{err[-3000:]}"
    assert program == "python" or not NOISE.search(out + err), out + err
    return Said(out, err)


def _apart(program: str, arguments: list[str], folder: Path) -> tuple[int, str, str]:
    start = [sys.executable, "-m", "curate"] if program == "curate" else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CURATE_DEBUG": "0"}
    done = subprocess.run([*start, *arguments], capture_output=True, text=True, cwd=folder, env=environment)
    return done.returncode, done.stdout, done.stderr


def _here(program: str, arguments: list[str], folder: Path) -> tuple[int, str, str]:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = execute(arguments)
    return code, out.getvalue(), err.getvalue()


def _filled(lines: list[str], count: int, words: Mapping[str, object]) -> list[str]:
    assert len(lines) == count, f"the README shows {len(lines)} lines here, not {count}"
    for word, value in words.items():
        pattern = re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])")
        assert any(pattern.search(line) for line in lines), f"{word} does not occur in {lines}"
        lines = [pattern.sub(lambda _, value=value: str(value), line) for line in lines]
    return lines
