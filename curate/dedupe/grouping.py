"""From pictures or captions to groups, as rounds of a shuffle: equal ones, near ones, components, verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedupe import copies
from curate.dedupe import exchanges as ex
from curate.dedupe.candidates import compared_nodes, distinct_nodes
from curate.dedupe.captions import near_captions
from curate.dedupe.components import EDGES, both_ways, components, looked_up
from curate.dedupe.exchanges import Indices
from curate.dedupe.hamming import collisions
from curate.dedupe.near import near_looks
from curate.dedupe.settings import DedupeSettings
from curate.shuffle import Gathered, Lines, Out, Shuffle
from curate.stage import PartTask


def group(shuffle: Shuffle, borders: tuple[int, ...], settings: DedupeSettings, centroids: str = "") -> dict[str, float]:
    """Groups of rows that are connected by equal bytes or captions or by verified matches; copies meet around `centroids`.

    Takes the exchange `pictures` or `captions`, leaves `rows` and `pairs`; returns how many rows, pairs and groups there are.
    """
    labels = "edges"
    if settings.by == "captions":
        counters = _equal(shuffle, Equal(borders, "captions", ex.TEXTS))
        counters["near pairs"] = near_captions(shuffle, borders, settings.captions)
        labels = components(shuffle, "edges")
    elif settings.by == "copies":
        counters = _equal(shuffle, Equal(borders, "pictures", copies.shown(copies.dimension_of(shuffle.pool, centroids))))
        counters["near pairs"] = copies.near_copies(shuffle, borders, settings.copies, centroids)
        labels = components(shuffle, "edges")
    elif settings.perceptual:
        counters = _equal(shuffle, Equal(borders, "pictures", ex.SHOWN))
        counters["near pairs"] = _near_pictures(shuffle, borders, settings)
        labels = components(shuffle, "edges")
    else:
        counters = _equal(shuffle, Equal(borders, "pictures", ex.SHOWN))
        shuffle.put(labels, EDGES, EDGES.schema.empty_table())
    shuffle.run(Label(labels))
    verdicts = shuffle.run(Judge())
    shuffle.drop(labels, "leaders", "members")
    shuffle.run(Tell(borders))
    shuffle.drop("of", "verdicts")
    return counters | verdicts.counters | {"largest": verdicts.most.get("largest", 0)}


def _equal(shuffle: Shuffle, round: Equal) -> dict[str, float]:
    counters = shuffle.run(round).counters
    shuffle.drop(round.given)
    return counters


def _near_pictures(shuffle: Shuffle, borders: tuple[int, ...], settings: DedupeSettings) -> float:
    found = shuffle.run(EqualLooks(borders, settings))
    matches = near_looks(shuffle, borders, settings, found.counters)
    shuffle.drop("shown", "nodes")
    return found.counters.get("near pairs", 0) + matches


@dataclass(frozen=True)
class Equal:
    """Of the rows with one digest the one with the smallest sample_id leads; it goes on for all of them."""

    borders: tuple[int, ...]
    given: str  # exchange
    shown: Lines  # what goes on of a leader

    @property
    def name(self) -> str:
        """For people."""
        return f"equal {self.given}"

    @property
    def reads(self) -> Sequence[str]:
        """All rows."""
        return (self.given,)

    @property
    def emits(self) -> Mapping[str, Lines]:
        """Who leads whom, the leaders, and the evidence."""
        return {"of": ex.OF, "leaders": ex.LEADERS, "shown": self.shown, "pairs": ex.PAIRS}

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of digests."""
        heads = _collapsed(given[self.given])
        if heads is None:
            return
        place = ex.integers(heads, "place")
        out.emit("leaders", heads.select(ex.LEADERS.schema.names))
        out.emit("shown", heads.filter(heads.column("shown")).select(self.shown.schema.names))
        for chunk in given[self.given].chunks():
            leader = place[_places_in(ex.words(heads, ex.SHA), ex.words(chunk, ex.SHA))]
            member = ex.integers(chunk, "place")
            copies = member != leader
            none = np.zeros(int(copies.sum()), np.float32)
            out.emit("of", {"leader": leader, "place": member})
            out.emit("pairs", ex.pair_lines(self.borders, leader[copies], member[copies], none, exact=True))
            out.count("rows", len(member))
            out.count("exact pairs", len(none))


def _collapsed(rows: Gathered) -> pa.Table | None:
    """One line for each digest, its leader's, with a `count`; however many rows have it, no more than a chunk is held."""
    heads: pa.Table | None = None
    for chunk in rows.chunks():
        counted = chunk.append_column("count", pa.array(np.ones(len(chunk), np.int64)))
        both = counted if heads is None else pa.concat_tables([heads, counted]).combine_chunks()
        classes = equal_rows(ex.words(both, ex.SHA))
        first = firsts(classes, ranks(ex.words(both, ex.ID)))
        counts = np.bincount(classes, ex.integers(both, "count")).astype(np.int64)
        heads = both.take(pa.array(first)).set_column(both.schema.get_field_index("count"), "count", pa.array(counts))
    return heads


@dataclass(frozen=True)
class EqualLooks:
    """Leaders with equal hash and equal grid are one node; nodes of one hash are compared here, with near ones later."""

    borders: tuple[int, ...]
    settings: DedupeSettings

    name = "equal hashes"
    reads: Sequence[str] = ("shown",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"nodes": ex.NODES, "pairs": ex.PAIRS, "edges": EDGES})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of hashes."""
        faces = _collapsed_looks(given["shown"])
        if faces is None:
            return
        nodes, place = distinct_nodes(*ex.looks(faces)), ex.integers(faces, "place")
        face = np.empty_like(place)
        face[nodes.of] = place
        for chunk in given["shown"].chunks():
            self._followers(faces, place, chunk, out)
        stays, edges = compared_nodes(nodes, self.settings)
        self._merge(face[edges.first], face[edges.second], out)
        out.emit("nodes", {"hash": nodes.hashes[stays], "grid": ex.grid_column(nodes.grids[stays]), "place": face[stays]})
        distinct = np.unique(nodes.hashes[stays])
        for agreeing, pairs in collisions(distinct, self.settings.radius_bits).items():
            out.count(f"collisions {agreeing}", pairs)
        out.count("hashes", len(distinct))

    def _followers(self, faces: pa.Table, place: Indices, chunk: pa.Table, out: Out) -> None:
        """Pictures of one look follow the one with the smallest sample_id."""
        both = distinct_nodes(*ex.looks(pa.concat_tables([faces, chunk.select(faces.schema.names)])))
        of_node = np.empty(len(both.hashes), np.int64)
        of_node[both.of[: len(faces)]] = place
        leader, member = of_node[both.of[len(faces) :]], ex.integers(chunk, "place")
        follows = leader != member
        self._merge(leader[follows], member[follows], out)

    def _merge(self, one: Indices, other: Indices, out: Out) -> None:
        out.emit("pairs", ex.pair_lines(self.borders, one, other, np.zeros(len(one), np.float32), exact=False))
        out.emit("edges", both_ways(one, other))
        out.count("near pairs", len(one))


def _collapsed_looks(shown: Gathered) -> pa.Table | None:
    """One line for each (hash, grid), of the picture with the smallest sample_id."""
    faces: pa.Table | None = None
    for chunk in shown.chunks():
        both = chunk if faces is None else pa.concat_tables([faces, chunk]).combine_chunks()
        nodes = distinct_nodes(*ex.looks(both))
        faces = both.take(pa.array(firsts(nodes.of, ranks(ex.words(both, ex.ID)))))
    return faces


@dataclass(frozen=True)
class Label:
    """Brings each leader to the smallest place of its component; one without an edge is a component."""

    labels: str

    name = "components to pictures"
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"members": ex.MEMBERS})

    @property
    def reads(self) -> Sequence[str]:
        """Leaders and the labels of some."""
        return ("leaders", self.labels)

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of places."""
        node, root = (ex.integers(given[self.labels].table(), name) for name in EDGES.schema.names)
        node, first = np.unique(node, return_index=True)
        root = root[first]
        for chunk in given["leaders"].chunks():
            place = ex.integers(chunk, "place")
            label = looked_up(node, root, place)
            out.emit("members", {"root": label, **_columns(chunk, (*ex.ID, "place", "count"))})


@dataclass(frozen=True)
class Judge:
    """What is true of a whole component: smallest sample_id, number of pictures, whether all bytes are equal."""

    name = "groups"
    reads: Sequence[str] = ("members",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"verdicts": ex.VERDICTS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of components; as large a component as may be."""
        roots = _summed(given["members"])
        if roots is None:
            return
        size, leaders = ex.integers(roots, "count"), ex.integers(roots, "leaders")
        out.count("groups", int((size > 1).sum()))
        out.count("grouped rows", int(size[size > 1].sum()))
        out.count("largest", int(size.max()))
        known, order = np.unique(ex.integers(roots, "root"), return_index=True)
        for chunk in given["members"].chunks():
            at = order[np.searchsorted(known, ex.integers(chunk, "root"))]
            told = {name: ex.array(roots, name)[at] for name in ex.ID}
            out.emit("verdicts", {"leader": ex.array(chunk, "place"), **told, "size": size[at], "exact": leaders[at] == 1})


def _summed(members: Gathered) -> pa.Table | None:
    """One line for each root: smallest sample_id, `count` pictures and `leaders` of them."""
    roots: pa.Table | None = None
    for chunk in members.chunks():
        counted = chunk.append_column("leaders", pa.array(np.ones(len(chunk), np.int64)))
        both = counted if roots is None else pa.concat_tables([roots, counted]).combine_chunks()
        classes = np.unique(ex.integers(both, "root"), return_inverse=True)[1]
        roots = both.take(pa.array(firsts(classes, ranks(ex.words(both, ex.ID)))))
        for name in ("count", "leaders"):
            total = np.bincount(classes, ex.integers(both, name)).astype(np.int64)
            roots = roots.set_column(roots.schema.get_field_index(name), name, pa.array(total))
    return roots


@dataclass(frozen=True)
class Tell:
    """Tells every picture what is true of its leader's component."""

    borders: tuple[int, ...]

    name = "groups to pictures"
    reads: Sequence[str] = ("of", "verdicts")
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"rows": ex.ROWS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of leaders; as many pictures of one as may be."""
        verdicts = given["verdicts"].table("leader")
        known = ex.integers(verdicts, "leader")
        for chunk in given["of"].chunks():
            at = np.searchsorted(known, ex.integers(chunk, "leader"))
            place = ex.integers(chunk, "place")
            told = _columns(verdicts.take(pa.array(at)), (*ex.ID, "size", "exact"))
            out.emit("rows", {"chunk": ex.chunk_of(self.borders, place), "place": place, **told})


# -- small things


def _columns(table: pa.Table, names: Sequence[str]) -> dict[str, object]:
    return {name: table.column(name).combine_chunks() for name in names}


def _places_in(known: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> Indices:
    """Where each wanted row stands among the known ones, which differ from each other and include it."""
    classes = equal_rows(np.concatenate([known, wanted]))
    place = np.empty(len(known), np.int64)
    place[classes[: len(known)]] = np.arange(len(known))
    return place[classes[len(known) :]]


def equal_rows(words: NDArray[np.uint64]) -> Indices:
    """Class number of each row of an (n, words) array: equal rows, equal number."""
    order = _order(words)
    ordered = words[order]
    changes = (ordered[1:] != ordered[:-1]).any(axis=1)
    classes = np.empty(len(words), np.int64)
    classes[order] = np.concatenate([np.zeros(min(1, len(words)), np.int64), np.cumsum(changes)])
    return classes


def ranks(words: NDArray[np.uint64]) -> Indices:
    """Place of each row of an (n, words) array in ascending order."""
    rank = np.empty(len(words), np.int64)
    rank[_order(words)] = np.arange(len(words))
    return rank


def _order(words: NDArray[np.uint64]) -> Indices:
    """As `np.lexsort` has it, sooner where most rows differ in their first word."""
    order = np.argsort(words[:, 0])
    equal = np.diff(words[order, 0], prepend=0, append=0) == 0
    tied = np.flatnonzero(equal[1:] | equal[:-1])
    rows = np.sort(order[tied])
    order[tied] = rows[np.lexsort(words[rows].T[::-1])]
    return order


def firsts(classes: Indices, rank: Indices) -> Indices:
    """For each class, from 0, the index of its element that has the smallest rank."""
    order = np.lexsort((rank, classes))
    starts = np.concatenate([[True], classes[order][1:] != classes[order][:-1]])[: len(order)]
    return np.asarray(order[starts], np.int64)
