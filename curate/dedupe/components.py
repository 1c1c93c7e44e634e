"""Connected components of a graph that no single machine holds: large-star and small-star in turn.

Method: Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii: Connected components in MapReduce and beyond (SoCC 2014). Large-star
ties every larger neighbour of a node to the smallest node around it, small-star every smaller one and the node itself;
in turn they end at one star per component, after about log2 of the longest path. Before that, once what is not a star yet
fits into one bucket, a single task unties it: most pools need no more than that.

A node is a 64-bit integer, not negative. Stars of any size pass chunk by chunk: a task holds one number per node of its bucket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.shuffle import Gathered, Lines, Out, Shuffle
from curate.stage import PartTask

Indices = NDArray[np.int64]
SCHEMA = pa.schema([("node", pa.int64()), ("other", pa.int64())])
KNOTS_FOR_A_ROW = 4  # edges that one task unties, for each row of a bucket: an edge is far smaller than a picture
EDGES = Lines(SCHEMA, "node")
"""An exchange of edges: every edge stands in it twice, once from each of its ends."""


def both_ways(one: Indices, other: Indices) -> dict[str, Indices]:
    """Edges as `EDGES` holds them."""
    return {"node": np.concatenate([one, other]), "other": np.concatenate([other, one])}


def components(shuffle: Shuffle, edges: str) -> str:
    """Name of an exchange with a line (node, smallest node of its component) for each node of `edges` that is not itself the smallest.

    Uses `edges` up. A line may stand there twice.
    """
    number = 0
    while True:
        stars = f"stars {number}"
        found = shuffle.run(LargeStar(edges, stars))
        if not found.counters.get("unsettled", 0):
            shuffle.drop(edges)
            return stars
        if shuffle.lines("knots") <= KNOTS_FOR_A_ROW * shuffle.crew.bucket_rows:
            return _finished(shuffle, edges, stars)
        shuffle.drop(edges, "knots")
        edges, number = f"edges {number + 1}", number + 1
        shuffle.run(SmallStar(stars, edges))
        shuffle.drop(stars)


def _finished(shuffle: Shuffle, edges: str, stars: str) -> str:
    shuffle.drop(stars)
    shuffle.run(Untie(), whole=True)
    shuffle.run(HandOn(edges))
    shuffle.drop(edges, "knots", "roots")
    return "components"


@dataclass(frozen=True)
class LargeStar:
    """Ties the larger neighbours of a node to the smallest of its neighbourhood.

    A node with a smaller neighbour and yet another one is a **knot**: without one, all components are stars. The edges of
    knots go on by themselves. What is not theirs leads from a node with one neighbour to the middle of a star.
    """

    edges: str
    stars: str

    name = "large star"

    @property
    def reads(self) -> tuple[str]:
        """All edges."""
        return (self.edges,)

    @property
    def emits(self) -> Mapping[str, Lines]:
        """New edges, once each, at the larger end; and those of knots."""
        return {self.stars: EDGES, "knots": EDGES}

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of nodes with all their neighbours."""
        smallest = _Smallest(given[self.edges])
        knots = _knots(smallest, given[self.edges])
        for node, other in _chunks(given[self.edges]):
            least = np.minimum(smallest.of(node), node)
            tied = np.isin(node, knots, kind="sort") if len(knots) else np.zeros(len(node), np.bool_)
            out.count("unsettled", int(tied.sum()))
            out.emit("knots", {"node": node[tied], "other": other[tied]})
            larger = other > node
            out.emit(self.stars, {"node": other[larger], "other": least[larger]})


def _knots(smallest: _Smallest, edges: Gathered) -> Indices:
    """Nodes of a bucket that have a smaller neighbour and another one."""
    found = [np.zeros(0, np.int64)]
    for node, other in _chunks(edges):
        least = smallest.of(node)
        found.append(np.unique(node[(least < node) & (other != least)]))
    return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class SmallStar:
    """Ties a node and its smaller neighbours to the smallest of them."""

    stars: str
    edges: str

    name = "small star"

    @property
    def reads(self) -> tuple[str]:
        """What large-star left."""
        return (self.stars,)

    @property
    def emits(self) -> Mapping[str, Lines]:
        """New edges, both ways."""
        return {self.edges: EDGES}

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of nodes with their smaller neighbours."""
        smallest = _Smallest(given[self.stars])
        out.emit(self.edges, both_ways(smallest.nodes, smallest.least))
        for node, other in _chunks(given[self.stars]):
            least = smallest.of(node)
            moves = other != least
            out.emit(self.edges, both_ways(other[moves], least[moves]))


@dataclass(frozen=True)
class Untie:
    """Finds the components of the knots and their neighbours, all in one task."""

    name = "knots"
    reads: Sequence[str] = ("knots",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"roots": EDGES})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """Every bucket at once."""
        from scipy.sparse import coo_array  # slow to load, and few tasks need it
        from scipy.sparse.csgraph import connected_components

        edges = given["knots"].table()
        ends = np.concatenate([np.asarray(edges.column(name).to_numpy(), np.int64) for name in ("node", "other")])
        nodes, place = np.unique(ends, return_inverse=True)
        one, other = place[: len(edges)], place[len(edges) :]
        graph = coo_array((np.ones(len(edges), np.bool_), (one, other)), shape=(len(nodes), len(nodes)))
        label = connected_components(graph, directed=False)[1]
        root = nodes[np.unique(label, return_index=True)[1]][label]  # nodes ascend: the first of a component is its smallest
        out.emit("roots", {"node": nodes, "other": root})


@dataclass(frozen=True)
class HandOn:
    """Tells the neighbours of every node whose component they are in."""

    edges: str

    name = "components"
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"components": EDGES})

    @property
    def reads(self) -> Sequence[str]:
        """All edges, and the component of each node at a knot."""
        return (self.edges, "roots")

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of nodes; one that `roots` does not name is the middle of a star, or has no larger neighbour."""
        roots = given["roots"].table("node")
        known, label = (np.asarray(roots.column(name).to_numpy(), np.int64) for name in ("node", "other"))
        for node, other in _chunks(given[self.edges]):
            root = looked_up(known, label, node)
            larger = other > root
            out.emit("components", {"node": other[larger], "other": root[larger]})


def looked_up(known: Indices, value: Indices, wanted: Indices) -> Indices:
    """`value` of each wanted one that is in the ascending `known`, else the wanted one itself."""
    if not len(known):
        return wanted
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[at] == wanted, value[at], wanted)


class _Smallest:
    """The smallest neighbour of every node of a bucket."""

    def __init__(self, edges: Gathered) -> None:
        self.nodes, self.least = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for node, other in _chunks(edges):
            self._merge(node, other)

    def of(self, node: Indices) -> Indices:
        """For each of these nodes."""
        return self.least[np.searchsorted(self.nodes, node)]

    def _merge(self, node: Indices, other: Indices) -> None:
        first = _starts(node)  # sorted by (node, other): the first is the smallest
        nodes, least = np.concatenate([self.nodes, node[first]]), np.concatenate([self.least, other[first]])
        order = np.lexsort((least, nodes))
        nodes, least = nodes[order], least[order]
        first = _starts(nodes)
        self.nodes, self.least = nodes[first], least[first]


def _chunks(edges: Gathered) -> Iterator[tuple[Indices, Indices]]:
    """Distinct lines of each chunk, sorted."""
    for chunk in edges.chunks():
        node, other = (chunk.column(name).to_numpy() for name in ("node", "other"))
        order = np.lexsort((other, node))
        node, other = node[order], other[order]
        new = _starts(node) | _starts(other)
        yield node[new], other[new]


def _starts(values: Indices) -> NDArray[np.bool_]:
    """Where a run of equal values begins."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
