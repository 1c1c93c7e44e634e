"""What the tests ask of a pool and its web."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import curate as library

if TYPE_CHECKING:
    from tests.removal.conftest import Served


def rows(pool: Path, select: str) -> list[dict]:
    return library.open(pool).sql(select).rows()


def pairs(pool: Path, condition: str) -> list[dict]:
    """The owner of an image and the row of the further list that uses it, where nobody else has these bytes."""
    return rows(
        pool,
        f"""SELECT a.sample_id AS owner, b.sample_id AS guest, a.url, a.part, a.tar_file, a.image_sha256
        FROM samples a JOIN samples b ON a.url = b.url AND a.part < b.part
        WHERE b.tar_file = a.tar_file AND b.caption LIKE 'told otherwise%' AND {condition}
        AND a.image_sha256 IN (SELECT image_sha256 FROM samples GROUP BY 1 HAVING count(*) = 2) ORDER BY ALL""",
    )


def asks_nothing(pool: Path, served: Served, curate: Callable) -> None:
    """The next run has nothing to fetch and nothing to score."""
    before = len(served.server.requests())
    assert curate(*served.arguments(pool, 0.1)).code == 0
    counters = json.loads((pool / "documents/last_run.json").read_text())["counters"]
    assert len(served.server.requests()) == before
    assert not counters.get("requests") and not counters.get("model_calls") and not counters.get("decodes")
    said = curate("verify", pool)
    assert said.code == 0, said.out
