"""The verb *group* on every engine: lines meet, giant keys fit, a chain of rounds resumes, and components are right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.dedupe import DedupeSettings, dedupe, output_tables
from curate.dedupe.components import EDGES, both_ways, components
from curate.engines.base import EngineSettings
from curate.errors import PartsFailed
from curate.lease import claim
from curate.run import crew
from curate.shuffle import Gathered, Lines, Out, Shuffle
from curate.stage import Crew, PartReport, PartTask, Phase
from curate.store import Pool
from tests.dedupe.arrays import inline
from tests.dedupe.embedded import add_parts, clumped
from tests.dedupe.graphs import graph, smallest
from tests.engines.conftest import Made
from tests.score.pools import Row, jpeg, make_pool, noise

WORDS = Lines(pa.schema([("key", pa.int64()), ("word", pa.string())]), "key")
COUNTS = Lines(pa.schema([("key", pa.int64()), ("count", pa.int64()), ("digest", pa.string())]), "key")


@dataclass(frozen=True)
class Count:
    """How often each key stands, and what its words are; misbehaves as told on one bucket."""

    fail: int = -1

    name = "count"
    reads: Sequence[str] = ("words",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"counts": COUNTS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        if task.part == self.fail:
            raise ZeroDivisionError("planted")
        table = given["words"].table("key", "word")
        for key in np.unique(table["key"].to_numpy()).tolist():
            words = table.filter(pa.compute.equal(table["key"], key))["word"].to_pylist()
            out.emit("counts", {"key": [key], "count": [len(words)], "digest": [digest(words)]})
        out.count("tasks", 1)


def digest(words: list[str | None]) -> str:
    return hashlib.sha256(repr(sorted(words, key=lambda word: (word is None, word))).encode()).hexdigest()


def shuffle(pool: Pool, settings: EngineSettings, rows: int) -> Shuffle:
    return Shuffle(pool, "test", "test", rows, crew(settings))


def skewed() -> pa.Table:
    """One key with half of all lines, most others with one; empty, null and odd words."""
    random = np.random.default_rng(5)
    key = np.where(random.random(4000) < 0.5, 7, random.integers(0, 3000, 4000))
    words = np.array(["", None, "漢字", "\u202e🧑🏽‍🚀", "x" * 5000], object)[random.integers(0, 5, 4000)]
    return pa.table({"key": key, "word": pa.array(words, pa.string())}, WORDS.schema)


def counted(table: pa.Table) -> dict[int, tuple[int, str]]:
    found: dict[int, list[str | None]] = {}
    for key, word in zip(table["key"].to_pylist(), table["word"].to_pylist(), strict=True):
        found.setdefault(key, []).append(word)
    return {key: (len(words), digest(words)) for key, words in found.items()}


def test_lines_of_a_key_meet_whatever_they_hold(pool: Pool, engine: Made) -> None:
    work = shuffle(pool, engine(bucket_rows=900), 4000)
    work.put("words", WORDS, skewed())
    assert work.run(Count()).counters["tasks"] == work.buckets == 5
    found = {line["key"]: (line["count"], line["digest"]) for line in work.read("counts").to_pylist()}
    assert found == counted(skewed())
    work.close()
    assert not list((pool.path / "tmp").glob("*shuffle*"))


def test_a_chain_that_failed_does_only_what_is_left(pool: Pool, engine: Made) -> None:
    settings = engine(bucket_rows=900)
    first = shuffle(pool, settings, 4000)
    first.put("words", WORDS, skewed())
    with pytest.raises(PartsFailed, match=r"(?s)count: task 4 of 5 failed.*planted"):
        first.run(Count(fail=4))
    asked: list[int] = []

    def each(phase: Phase, tasks: Sequence[PartTask]) -> Iterator[PartReport]:
        asked.extend(task.part for task in tasks)
        return crew(settings).each(phase, tasks)

    again = Shuffle(pool, "test", "test", 4000, Crew(each, 900))
    again.put("words", WORDS, skewed())
    assert again.run(Count()).counters["tasks"] == 5
    assert 4 in asked and len(asked) < 5
    assert {line["key"]: (line["count"], line["digest"]) for line in again.read("counts").to_pylist()} == counted(skewed())


def check_components(pool: Pool, settings: EngineSettings, one: np.ndarray, other: np.ndarray) -> int:
    """Whether the rounds find what one process finds; returns the most bytes that a task's process has held."""
    work = shuffle(pool, settings, 2 * len(one))
    peaks: list[float] = []
    run = work.run

    def watched(*told: object, **more: object) -> object:
        found = run(*told, **more)  # type: ignore[arg-type]
        peaks.append(found.most.get("peak_bytes", 0))
        return found

    work.run = watched  # type: ignore[method-assign,assignment]
    work.put("edges", EDGES, pa.table(both_ways(one, other)))
    table = work.read(components(work, "edges"))
    work.close()
    nodes, at = np.unique(table["node"].to_numpy(), return_index=True)
    expected, roots = smallest(one, other)
    assert (nodes == expected).all() and (table["other"].to_numpy()[at] == roots).all()
    return int(max(peaks))


def test_components_with_a_long_chain_and_a_giant_star(pool: Pool, engine: Made) -> None:
    check_components(pool, engine(bucket_rows=2500), *graph(3000, 400, 1200))


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_components_of_ten_million_pairs_in_bounded_memory(pool: Pool, engine: Made) -> None:
    peak = check_components(pool, engine(bucket_rows=1 << 19), *graph(10_000_000, 1_000_000, 4_000_000))
    print(f"largest task: {peak / 2**20:.0f} MiB")
    assert peak < 1 << 30


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_engine_finds_the_same_captions(tmp_path: Path, engine: Made) -> None:
    random, picture = np.random.default_rng(0), jpeg(noise(0))
    words = [f"word{number}" for number in range(200)]
    said = [" ".join(random.choice(words, 12)) for _ in range(60)]
    said += [f"{caption} {random.choice(words)}" for caption in said]
    pool = make_pool(tmp_path / "pool", [[Row(caption, picture) for caption in said[at::5]] for at in range(5)])
    for name, with_crew in (("alone", Crew(inline, len(said))), ("engine", crew(engine(bucket_rows=40)))):
        settings = DedupeSettings(by="captions", name=name)
        with claim(pool, output_tables(settings)) as writer:
            assert dedupe(pool, writer, settings, with_crew).groups > 40
    for table in ("groups", "pairs"):
        alone, found = (pool.snapshot(f"{table}_{name}").read().drop_columns("basis") for name in ("alone", "engine"))
        assert found == alone


@pytest.mark.long
def test_semantic_duplicates_are_the_same_everywhere(tmp_path: Path, engine: Made) -> None:
    """Centroids, groups and evidence of every engine are those of one process, file by file."""
    said, found = DedupeSettings(by="embeddings", semantic={"clusters": 9, "epsilon": 0.1}), []
    for name, workers in (("one", Crew(inline, 1 << 19)), ("many", crew(engine(bucket_rows=90)))):
        pool = Pool.create(tmp_path / name)
        given = add_parts(pool, 0, [clumped(120, 24, seed) for seed in range(3)])
        with claim(pool, output_tables(said)) as writer:
            report = dedupe(pool, writer, said, workers)
        document = pool.read_document("fitted_groups_semantic")
        found.append((given.ids, report, document, *(pool.snapshot(f"{table}_semantic").files for table in ("groups", "pairs"))))
    assert found[0] == found[1] and found[0][1].near_pairs > 100
