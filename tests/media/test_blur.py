"""Boxes of a list are gone from the picture, wherever it is turned or cut."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from curate.media.blur import BadBoxes, blur, parse_boxes, upright_boxes
from curate.media.image import ImageSettings, decode_rgb, prepare
from tests.media.test_header import exif
from tests.media.test_image import file_of

BOX = (0.25, 0.25, 0.5, 0.75)


def pattern(width: int = 400, height: int = 300) -> np.ndarray:
    """Fine black and white checks: whatever is blurred turns grey."""
    checks = (np.add.outer(np.arange(height) // 3, np.arange(width) // 3) % 2 * 255).astype(np.uint8)
    return np.repeat(checks[:, :, None], 3, axis=2)


def contrast(pixels: np.ndarray, box: tuple[float, float, float, float]) -> float:
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    return float(pixels[int(top * height) : int(bottom * height), int(left * width) : int(right * width)].std())


def test_nothing_is_left_inside_and_nothing_changes_outside() -> None:
    before = pattern()
    original = before.copy()
    after = blur(before, (BOX,))
    assert np.array_equal(before, original)
    assert contrast(after, BOX) < 20 < 100 < contrast(before, BOX)
    outside = np.ones(before.shape[:2], bool)
    outside[60:240, 85:215] = False  # the box and a tenth of its longer side
    assert np.array_equal(before[outside], after[outside])


def test_a_face_of_any_size_keeps_six_by_six_means() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    for side in (0.02, 0.2, 0.9):
        box = (0.05, 0.05, 0.05 + side, 0.05 + side)
        assert contrast(blur(noise, (box,)), box) < 0.6 * contrast(noise, box)


def test_boxes_over_the_rim_and_without_area_are_cut() -> None:
    after = blur(pattern(), ((-0.2, -0.1, 0.1, 1.4), (0.9, 0.9, 0.9, 0.9), (1.2, 1.2, 1.4, 1.4)))
    assert contrast(after, (0, 0, 0.1, 1)) < 20 and contrast(after, (0.5, 0.1, 0.8, 0.8)) > 100
    assert blur(pattern(1, 1), ((0, 0, 1, 1),)).shape == (1, 1, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_picture(orientation: int) -> None:
    marked = np.zeros((300, 400, 3), np.uint8)
    marked[75:225, 100:200] = 255
    tags = Image.Exif()
    tags[0x0112] = orientation
    image = Image.fromarray(marked)
    image.info["exif"] = tags.tobytes()
    shown = np.asarray(ImageOps.exif_transpose(image))
    (left, top, right, bottom) = upright_boxes((BOX,), orientation)[0]
    height, width = shown.shape[:2]
    inside = shown[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
    assert inside.min() == 255 and (shown == 255).sum() == inside.size


@pytest.mark.parametrize("text", ["", "  ", "[]", "[[0.1, 0.2, 0.3, 0.4]]", "[[0, 0, 1, 1], [-0.1, 0.5, 0.5, 1.2]]"])
def test_texts_that_are_boxes(text: str) -> None:
    assert all(len(box) == 4 for box in parse_boxes(text))


@pytest.mark.parametrize(
    "text",
    [
        "nonsense", "{}", "null", "3", "[1, 2, 3, 4]", "[[0.1, 0.2, 0.3]]", "[[0.1, 0.2, 0.3, null]]", '[["a", 0, 1, 1]]',
        "[[0.5, 0, 0.1, 1]]", "[[0, 0.5, 1, 0.1]]", "[[NaN, 0, 1, 1]]", "[[0, 0, Infinity, 1]]", "[[12, 30, 80, 90]]",
        "[[true, 0, 1, 1]]", "[[0, 0, 1, 1]", "[" * 5000, "[[0, 0, 1e400, 1]]",
    ],
)  # fmt: skip
def test_texts_that_are_none(text: str) -> None:
    with pytest.raises(BadBoxes):
        parse_boxes(text)


@pytest.mark.parametrize("mode", ["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"])
@pytest.mark.parametrize("reencode", ["never", "when_needed", "always"])
def test_a_picture_with_boxes_is_never_stored_as_it_came(mode: str, reencode: str) -> None:
    data = file_of(pattern(), quality=95)
    plain = prepare(data, ImageSettings(resize_mode=mode, size=290, reencode=reencode))  # type: ignore[arg-type]
    hidden = prepare(data, ImageSettings(resize_mode=mode, size=290, reencode=reencode), (BOX,))  # type: ignore[arg-type]
    centre = {"center_crop": (0.2, 0.3, 0.45, 0.7), "border": (0.28, 0.35, 0.48, 0.65)}.get(mode, (0.28, 0.28, 0.47, 0.72))
    assert contrast(decode_rgb(hidden.data), centre) < 25 < contrast(decode_rgb(plain.data), centre)
    assert hidden.data != data and hidden.format == "jpg"


def test_with_an_orientation_both_readings_are_blurred() -> None:
    data = file_of(pattern(), exif=b"Exif\0\0" + exif(6))
    shown = decode_rgb(prepare(data, ImageSettings(resize_mode="no"), (BOX,)).data)
    assert contrast(shown, BOX) < 25 and contrast(shown, upright_boxes((BOX,), 6)[0]) < 25
    assert contrast(shown, (0.85, 0.8, 1.0, 1.0)) > 60
