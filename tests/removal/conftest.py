"""One real pool: a served list, fetched, scored by a small CLIP, deduplicated, decided, packed and shown; copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli.app import execute
from curate.demo.corpus import write_list
from curate.demo.scenes import build
from curate.demo.server import Server
from curate.demo.settings import ScenesSettings, ServerSettings
from tests.removal import handmade
from tests.removal.questions import rows
from tests.score import pools as score_pools

ROWS, SHARED = 80, 30


@dataclass(frozen=True)
class Served:
    """A web on loopback, a list of it with a number `similarity` per row, and the pool that a run made of the first part."""

    server: Server
    listed: Path
    clip: Path
    made: Path

    def arguments(self, pool: Path, cut: float, *more: str) -> list[str]:
        """`curate run ingest` on it, behind a prefilter."""
        said = [
            f"input.path={self.listed}", "plan.rows_per_part=20", 'fetch.allow_addresses=["127.0.0.0/8"]', "pack.shard_samples=10",
            f"prefilter.where=similarity >= {cut}", "score.clip.model=tiny", f"score.clip.weights={self.clip}", "engine.workers=1",
            "filter.where=image_min_side >= 200 AND clip_score > -0.9", "report.reveal=true",
        ]  # fmt: skip
        return ["run", "ingest", "--pool", str(pool), *said, *more]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("removal")
    corpus = build(folder / "corpus", ScenesSettings(rows=ROWS, seed=9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_pools, "TINY", {**score_pools.TINY, "embed_dim": 64})  # vectors long enough to be told apart
        clip = score_pools.tiny_clip(folder / "tiny")
    with Server(corpus, folder / "log", ServerSettings(hosts=100)) as server:
        listed = write_list([corpus], folder, server.url)
        table = pq.read_table(listed)
        pq.write_table(table.append_column("similarity", pa.array([number / ROWS for number in range(ROWS)])), listed)
        found = Served(server, listed, clip, folder / "pool")
        assert execute(found.arguments(found.made, 0.1)) == 0
        yield found


@pytest.fixture
def pool(served: Served, tmp_path: Path) -> Path:
    """A copy to take rows out of."""
    return Path(shutil.copytree(served.made, tmp_path / "pool"))


@pytest.fixture(scope="session")
def handmade_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool of `tests.removal.handmade`; to be read or copied."""
    return handmade.build(tmp_path_factory.mktemp("handmade") / "pool").path


@pytest.fixture(scope="session")
def borrowing_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a part of a further list; to be read or copied."""
    return handmade.build(tmp_path_factory.mktemp("borrowing") / "pool", handmade.BORROWING).path


@pytest.fixture(scope="session")
def added(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool with a further list: other captions of images that it has, kept and dropped ones. To be read or copied."""
    pool = Path(shutil.copytree(served.made, tmp_path_factory.mktemp("added") / "pool"))
    urls = [line["url"] for line in rows(pool, f"SELECT DISTINCT url FROM samples WHERE tar_file IS NOT NULL ORDER BY url LIMIT {SHARED}")]
    table = pa.table({"url": urls, "caption": [f"told otherwise, {n}" for n in range(len(urls))], "similarity": [1.0] * len(urls)})
    pq.write_table(table, pool.parent / "second.parquet")
    before = len(served.server.requests())
    assert execute(["add", str(pool), str(pool.parent / "second.parquet")]) == 0
    assert len(served.server.requests()) == before, "all images are there"
    assert execute(served.arguments(pool, 0.1)) == 0
    return pool
