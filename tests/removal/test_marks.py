"""Marks find a blob wherever it lies, and nothing else; what is kept of it tells nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from curate.removal.marks import SLICE_BYTES, Blob, Search, marks_of


def picture(seed: int, kind: str = "JPEG", side: int = 128) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, kind, quality=85)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_is_found_at_any_offset_and_not_in_another_picture(kind: str) -> None:
    mine, others = picture(1, kind), [picture(seed, kind) for seed in range(2, 30)]
    search = Search([Blob("mine", tuple(marks_of(mine)))])
    assert len(marks_of(mine)) == 3
    for offset in range(16):
        assert [blob.name for blob in search.found([bytes(offset) + b"".join(others) + mine])] == ["mine"]
    assert search.found(others) == []


def test_a_half_is_found_and_a_third_is_not() -> None:
    mine = picture(3, side=256)
    search = Search([Blob("mine", tuple(marks_of(mine)))])
    assert search.found([mine[len(mine) // 3 :]]) and not search.found([mine[: len(mine) // 3]])
    assert not search.found([mine[len(mine) // 3 :]], least=3)


def test_a_slice_over_the_edge_of_two_pieces_is_found_when_they_overlap() -> None:
    mine = picture(4)
    search = Search([Blob("mine", tuple(marks_of(mine)))])
    for cut in range(SLICE_BYTES, len(mine), 97):
        assert search.found([mine[:cut], mine[cut - SLICE_BYTES :]])


def test_marks_hold_no_byte_of_the_blob() -> None:
    mine = picture(5)
    for mark in marks_of(mine):
        assert bytes.fromhex(mark[6:]) not in mine and bytes.fromhex(mark[:6]) + bytes.fromhex(mark[6:14]) not in mine


def test_what_is_too_small_or_too_plain_has_no_marks() -> None:
    assert marks_of(b"short") == [] and marks_of(bytes(10_000)) == []
