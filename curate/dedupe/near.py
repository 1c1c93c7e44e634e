"""Near hashes, as rounds of a shuffle: hashes meet by their blocks, then the nodes of each near pair of hashes meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from curate.dedupe import exchanges as ex
from curate.dedupe.candidates import products
from curate.dedupe.colour import same_picture
from curate.dedupe.components import EDGES, both_ways
from curate.dedupe.hamming import Hashes, Indices, agreeing_blocks, choices, near_pairs
from curate.dedupe.settings import DedupeSettings
from curate.shuffle import Gathered, Lines, Out, Shuffle, mixed
from curate.stage import PartTask

CHOICES_AT_ONCE = 8  # so many copies of every hash are under way together


def near_looks(shuffle: Shuffle, borders: tuple[int, ...], settings: DedupeSettings, counters: Mapping[str, float]) -> int:
    """Compares the nodes of every pair of near hashes; adds to `pairs` and `edges`, returns how many pairs matched."""
    near_hashes(shuffle, settings.radius_bits, counters)
    shuffle.run(Ask())
    shuffle.drop("near")
    found = shuffle.run(Compare(borders, settings))
    shuffle.drop("asked")
    return int(found.counters.get("near pairs", 0))


def near_hashes(shuffle: Shuffle, radius: int, counters: Mapping[str, float]) -> None:
    """`nodes` → `near`. `counters`: how many hashes there are, and how many collide within each bucket of them."""
    crowding = {
        int(name.split()[1]): pairs * shuffle.buckets for name, pairs in counters.items() if name.startswith("collisions")
    }  # a bucket is a sample of one in `buckets`, in which one in `buckets` squared of all pairs meets
    agreeing = agreeing_blocks(counters.get("hashes", 0), crowding, radius)
    count = len(choices(radius, agreeing)) if radius else 0
    shuffle.put("near", ex.NEAR, ex.NEAR.schema.empty_table())
    for low in range(0, count, CHOICES_AT_ONCE):
        chosen = range(low, min(low + CHOICES_AT_ONCE, count))
        shuffle.run(Spread(radius, agreeing, chosen))
        shuffle.run(Near(radius, agreeing, chosen))
        shuffle.drop("blocks")


@dataclass(frozen=True)
class Spread:
    """Sends every distinct hash to where those with the same bits in some blocks come together."""

    radius: int
    agreeing: int
    chosen: range

    name = "hashes by blocks"
    reads: Sequence[str] = ("nodes",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"blocks": ex.BLOCKS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of hashes."""
        hashes = _distinct(given["nodes"])
        all_choices = choices(self.radius, self.agreeing)
        for number in self.chosen:
            key = mixed(hashes & np.uint64(all_choices[number].mask)) + np.uint64(number)
            out.emit("blocks", {"key": key, "choice": np.full(len(hashes), number, np.int32), "hash": hashes})


@dataclass(frozen=True)
class Near:
    """Finds the pairs within the radius among hashes that agree on some blocks."""

    radius: int
    agreeing: int
    chosen: range

    name = "near hashes"
    reads: Sequence[str] = ("blocks",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"near": ex.NEAR})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of keys."""
        blocks = given["blocks"].table()
        choice, hashes = ex.integers(blocks, "choice"), np.asarray(blocks.column("hash").to_numpy(), np.uint64)
        all_choices = choices(self.radius, self.agreeing)
        for number in self.chosen:
            for one, other in near_pairs(hashes[choice == number], all_choices[number], self.radius):
                out.emit("near", {"hash": one, "near": other})


@dataclass(frozen=True)
class Ask:
    """Sends the nodes of a hash to each hash near it."""

    name = "looks to near hashes"
    reads: Sequence[str] = ("nodes", "near")
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"asked": ex.ASKED})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of hashes."""
        nodes = given["nodes"].table("hash", "place")
        hashes, starts, sizes = _buckets(np.asarray(nodes.column("hash").to_numpy(), np.uint64))
        for chunk in given["near"].chunks():
            own, near = (np.asarray(chunk.column(name).to_numpy(), np.uint64) for name in ("hash", "near"))
            at, alone = np.searchsorted(hashes, own), np.arange(len(own))
            ones = np.ones(len(own), np.int64)
            for node, pair in products(starts, sizes, alone, ones, at, alone):
                told = nodes.take(np.asarray(node))
                look = {name: told.column(name).combine_chunks() for name in ("grid", "place")}
                out.emit("asked", {"hash": near[pair], "near": own[pair], **look})


@dataclass(frozen=True)
class Compare:
    """Looks at the nodes of two near hashes: do they show the same picture?"""

    borders: tuple[int, ...]
    settings: DedupeSettings

    name = "near looks"
    reads: Sequence[str] = ("nodes", "asked")
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"pairs": ex.PAIRS, "edges": EDGES})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of hashes, with the nodes that ask for each."""
        nodes = given["nodes"].table("hash", "place")
        place, (node_hashes, grids) = ex.integers(nodes, "place"), ex.looks(nodes)
        hashes, starts, sizes = _buckets(node_hashes)
        for chunk in given["asked"].chunks():
            wanted, asking = ex.looks(chunk)
            from_place, alone = ex.integers(chunk, "place"), np.arange(len(chunk))
            distance = np.bitwise_count(wanted ^ np.asarray(chunk.column("near").to_numpy(), np.uint64)).astype(np.float32)
            at, ones = np.searchsorted(hashes, wanted), np.ones(len(chunk), np.int64)
            for node, line in products(starts, sizes, alone, ones, at, alone):
                same = same_picture(grids[node], asking[line], self.settings)
                one, other = place[node[same]], from_place[line[same]]
                out.emit("pairs", ex.pair_lines(self.borders, one, other, distance[line[same]], exact=False))
                out.emit("edges", both_ways(one, other))
                out.count("near pairs", len(one))


def _distinct(nodes: Gathered) -> Hashes:
    found = [np.unique(np.asarray(chunk.column("hash").to_numpy(), np.uint64)) for chunk in nodes.chunks()]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def _buckets(hashes: Hashes) -> tuple[Hashes, Indices, Indices]:
    """Distinct values of sorted hashes, where each begins, and how often it stands."""
    distinct, starts, sizes = np.unique(hashes, return_index=True, return_counts=True)
    return distinct, starts.astype(np.int64), sizes.astype(np.int64)
