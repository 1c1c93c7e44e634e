"""Caps by domain and by concept against a count row by row."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import curate
from curate.lease import claim
from curate.store import Pool
from tests.shards import pools
from tests.shards.pools import Sample, sample_id

SITES = {
    "http://a.example.co.uk/{}": "example.co.uk",
    "https://b.example.co.uk:8443/{}": "example.co.uk",
    "http://example.co.uk?{}": "example.co.uk",
    "http://me.github.io/{}": "me.github.io",
    "http://you.github.io/{}": "you.github.io",
    "http://xn--bcher-kva.example/{}": "xn--bcher-kva.example",
    "http://10.0.0.1:8080/{}": "10.0.0.1",
    "http://[2001:DB8::1]/{}": "2001:db8::1",
    "http://[2001:db8:0::1]:80/{}": "2001:db8::1",
}
CONCEPTS = 8
ROWS = 150


def located(folder: Path) -> Pool:
    """Rows of several sites, some without an image, that name concepts of very different frequency."""
    draw = np.random.default_rng(3)
    samples = [Sample(reason="http_not_found" if row % 11 == 5 else None) for row in range(ROWS)]
    pool = pools.build(folder / "pool", [samples[:100], samples[100:]], groups=None)
    files = []
    for part, rows in ((0, 100), (1, ROWS - 100)):
        table = pool.snapshot("rows").read().filter(pa.compute.field("part") == part).sort_by("row")
        urls = [list(SITES)[at].format(f"{part}/{row}") for row, at in enumerate(draw.integers(0, len(SITES), rows))]
        at = table.schema.get_field_index("url")
        files.append(pool.write_part("rows", part, table.set_column(at, "url", pa.array(urls, pa.string())), f"basis-{part}"))
    with claim(pool, {}) as run:
        run.add("rows", pool.snapshot("rows").schema)
        run.replace_all("rows", files)
    chances = 0.5 ** np.arange(CONCEPTS)
    named = [draw.choice(CONCEPTS, draw.integers(0, 4), replace=False, p=chances / chances.sum()).tolist() for _ in range(ROWS)]
    ids = [sample_id(row // 100, row % 100) for row in range(ROWS)]
    pq.write_table(pa.table({"sample_id": ids, "concept_ids": pa.array(named, pa.list_(pa.int32()))}), folder / "concepts.parquet")
    curate.open(folder / "pool").attach(folder / "concepts.parquet", on="sample_id", name="concepts")
    return pool


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return located(tmp_path_factory.mktemp("caps"))


def first_by_hash(members: list[str], most: int, seed: int) -> list[str]:
    return sorted(members, key=lambda one: (hashlib.md5(f"{one}/{seed}".encode()).hexdigest(), one))[:most]


def kept(pool: Pool, policy: str, **parameters: float) -> set[str]:
    opened = curate.open(pool.path)
    opened.filter(policy, parameters=parameters)
    lines = opened.sql("SELECT sample_id, keep, reason FROM samples WHERE tar_file IS NOT NULL", policy=policy).rows()
    assert {line["reason"] for line in lines if not line["keep"]} == {"sampled_out"}
    return {line["sample_id"] for line in lines if line["keep"]}


def site_of(url: str) -> str:
    return next(site for form, site in SITES.items() if url.startswith(form.removesuffix("{}")))


@pytest.mark.parametrize(("most", "seed"), [(3, 0), (3, 7), (20, 0)])
def test_a_domain_has_no_more_than_its_cap(pool: Pool, most: int, seed: int) -> None:
    members = defaultdict(list)
    for line in curate.open(pool.path).sql("SELECT sample_id, url FROM samples WHERE tar_file IS NOT NULL").rows():
        members[site_of(line["url"])].append(line["sample_id"])
    wanted = {one for found in members.values() for one in first_by_hash(found, most, seed)}
    assert kept(pool, "domain_cap", most=most, seed=seed) == wanted
    assert max(map(len, members.values())) > most and len(members) == len(set(SITES.values()))


@pytest.mark.parametrize(("most", "seed"), [(2, 0), (2, 7), (9, 1)])
def test_a_concept_has_no_more_than_its_cap(pool: Pool, most: int, seed: int) -> None:
    lines = curate.open(pool.path).sql("SELECT sample_id, concept_ids AS ids FROM samples WHERE tar_file IS NOT NULL").rows()
    counts = Counter(concept for line in lines for concept in line["ids"])
    members, wanted = defaultdict(list), {line["sample_id"] for line in lines if not line["ids"]}
    for line in lines:
        if line["ids"]:
            members[min(line["ids"], key=lambda one: (counts[one], one))].append(line["sample_id"])
    wanted |= {one for found in members.values() for one in first_by_hash(found, most, seed)}
    assert kept(pool, "concept_cap", most=most, seed=seed) == wanted
    assert any(len(found) > most for found in members.values()) and any(not line["ids"] for line in lines)


def test_sql_knows_hosts_and_domains(pool: Pool) -> None:
    asked = curate.open(pool.path).sql("SELECT DISTINCT url, host(url) AS host, domain(host(url)) AS domain FROM samples").rows()
    assert all(line["domain"] == site_of(line["url"]) for line in asked)
    odd = "SELECT domain(host(text)) AS domain FROM (VALUES ('no address'), (NULL), ('http://'), ('http://../x')) AS t(text)"
    assert [line["domain"] for line in curate.open(pool.path).sql(odd).rows()] == [None, None, None, ".."]
