"""`curate demo`: a small web on this machine, and the whole way from its URL list to a trained model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.demo import openclipart, scenes, trouble
from curate.demo.corpus import Corpus, write_list
from curate.demo.held_out import is_held_out, write_scenes, write_stamps
from curate.demo.server import Server
from curate.demo.settings import ScenesSettings, ServerSettings
from curate.errors import UsageError
from curate.objects import ObjectPath, place
from curate.progress import Progress, Silent
from curate.recipe import Job, load_recipe, run_recipe
from curate.store import Pool

HELD_OUT = "held_out.tar"
SCENES = {"small": (1000, 300), "full": (6000, 1500)}  # rows of the list, and scenes held out


@dataclass(frozen=True)
class DemoReport:
    """What the demo ran on and what it left; `note` says why another corpus was taken than the one asked for."""

    corpus: str
    job: Job
    list_path: Path
    server_log: Path
    note: str = ""


def run_demo(
    pool_path: Path, corpus: str = "auto", size: str = "full", overrides: Sequence[str] = (), progress: Progress | None = None
) -> DemoReport:
    """Runs recipe `demo` on a corpus served by a real web server on this machine's loopback addresses; resumable.

    Raises UsageError when `corpus` is openclipart and this machine cannot have it; with `auto`, scenes are drawn instead.
    """
    progress = progress or Silent()
    if isinstance(place(pool_path), ObjectPath):
        raise UsageError("the demo makes its pool in a folder of this machine: give one with  --pool")
    pool = Pool.create(pool_path)
    name, pictures, note = _pictures(corpus, size, progress)
    folder = pool.path / "demo"
    planted = trouble.plant(folder / "trouble")
    served = [pictures, planted]
    with Server(served, folder / "server.log", ServerSettings(port=_port(pool))) as server:
        pool.write_document("demo", {"port": server.port, "corpus": name})
        list_path = write_list(served, folder, server.url, "jsonl", leave_out=is_held_out)
        trouble.break_line(list_path)
        _write_held_out(name, pictures, SCENES[size][1], folder / HELD_OUT, progress)
        said = [f"input.path={list_path}", f"evaluate.data={folder / HELD_OUT}", f"evaluate.name={name}"]
        job = run_recipe(load_recipe("demo"), pool_path, [*said, *overrides], progress=progress)
    return DemoReport(name, job, list_path, folder / "server.log", note)


def _pictures(corpus: str, size: str, progress: Progress) -> tuple[str, Corpus, str]:
    """The corpus that can be had; and why it is not the one that was asked for."""
    bars, note = _Bars(progress), ""
    if corpus in ("auto", "openclipart"):
        try:
            return "openclipart", openclipart.cached(openclipart.cache_folder(), progress=bars), ""
        except UsageError as error:
            if corpus == "openclipart":
                raise
            note = f"no real pictures here ({error}); drawing scenes instead"
    return "scenes", scenes.cached(openclipart.cache_folder(), ScenesSettings(rows=SCENES[size][0]), bars), note


def _write_held_out(name: str, pictures: Corpus, held_out_scenes: int, target: Path, progress: Progress) -> None:
    if target.exists():
        return
    if name == "openclipart":
        write_stamps(pictures, target)
    else:
        held_out = scenes.cached(openclipart.cache_folder(), ScenesSettings(rows=held_out_scenes, split="eval"), _Bars(progress))
        write_scenes(held_out, target)


def _port(pool: Pool) -> int:
    """The port of an earlier run of this demo, whose URLs the pool holds; else one that follows from the pool's path."""
    known = pool.read_document("demo")
    if known is not None:
        return int(str(known["port"]))
    return 20_000 + int.from_bytes(hashlib.sha256(str(pool.path).encode()).digest()[:2], "big") % 10_000


class _Bars:
    """A corpus says (what, done, total); a person sees one bar for each `what`."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.done: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self.done:
            self.done[what] = 0
            self.progress.start(what, total or None, "bytes" if "bytes" in what else "files")
        self.progress.advance(what, done - self.done[what])
        self.done[what] = done
        if total and done >= total:
            self.progress.finish(what)
