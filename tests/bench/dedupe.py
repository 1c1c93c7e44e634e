"""Duplicate search beside its peers: `python -m tests.bench.dedupe hashes|captions [SIZE …] [--beside SIZE] [--rounds 3] [--equal 0.05]`.

`hashes`: all pairs of 64-bit hashes within 4 bits, by the rounds of `curate.dedupe.near` on two workers, beside faiss's
IndexBinaryMultiHash with two threads in the quickest of those of its settings that find every pair, and beside comparing all
with all (faiss's IndexBinaryFlat, each pair once). Both peers are asked a sample and their time for all is extrapolated from it.
One hash in ten is another with up to four bits turned; a share `--equal` are copies, half of them of one hash (blank pictures),
which all three collapse first.
Recall is that of 300 hashes, compared with all.

`captions`: from texts to groups with evidence in this one process, beside datasketch (MinHashLSH, 128 permutations, each caption
asked and inserted, no check of what it finds; its texts are normalised for it). One caption in five is another with a word
or two changed, one in twenty a copy. Recall of pairs at or above the threshold: that of 1,000 captions, compared with all.

Every measurement is a process of its own. Sizes by default 100000 1000000 10000000 (captions: 1000000); the peers are measured at
`--beside` (default 1000000), other sizes are ours only. The last line is JSON: seconds of both there (median), their ratio, the least
recall of any size, and by size our seconds a million and the most memory of a process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.dedupe import exchanges as ex
from curate.dedupe.grouping import group
from curate.dedupe.hamming import Hashes, collisions
from curate.dedupe.near import near_hashes
from curate.dedupe.settings import DedupeSettings
from curate.dedupe.shingles import normalised
from curate.dedupe.tables import digests
from curate.engines.base import EngineSettings
from curate.run import crew
from curate.shuffle import Round, Shuffle
from curate.stage import Crew, PartTask
from curate.store import Pool
from tests.dedupe.arrays import inline

RADIUS, WORKERS = 4, 2
COMPLETE = ((3, 21, 1), (2, 32, 2), (4, 16, 1), (5, 12, 0))  # hashes, bits each, flips: by pigeonhole all within 4 bits are found
HASH_SAMPLE, CAPTION_SAMPLE, QUERIES = 300, 1000, 20_000

Found = dict[str, float]


@contextmanager
def timed(found: Found, name: str = "seconds") -> Iterator[None]:
    """Seconds of the block, added."""
    begun = time.monotonic()
    yield
    found[name] = found.get(name, 0.0) + time.monotonic() - begun


def _memory() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- hashes


def some_hashes(count: int, equal: float) -> Hashes:
    """Random, one in ten near another, a share of copies; shuffled."""
    random, copies = np.random.default_rng(0), int(count * equal)
    own = random.integers(0, 1 << 64, count - copies - count // 10, np.uint64)
    near = random.choice(own, count // 10)
    for _ in range(RADIUS):
        near ^= np.uint64(1) << random.integers(0, 64, len(near), np.uint64)
    same = np.concatenate([np.full(copies // 2, own[0]), random.choice(own, copies - copies // 2)])
    return random.permutation(np.concatenate([own, near, same]))


def hashes_ours(count: int, equal: float) -> Found:
    """The product's rounds, after equal hashes were collapsed."""
    given, found = some_hashes(count, equal), Found()
    with tempfile.TemporaryDirectory() as folder:
        shuffle = _Watched(Pool.create(f"{folder}/pool"), "bench", "bench", count, crew(EngineSettings(workers=WORKERS)))
        with timed(found):
            known = np.unique(given)
            nodes = {"hash": known, "grid": pa.repeat(pa.scalar(b""), len(known)), "place": np.arange(len(known))}
            shuffle.put("nodes", ex.NODES, pa.table(nodes, ex.NODES.schema))
            sample = {f"collisions {agreeing}": pairs / shuffle.buckets for agreeing, pairs in collisions(known, RADIUS).items()}
            near_hashes(shuffle, RADIUS, {"hashes": len(known), **sample})
        pairs = shuffle.read("near")
    sides = [np.asarray(pairs.column(name).to_numpy()) for name in ("hash", "near")]
    asked = _asked(known)
    told = {(int(one), int(other)) for one, other in zip(*_with(asked, *sides), strict=True)}
    truth = {(int(one), int(other)) for one in asked for other in known[_near(known, one)]}
    assert told <= truth
    return found | {
        "recall": len(told) / len(truth),
        "pairs": len(pairs),
        "driver MiB": _memory(),
        "worker MiB": max(shuffle.peaks) / 2**20,
    }


def _asked(known: Hashes) -> Hashes:
    return np.random.default_rng(1).choice(known, HASH_SAMPLE, replace=False)


def _near(known: Hashes, one: np.uint64) -> NDArray[np.intp]:
    return np.flatnonzero((np.bitwise_count(known ^ one) <= RADIUS) & (known != one))


def _with(asked: Hashes, one: Hashes, other: Hashes) -> tuple[Hashes, Hashes]:
    """The pairs that an asked hash is in, from its side."""
    mine, theirs = np.isin(one, asked), np.isin(other, asked)
    return np.concatenate([one[mine], other[theirs]]), np.concatenate([other[mine], one[theirs]])


class _Watched(Shuffle):
    """Remembers the most memory that a task held."""

    peaks: tuple[float, ...] = (0.0,)

    def run(self, round: Round, tasks: Any = None, whole: bool = False) -> Any:
        found = super().run(round, tasks, whole)
        self.peaks = (*self.peaks, found.most.get("peak_bytes", 0.0))
        return found


def hashes_peer(count: int, equal: float) -> Found:
    """faiss, in the quickest complete setting; a sample of hashes asks, and the time is that of all."""
    import faiss

    faiss.omp_set_num_threads(WORKERS)
    known, found = np.unique(some_hashes(count, equal)), Found()
    points, asked = _bytes(known), _bytes(np.random.default_rng(2).choice(known, min(QUERIES, len(known)), replace=False))

    def index(setting: tuple[int, int, int]) -> Any:
        made = faiss.IndexBinaryMultiHash(64, *setting[:2])
        made.nflip = setting[2]
        made.add(points)
        return made

    def seconds(setting: tuple[int, int, int]) -> float:
        made, spent = index(setting), Found()
        with timed(spent):
            made.range_search(asked[:1000], RADIUS + 1)
        return spent["seconds"]

    best = min(COMPLETE, key=seconds)
    with timed(found):
        made = index(best)
    with timed(found, "asking"):
        made.range_search(asked, RADIUS + 1)
    sample = _asked(known)
    told = len(made.range_search(_bytes(sample), RADIUS + 1)[2]) - len(sample)
    truth = sum(len(_near(known, one)) for one in sample)
    whole = found["seconds"] + found["asking"] * len(known) / len(asked)
    return {"seconds": whole, "recall": told / truth, "hashes": best[0], "MiB": _memory()}


def hashes_brute(count: int, equal: float) -> Found:
    """All with all, each pair once, from a sample."""
    import faiss

    faiss.omp_set_num_threads(WORKERS)
    known, found = np.unique(some_hashes(count, equal)), Found()
    made, asked = faiss.IndexBinaryFlat(64), _bytes(known[:: len(known) // 200])
    made.add(_bytes(known))
    with timed(found):
        made.range_search(asked, RADIUS + 1)
    return {"seconds": found["seconds"] * len(known) / len(asked) / 2}


def _bytes(known: Hashes) -> NDArray[np.uint8]:
    return np.ascontiguousarray(known).view(np.uint8).reshape(-1, 8)


# -- captions


def some_captions(count: int) -> list[str]:
    """Words drawn as often as in a language (Zipf, Mandelbrot: 1 / (rank + 2.7)); some captions near another, some copies."""
    random = np.random.default_rng(0)
    letters = np.array([*"etaoinshrdlucmfwypvbgkjqxz"])
    words = ["".join(random.choice(letters, size)) for size in random.integers(2, 10, 50_000)]
    often = np.cumsum(1 / (np.arange(len(words)) + 3.7))
    drawn = np.searchsorted(often, random.random(count * 16) * often[-1])
    sizes, made = random.integers(6, 17, count), list[list[str]]()
    for at in range(count):
        kind = at % 20
        if made and kind < 5:
            caption = list(made[random.integers(len(made))])
            for place in random.integers(0, len(caption), random.integers(1, 3)) if kind else ():
                caption[place] = words[random.integers(len(words))]
            made.append(caption)
        else:
            made.append([words[one] for one in drawn[at * 16 : at * 16 + sizes[at]]])
    return [" ".join(caption).capitalize() for caption in made]


def captions_ours(count: int, equal: float) -> Found:
    """Texts to groups and evidence: normal form, digests, and all rounds, in this process."""
    given, found = pa.array(some_captions(count)), Found()
    with tempfile.TemporaryDirectory() as folder:
        shuffle = _Watched(Pool.create(f"{folder}/pool"), "bench", "bench", count, Crew(inline, EngineSettings().bucket_rows))
        with timed(found):
            shuffle.run(_Given(given), [PartTask(str(shuffle.pool.path), 0, {}, "")])
            counted = group(shuffle, (0,) * shuffle.buckets, DedupeSettings(by="captions"))
        pairs, rows = shuffle.read("pairs"), shuffle.read("rows").sort_by("place")
    texts = normalised(given).to_pylist()
    sides = [[texts[at] for at in ex.integers(pairs, name)] for name in ("first", "second")]
    told = {frozenset(pair) for pair in zip(*sides, strict=True)}
    of_text = dict(zip(texts, ex.integers(rows, "id_low").tolist(), strict=True))
    truth = true_pairs(texts)
    together = sum(len({of_text[text] for text in pair}) == 1 for pair in truth)
    return found | {
        "recall": sum(pair in told for pair in truth) / len(truth), "recall of groups": together / len(truth), "truth": len(truth),
        "near pairs": counted["near pairs"], "MiB": _memory(),
    }  # fmt: skip


class _Given:
    """Captions from memory, as `curate.dedupe.tables.ReadCaptions` gives those of a chunk of parts."""

    name, reads = "captions", ()
    emits = {"captions": ex.CAPTIONS}

    def __init__(self, captions: pa.Array) -> None:
        self.captions = captions

    def run(self, task: PartTask, given: object, out: Any) -> None:
        for low in range(0, len(self.captions), 10_000):
            text = normalised(self.captions[low : low + 10_000])
            place = low + np.arange(len(text))
            named = dict(zip(ex.SHA, digests(text, place).T, strict=True)) | {"id_high": place * 0, "id_low": place, "place": place}
            out.emit("captions", {**named, "shown": np.ones(len(text), np.bool_), "text": text})


def captions_peer(count: int, equal: float) -> Found:
    """datasketch: what a caption's signature meets among those before it."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

    settings, found = DedupeSettings().captions, Found()
    texts, told = normalised(pa.array(some_captions(count))).to_pylist(), set[frozenset[str]]()
    wanted = {text for pair in true_pairs(texts) for text in pair}
    with timed(found):
        index = MinHashLSH(threshold=settings.jaccard, num_perm=settings.permutations)
        for low in range(0, count, 10_000):
            some = texts[low : low + 10_000]
            shingled = [[text[at : at + 5].encode() for at in range(max(1, len(text) - 4))] for text in some]
            signed = MinHash.bulk(shingled, num_perm=settings.permutations, hashfunc=_quick)
            for number, one in enumerate(signed, low):
                met = index.query(one)
                index.insert(number, one, check_duplication=False)
                if texts[number] in wanted:
                    told |= {frozenset((texts[number], texts[other])) for other in met}
    truth = true_pairs(texts)
    return found | {"recall": sum(pair in told for pair in truth) / len(truth), "MiB": _memory()}


def _quick(shingle: bytes) -> int:
    """32 bits; quicker than datasketch's own SHA-1."""
    return hash(shingle) & 0xFFFFFFFF


def true_pairs(texts: list[str]) -> set[frozenset[str]]:
    """Pairs of different texts at or above the threshold, one of them sampled: by Python's sets, all compared."""
    threshold, distinct = DedupeSettings().captions.jaccard, list(dict.fromkeys(texts))
    sample = [distinct[at] for at in np.random.default_rng(1).choice(len(distinct), CAPTION_SAMPLE, replace=False)]
    known = [_shingles(text) for text in sample]
    holders: dict[str, list[int]] = {}
    for number, own in enumerate(known):
        for shingle in own:
            holders.setdefault(shingle, []).append(number)
    pairs = set()
    for text in distinct:
        own = _shingles(text)
        shared = Counter(number for shingle in own & holders.keys() for number in holders[shingle])
        pairs |= {
            frozenset((text, sample[number]))
            for number, common in shared.items()
            if common >= threshold * (len(own) + len(known[number]) - common) and sample[number] != text
        }
    return pairs


def _shingles(text: str) -> set[str]:
    return {text[at : at + 5] for at in range(max(1, len(text) - 4))}


# -- rounds

SIDES: dict[str, dict[str, Callable[[int, float], Found]]] = {
    "hashes": {"ours": hashes_ours, "peer": hashes_peer, "brute": hashes_brute},
    "captions": {"ours": captions_ours, "peer": captions_peer},
}


def measured(what: str, side: str, size: int, equal: float) -> Found:
    """One measurement, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.dedupe", what, str(size), "--side", side, "--equal", str(equal)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1]
    print(f"{what} {size:,} {side}: {said}", flush=True)
    found: Found = json.loads(said)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("what", choices=sorted(SIDES))
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--beside", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--equal", type=float, default=0.05)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    said = parser.parse_args()
    sizes = sorted(said.sizes) or ([10**5, 10**6, 10**7] if said.what == "hashes" else [10**6])
    if said.side:
        print(json.dumps({name: round(float(value), 4) for name, value in SIDES[said.what][said.side](sizes[0], said.equal).items()}))
        return
    beside = min(said.beside, sizes[-1])
    rounds = {
        size: [
            {side: measured(said.what, side, size, said.equal) for side in SIDES[said.what] if size == beside or side == "ours"}
            for _ in range(said.rounds)
        ]
        for size in sorted({*sizes, beside})
    }
    print(json.dumps(_summed_up(said.what, rounds, beside)))


def _summed_up(what: str, rounds: dict[int, list[dict[str, Found]]], beside: int) -> dict[str, Any]:
    """The last line."""
    ours, *others = ({side: statistics.median(one[side]["seconds"] for one in rounds[beside]) for side in SIDES[what]}).items()
    peer, own = others[0][1], {size: [one["ours"] for one in some] for size, some in rounds.items()}
    told = {side: min(one[side]["recall"] for one in rounds[beside]) for side in ("ours", "peer")}
    least = min(one["peer"]["seconds"] / one["ours"]["seconds"] for one in rounds[beside])
    return {
        "name": f"dedupe {what}", "ratio": round(peer / ours[1], 2), "ours": ours[1], "peer": peer, "unit": "s",
        "rounds": len(rounds[beside]), "size": beside, "least ratio": round(least, 2),
        "recall": told, "least recall of any size": min(one["recall"] for some in own.values() for one in some),
        **{f"{side} ratio": round(seconds / ours[1], 1) for side, seconds in others[1:]},
        "seconds a million": {str(size): statistics.median(one["seconds"] for one in some) / size * 1e6 for size, some in own.items()},
        "MiB": {str(size): max(value for one in some for name, value in one.items() if "MiB" in name) for size, some in own.items()},
    }  # fmt: skip


if __name__ == "__main__":
    main()
