"""PDQ as others compute it, and what it is good for: copies match, strangers do not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from curate.demo.render import Scene, Thing, render
from curate.media.image import decode_rgb
from curate.media.pdq import MATCH_BITS, distance_bits, pdq

# Computed once by the reference implementation (pdqhash 0.2.8, which wraps Facebook's C++), bit for bit.
REFERENCE = [
    (1, (640, 427), "noisy", "9f63ca9be5ff1e171275463ffb12f99060ed4cc0ec8491e8991194a46e1568f1", 100),
    (2, (301, 511), "woven", "2b6c6c90e7779b64129164e4cd019b3262ff6c9b9b8ada497ccb3b43cb1caa44", 100),
    (3, (64, 64), "plain", "9e27399cc7ec7c1939c70e76f058c387363730e9cc88773883ac0c7678d1e1b2", 100),
    (4, (1000, 90), "ringed", "32609233570b140df5f99323eddcedceb36b9d98224640eab1f4bb046cd66e13", 90),
    (5, (257, 255), "gradient", "e66c7c7ec996873332e060cc6f1e1b3381e586c71c7f588a6586671938d998e3", 95),
]


def scene(seed: int, size: tuple[int, int] = (400, 300), background: str = "noisy") -> np.ndarray:
    return render(Scene(seed, *size, background, (Thing("red", "star", "big"),)))


@pytest.mark.parametrize(("seed", "size", "background", "wanted", "quality"), REFERENCE)
def test_agrees_with_the_reference(seed: int, size: tuple[int, int], background: str, wanted: str, quality: int) -> None:
    found = pdq(scene(seed, size, background))
    assert distance_bits(found.hash, bytes.fromhex(wanted)) <= 2  # other vector units round the median's neighbours otherwise
    assert abs(found.quality - quality) <= 1


def test_copies_match_after_resizing_and_strong_compression() -> None:
    distances = []
    for seed in range(100):
        original = scene(seed)
        stream = io.BytesIO()
        Image.fromarray(original).resize((200, 150), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=50)
        distances.append(distance_bits(pdq(original).hash, pdq(decode_rgb(stream.getvalue())).hash))
    assert np.mean(np.array(distances) <= MATCH_BITS) >= 0.99


def test_strangers_do_not_match() -> None:
    bits = np.array([np.unpackbits(np.frombuffer(pdq(scene(seed, (120, 90))).hash, np.uint8)) for seed in range(450)])
    distances = (bits[:, None, :] != bits[None, :, :]).sum(axis=2)[np.triu_indices(len(bits), 1)]  # 101,025 pairs
    assert (distances <= MATCH_BITS).sum() <= 1


def test_blank_and_tiny_pictures_are_of_no_use() -> None:
    assert not pdq(np.full((200, 300, 3), 77, np.uint8)).usable
    assert pdq(np.zeros((4, 900, 3), np.uint8)).quality == 0
    assert pdq(scene(1)).usable


def test_large_pictures_are_averaged_down_first() -> None:
    picture = scene(9, (700, 500))
    larger = np.asarray(Image.fromarray(picture).resize((2800, 2000), Image.Resampling.BICUBIC))
    assert distance_bits(pdq(picture).hash, pdq(larger).hash) <= 10
