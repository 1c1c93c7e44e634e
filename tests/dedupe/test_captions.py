"""Near captions against comparing all with all: shingles, MinHash, who meets, and the groups that come of it."""

from __future__ import annotations

import itertools
import string
import tempfile

import numpy as np
import pyarrow as pa
import pytest

from curate.dedupe import exchanges as ex
from curate.dedupe.captions import CROWD, NEIGHBOURS, met_pairs
from curate.dedupe.grouping import group
from curate.dedupe.minhash import SKETCH_BITS, Banding, band_keys, banding, minima, most_differing_bits, sketches
from curate.dedupe.settings import CaptionMatching, DedupeSettings
from curate.dedupe.shingles import jaccard, normalised, shingle_sets, shingles
from curate.shuffle import Shuffle
from curate.stage import Crew
from curate.store import Pool
from tests.dedupe.arrays import inline

SURE = CaptionMatching(recall=0.999_999, permutations=512)


def test_normal_form() -> None:
    said = ["  Two DOGS,\n—on a\tbeach!", "ﬁne Ａ１", "日本語、テスト", "مرحبا بالعالم", "a\x00b\u202ec", "🎉 !?", "", None]
    expected = ["two dogs on a beach", "fine a1", "日本語 テスト", "مرحبا بالعالم", "a b c", "", "", ""]
    assert normalised(pa.array(said, pa.string())).to_pylist() == expected


def by_python(text: str, characters: int) -> set[str]:
    return {text[at : at + characters] for at in range(max(1, len(text) - characters + 1))}


def any_texts(seed: int, count: int) -> list[str]:
    """Texts of one to sixty characters of a small alphabet with letters beyond the basic plane."""
    random = np.random.default_rng(seed)
    letters = np.array([*"abcde ", "本", "𠀀"])
    return ["".join(random.choice(letters, random.integers(1, 60))) for _ in range(count)]


@pytest.mark.parametrize("characters", [1, 3, 5, 64])
def test_jaccard_is_that_of_the_sets(characters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.dedupe.shingles._BLOCK_CHARACTERS", 500)
    texts = any_texts(1, 120)
    sets = shingle_sets(pa.array(texts), characters)
    known = [by_python(text, characters) for text in texts]
    assert sets.sizes().tolist() == [len(one) for one in known]
    left, right = (np.array(side) for side in zip(*itertools.product(range(120), range(120)), strict=True))
    expected = [len(known[one] & known[other]) / len(known[one] | known[other]) for one, other in zip(left, right, strict=True)]
    assert jaccard(sets, sets, left, right) == pytest.approx(expected)


def test_a_signature_tells_the_jaccard_index() -> None:
    texts = any_texts(2, 400)
    texts += [text[: len(text) // 2] + other for text, other in zip(texts, any_texts(3, 400), strict=True)]
    found = list(shingles(pa.array(texts), 3))
    signature = np.concatenate([minima(block, range(513), seed=7) for block in found], axis=1)
    keys = band_keys(signature, 1)[0]
    sets, left = shingle_sets(pa.array(texts), 3), np.arange(400)
    estimated, index = (keys[:, :400] == keys[:, 400:]).mean(axis=0), jaccard(sets, sets, left, left + 400)
    error = estimated - index
    assert abs(error.mean()) < 4 * np.sqrt((index * (1 - index)).mean() / 512 / 400)
    assert error.std() == pytest.approx(np.sqrt((index * (1 - index)).mean() / 512), rel=0.2)
    drawn = sketches(signature)
    differing = np.bitwise_count(drawn[:400] ^ drawn[400:]).sum(axis=1)
    assert (differing / SKETCH_BITS).mean() == pytest.approx(((1 - index) / 2).mean(), abs=0.01)


def test_another_seed_is_another_signature() -> None:
    (block,) = shingles(pa.array(["two dogs on a beach"]), 5)
    assert not (band_keys(minima(block, range(25), 0), 3)[0] == band_keys(minima(block, range(25), 1), 3)[0]).any()
    assert (minima(block, range(5, 9), 0) == minima(block, range(9), 0)[5:]).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_bands_follow_from_the_threshold(threshold: float) -> None:
    chosen = banding(threshold, 0.98, 128)
    assert chosen.bands * chosen.rows <= 128
    assert chosen.chance(threshold) >= 0.98
    assert chosen.rows == 128 or Banding(128 // (chosen.rows + 1), chosen.rows + 1).chance(threshold) < 0.983


@pytest.mark.parametrize("bits", [1, 20, 128, 500])
def test_a_sketch_lets_pairs_at_the_threshold_through(bits: int) -> None:
    most, used = most_differing_bits(0.7, bits), min(bits, SKETCH_BITS)
    drawn = np.random.default_rng(0).binomial(used, 0.15, 100_000)
    assert (drawn > most).mean() < 0.003
    assert most == used or (drawn > most - 1).mean() > 0.001


def test_who_meets() -> None:
    sizes = [1, 2, CROWD, 1, CROWD + 1, 400, 3]
    key = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    pairs = [(int(one), int(other)) for left, right in met_pairs(key) for one, other in zip(left, right, strict=True)]
    assert len(set(pairs)) == len(pairs)
    assert all(key[one] == key[other] and one < other for one, other in pairs)
    for number, size in enumerate(sizes):
        low = int(np.searchsorted(key, number))
        met = {(one - low, other - low) for one, other in pairs if key[one] == number}
        near = {(one, other) for one, other in itertools.combinations(range(size), 2) if other - one <= NEIGHBOURS or one == 0}
        assert met == (near if size > CROWD else set(itertools.combinations(range(size), 2)))
    assert list(met_pairs(key[:0])) == [] or all(len(left) == 0 for left, _ in met_pairs(key[:0]))


# -- the rounds


def variants(seed: int, count: int) -> list[str]:
    """Captions, most of them another one with a word changed, a word more, or other punctuation."""
    random = np.random.default_rng(seed)
    words = ["".join(random.choice([*string.ascii_lowercase], random.integers(2, 9))) for _ in range(300)]
    made = [list(random.choice(words, random.integers(4, 14))) for _ in range(count // 3)]
    texts = [" ".join(one) for one in made]
    while len(texts) < count:
        one = list(made[random.integers(len(made))])
        at = int(random.integers(len(one)))
        how = random.integers(3)
        changed = [*one[:at], str(random.choice(words)), *one[at + (how == 0) :]] if how else one
        texts.append(" ".join(changed).title() + "!" * int(random.integers(3)))
    return [texts[at] for at in random.permutation(count)]


def found(captions: list[str], matching: CaptionMatching, buckets: int = 1) -> tuple[list[int], dict[tuple[int, int], float]]:
    """The first member of each caption's group by sample_id, which ascends; and 1 − distance of the pairs that are evidence."""
    count, texts = len(captions), normalised(pa.array(captions))
    words = {text: number for number, text in enumerate(dict.fromkeys(texts.to_pylist()))}
    digest = np.array([words[text] for text in texts.to_pylist()], np.uint64)
    place = np.arange(count)
    with tempfile.TemporaryDirectory() as folder:
        shuffle = Shuffle(Pool.create(f"{folder}/pool"), "test", "test", count, Crew(inline, -(-count // buckets)))
        digests = {name: digest if name == "d" else digest * 0 for name in ex.SHA} | {"a": digest}
        ids = {"id_high": place * 0, "id_low": place}
        lines = {**digests, **ids, "place": place, "shown": place >= 0, "text": texts}
        shuffle.put("captions", ex.CAPTIONS, pa.table(lines, ex.CAPTIONS.schema))
        group(shuffle, (0,) * shuffle.buckets, DedupeSettings(by="captions", captions=matching))
        rows, pairs = shuffle.read("rows").sort_by("place"), shuffle.read("pairs")
    evidence = {(first, second): 1 - distance for _, first, second, distance, _ in zip(*pairs.to_pydict().values(), strict=True)}
    assert len(evidence) == len(pairs)
    return ex.integers(rows, "id_low").tolist(), evidence


def by_hand(captions: list[str], matching: CaptionMatching) -> tuple[list[int], dict[tuple[int, int], float]]:
    """The same, by comparing all with all; the pairs are all that match."""
    texts = normalised(pa.array(captions)).to_pylist()
    known = [by_python(text, matching.characters) for text in texts]
    index = np.array([[len(one & other) / len(one | other) for other in known] for one in known])
    reach = index >= matching.jaccard
    pairs = {(int(one), int(other)): float(index[one, other]) for one, other in zip(*np.nonzero(np.triu(reach, 1)), strict=True)}
    for _ in range(len(captions).bit_length()):
        reach = (reach.astype(np.int64) @ reach) > 0
    return reach.argmax(axis=1).tolist(), pairs


@pytest.mark.parametrize(("seed", "buckets", "threshold"), [(1, 1, 0.7), (2, 3, 0.7), (3, 1, 0.5), (4, 2, 0.9)])
def test_the_rounds_agree_with_comparing_all_with_all(seed: int, buckets: int, threshold: float) -> None:
    captions = variants(seed, 240)
    matching = SURE.model_copy(update={"jaccard": threshold})
    groups, evidence = found(captions, matching, buckets)
    expected, pairs = by_hand(captions, matching)
    assert groups == expected
    assert 20 < len(set(groups)) < 240
    texts = normalised(pa.array(captions)).to_pylist()
    for pair, index in evidence.items():
        assert index == pytest.approx(pairs[pair], abs=1e-6)
    near = [(one, other) for one, other in pairs if groups[one] != groups[other]]
    leaders = {texts.index(text) for text in texts}
    assert not near
    assert all(pair in evidence for pair in pairs if leaders.issuperset(pair))


def test_boilerplate_does_not_blow_up() -> None:
    same = ["Image may contain: people, outdoor"] * 3000
    template = [f"Stock photo of the number {number * 7919 % 100_003} in front of a plain white background" for number in range(1500)]
    groups, evidence = found([*same, *template], CaptionMatching())
    assert set(groups[:3000]) == {0}
    assert groups[3000:] == [3000] * 1500
    chosen = banding(0.7, 0.98, 128)
    assert 2999 + 1499 <= len(evidence) < 3000 + 1500 * chosen.bands * (NEIGHBOURS + 1)
