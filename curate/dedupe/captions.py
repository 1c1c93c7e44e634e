"""Near captions, as rounds of a shuffle: captions meet by the bands of their MinHash, then each pair that met is compared in full.

What meets are distinct captions: equal ones were collapsed before. Up to `CROWD` captions of one band are all compared with
each other. In a larger crowd (one sentence with another name in each) every caption is compared with the first of the crowd
and with the `NEIGHBOURS` that follow it in the order of one more minimum: the work stays linear, and those who share most
stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from curate.dedupe import exchanges as ex
from curate.dedupe.components import EDGES, both_ways
from curate.dedupe.minhash import Banding, band_keys, banding, minima, most_differing_bits, sketches
from curate.dedupe.settings import CaptionMatching
from curate.dedupe.shingles import Hashes, Indices, Sets, jaccard, shingle_sets, shingles
from curate.shuffle import Gathered, Lines, Out, Shuffle
from curate.stage import PartTask

CROWD = 32
NEIGHBOURS = 4
BANDS_AT_ONCE = 32  # so many lines of 34 bytes are under way for every caption
_SLICE_LINES = 1 << 16  # captions of a pair are compared so many at once


def near_captions(shuffle: Shuffle, borders: tuple[int, ...], settings: CaptionMatching) -> int:
    """Compares captions that meet; uses `shown` up, adds to `pairs` and `edges`, returns how many pairs matched."""
    chosen = banding(settings.jaccard, settings.recall, settings.permutations)
    shuffle.put("met", ex.MET, ex.MET.schema.empty_table())
    for low in range(0, chosen.bands, BANDS_AT_ONCE):
        bands = range(low, min(low + BANDS_AT_ONCE, chosen.bands))
        shuffle.run(Sign(settings, chosen, bands))
        shuffle.run(Meet(most_differing_bits(settings.jaccard, len(bands) * chosen.rows + 1)))
        shuffle.drop("bands")
    shuffle.run(Tell())
    shuffle.drop("met")
    found = shuffle.run(Compare(borders, settings))
    shuffle.drop("shown", "told")
    return int(found.counters.get("near pairs", 0))


@dataclass(frozen=True)
class Sign:
    """Sends every caption, for each band, to where those that agree in it come together."""

    settings: CaptionMatching
    banding: Banding
    bands: range

    name = "captions by bands"
    reads: Sequence[str] = ("shown",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"bands": ex.BANDS})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of captions."""
        for chunk in given["shown"].chunks():
            place = ex.integers(chunk, "place")
            for found in shingles(_texts(chunk), self.settings.characters):
                own, place = place[: len(found.starts)], place[len(found.starts) :]
                rows = range(self.bands.start * self.banding.rows, self.bands.stop * self.banding.rows + 1)
                signature = minima(found, rows, self.settings.seed)
                keys, nexts = band_keys(signature, self.banding.rows)
                left, right = np.tile(sketches(signature), (len(keys), 1)).T
                lines = {"key": keys.ravel(), "next": nexts.ravel(), "place": np.tile(own, len(keys)), "left": left, "right": right}
                out.emit("bands", lines)


@dataclass(frozen=True)
class Meet:
    """Pairs the captions that agree in a band and whose sketches do not tell that they are too far apart."""

    most_differing: int

    name = "captions meet"
    reads: Sequence[str] = ("bands",)
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"met": ex.MET})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of keys."""
        bands = given["bands"].table()
        key = np.asarray(bands.column("key").to_numpy(), np.uint64)
        order = np.argsort(key | np.asarray(bands.column("next").to_numpy(), np.uint64))
        key, place = key[order], ex.integers(bands, "place")
        sketch = [np.asarray(bands.column(name).to_numpy(), np.uint64) for name in ("left", "right")]
        for first, second in met_pairs(key):
            one, other = order[first], order[second]
            near = sum(np.bitwise_count(half[one] ^ half[other]) for half in sketch) <= self.most_differing
            one, other = place[one[near]], place[other[near]]
            out.emit("met", {"place": np.minimum(one, other), "other": np.maximum(one, other)})


def met_pairs(key: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """Positions in sorted keys that are compared: all with an equal key, of a crowd some (see the module), each pair once."""
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))[: len(key)]
    sizes = np.diff(starts, append=len(key))
    crowded = np.repeat(sizes > CROWD, sizes)
    left, apart = np.flatnonzero(key[1:] == key[:-1]), 1
    while left.size:
        yield left, left + apart
        apart += 1
        left = left[(left + apart < len(key)) & ~(crowded[left] & (apart > NEIGHBOURS))]
        left = left[key[left] == key[left + apart]]
    member = np.flatnonzero(crowded)
    first = np.repeat(starts, sizes)[member]
    far = member - first > NEIGHBOURS
    yield first[far], member[far]


@dataclass(frozen=True)
class Tell:
    """Sends the text of a caption to each one that it met, once."""

    name = "captions to those they met"
    reads: Sequence[str] = ("shown", "met")
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"told": ex.TOLD})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of captions with those that they met."""
        shown = given["shown"].table("place")
        known = ex.integers(shown, "place")
        place, other = _distinct(given["met"])
        for low in range(0, len(place), _SLICE_LINES):
            own, far = place[low : low + _SLICE_LINES], other[low : low + _SLICE_LINES]
            text = shown.column("text").take(pa.array(np.searchsorted(known, own))).combine_chunks()
            out.emit("told", {"place": far, "other": own, "text": text})
        out.count("compared captions", len(place))


def _distinct(met: Gathered) -> tuple[Indices, Indices]:
    """Pairs without those that stand there again."""
    place, other = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for chunk in met.chunks():
        place, other = (np.concatenate([had, ex.integers(chunk, name)]) for had, name in ((place, "place"), (other, "other")))
        order = np.lexsort((other, place))
        place, other = place[order], other[order]
        new = np.concatenate([[True], (place[1:] != place[:-1]) | (other[1:] != other[:-1])])
        place, other = place[new], other[new]
    return place, other


@dataclass(frozen=True)
class Compare:
    """Looks at the shingles of two captions: do they say the same?"""

    borders: tuple[int, ...]
    settings: CaptionMatching

    name = "near captions"
    reads: Sequence[str] = ("shown", "told")
    emits: Mapping[str, Lines] = field(default_factory=lambda: {"pairs": ex.PAIRS, "edges": EDGES})

    def run(self, task: PartTask, given: Mapping[str, Gathered], out: Out) -> None:
        """One bucket of captions, with the texts of those that each met."""
        shown = given["shown"].table("place")
        known = ex.integers(shown, "place")
        for chunk in given["told"].chunks():
            chunk = chunk.sort_by("other")
            for low in range(0, len(chunk), _SLICE_LINES):
                told = chunk.slice(low, _SLICE_LINES)
                wanted, mine = np.unique(ex.integers(told, "place"), return_inverse=True)
                senders, first, theirs = np.unique(ex.integers(told, "other"), return_index=True, return_inverse=True)
                own = self._sets(shown.take(pa.array(np.searchsorted(known, wanted))))
                self._match(wanted, own, senders, self._sets(told.take(pa.array(first))), mine, theirs, out)

    def _sets(self, lines: pa.Table) -> Sets:
        return shingle_sets(_texts(lines), self.settings.characters)

    def _match(
        self, place: Indices, own: Sets, other: Indices, sent: Sets, mine: Indices, theirs: Indices, out: Out
    ) -> None:  # fmt: skip
        """Pairs (mine[i], theirs[i]); sets of sizes too different are not compared."""
        sizes = np.stack([own.sizes()[mine], sent.sizes()[theirs]])
        alike = sizes.min(axis=0) >= self.settings.jaccard * sizes.max(axis=0)
        mine, theirs = mine[alike], theirs[alike]
        index = jaccard(own, sent, mine, theirs)
        same = index >= self.settings.jaccard
        one, far = place[mine[same]], other[theirs[same]]
        out.emit("pairs", ex.pair_lines(self.borders, one, far, (1 - index[same]).astype(np.float32), exact=False))
        out.emit("edges", both_ways(one, far))
        out.count("near pairs", len(one))


def _texts(lines: pa.Table) -> pa.Array:
    return lines.column("text").combine_chunks()
