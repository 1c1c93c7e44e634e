"""The simulated web has the shares and the latencies that it promises."""

from __future__ import annotations

import io
import statistics
from collections import Counter

import pytest
from PIL import Image

from tests.web.dns import NO_SUCH_NAME, SERVER_FAILURE
from tests.web.simulated import MOST_SECONDS, PICTURES, World, latency_seconds, pictures

WORLD = World(20_000, 20_000)


def test_shares_are_those_of_all_rows() -> None:
    kinds = Counter(WORLD.kind(row) if WORLD.name_kind(row) == "good" else WORLD.name_kind(row) for row in range(WORLD.rows))
    wanted = {"picture": 0.75, "missing": 0.08, "busy": 0.03, "drip": 0.02, "gone": 0.08, "broken": 0.02, "silent": 0.02}
    assert {kind: count / WORLD.rows for kind, count in kinds.items()} == pytest.approx(wanted, abs=0.01)
    assert sum(WORLD.fetchable(row) for row in range(WORLD.rows)) == kinds["picture"] + kinds["busy"]


def test_latency_is_lognormal_and_capped() -> None:
    seconds = [latency_seconds(WORLD.url(row).removeprefix("http://")) for row in range(WORLD.rows)]
    cuts = statistics.quantiles(seconds, n=100)
    assert cuts[49] == pytest.approx(0.2, rel=0.1) and cuts[98] == pytest.approx(8.0, rel=0.2)
    assert max(seconds) == MOST_SECONDS


def test_names_lead_to_public_addresses_or_fail_in_their_way() -> None:
    replies = {WORLD.name_kind(host): WORLD.answer(WORLD.host(host), "A", 0) for host in range(500)}
    assert replies["good"].addresses[0].startswith("20.") and replies["silent"].silent
    assert (replies["gone"].code, replies["broken"].code) == (NO_SUCH_NAME, SERVER_FAILURE)
    assert WORLD.answer("elsewhere.example", "A", 0).code == NO_SUCH_NAME


def test_pictures_have_the_size_of_pictures() -> None:
    made = pictures()
    assert len(set(made)) == PICTURES
    assert all(12_000 < len(body) < 90_000 for body in made) and 20_000 < statistics.mean(map(len, made)) < 60_000
    assert all(Image.open(io.BytesIO(body)).format == "JPEG" for body in made[:4])
