"""What trouble costs: a fetch worker that meets bombs, endless bodies and every other planted row needs hardly more memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from curate.demo import trouble
from curate.demo.corpus import Corpus, write_list
from curate.demo.scenes import build
from curate.demo.server import Server
from curate.demo.settings import ScenesSettings, ServerSettings
from curate.recipe import load_recipe, run_recipe

ROWS = 300
ALLOWED_BYTES = 64 << 20
SETTINGS = ('allow_addresses=["127.0.0.0/8"]', "total_seconds=8", "floor_seconds=4", "host_interval_seconds=0.01", "backoff_seconds=0.05")


@dataclass(frozen=True)
class Cost:
    """What a worker held at most, and how its rows ended."""

    peak_bytes: int
    reasons: dict[str, int]


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cost, Cost]:
    """Ordinary scenes; and the same scenes with all planted trouble among them."""
    folder = tmp_path_factory.mktemp("memory")
    ordinary = build(folder / "scenes", ScenesSettings(rows=ROWS, seed=11))
    planted = trouble.plant(folder / "trouble")
    with Server([ordinary, planted], folder / "log", ServerSettings()) as server:
        return cost(folder / "plain", [ordinary], server), cost(folder / "mixed", [ordinary, planted], server)


def cost(folder: Path, corpora: Sequence[Corpus], server: Server) -> Cost:
    """Plans the corpora as one part, and fetches it in a process of its own."""
    listed = write_list(corpora, folder, server.url)
    run_recipe(load_recipe("ingest"), folder / "pool", [f"input.path={listed}"], only="plan")
    command = [sys.executable, "-m", "tests.e2e.fetch_worker", str(folder / "pool"), *SETTINGS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Cost(**json.loads(done.stdout))


def test_bombs_and_every_bad_row_cost_little_memory(costs: tuple[Cost, Cost]) -> None:
    plain, mixed = costs
    print(f"\nfetch worker: {plain.peak_bytes >> 20} MiB with {ROWS} scenes, {mixed.peak_bytes >> 20} MiB with all trouble among them")
    assert plain.peak_bytes > 32 << 20, "a worker that did nothing proves nothing"
    assert mixed.peak_bytes <= plain.peak_bytes + ALLOWED_BYTES


def test_bombs_and_every_bad_row_were_met(costs: tuple[Cost, Cost]) -> None:
    plain, mixed = costs
    assert sum(plain.reasons.values()) == ROWS
    assert sum(mixed.reasons.values()) == ROWS + len(trouble.PLANTED)
    met = Counter(mixed.reasons) - Counter(plain.reasons)
    certain = Counter(planted.expected_reasons[0] for planted in trouble.PLANTED if len(planted.expected_reasons) == 1)
    assert all(met[reason] >= count for reason, count in certain.items())
    assert met["too_many_pixels"] >= 2 and met["too_large"] == 2 and met["encoding_refused"] == 1
