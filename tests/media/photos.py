"""Pictures with the statistics of photographs, and pages of text, made anywhere from a number.

Natural images have power spectra near 1/f² and sharp occlusion edges (Ruderman, "Origins of scaling in natural images",
1997; the dead-leaves model of Lee, Mumford and Huang, 2001); cameras add some noise.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]


def photo_like(seed: int, width: int, height: int) -> Pixels:
    """Textured leaves of all sizes over each other, shaded, slightly out of focus, with sensor noise; red first."""
    random = np.random.default_rng(seed)
    canvas = 118 + 55 * _pink(random, width, height)[:, :, None] + 20 * random.normal(size=3)
    for radius in sorted(_radii(random, min(width, height)), reverse=True):
        _leaf(random, canvas, radius)
    shade = 1 + 0.25 * _pink(random, width, height, 3.0)
    blurred = cv2.GaussianBlur(np.asarray(canvas * shade[:, :, None], np.float32), (0, 0), float(random.uniform(0.6, 1.1)))
    noisy = blurred + 2 * random.standard_normal(blurred.shape, np.float32)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def _pink(random: np.random.Generator, width: int, height: int, slope: float = 2.0) -> NDArray[np.float64]:
    """A field of mean 0 and deviation 1 whose power falls with the frequency to the `slope`."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(random.normal(size=(height, width))) * frequency ** (-slope / 2), (height, width))
    return np.asarray(field / field.std())


def _radii(random: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Leaf sizes with density 1/r³ between 3 pixels and a third of the side, 160 in all."""
    low, high = (side / 40) ** -2.0, (side / 3) ** -2.0
    return np.asarray((high + random.uniform(size=160) * (low - high)) ** -0.5)


def _leaf(random: np.random.Generator, canvas: NDArray[np.float64], radius: float) -> None:
    height, width = canvas.shape[:2]
    centre, reach = (int(random.uniform(0, width)), int(random.uniform(0, height))), int(radius) + 2
    left, top = max(0, centre[0] - reach), max(0, centre[1] - reach)
    around = canvas[top : centre[1] + reach, left : centre[0] + reach]
    mask = np.zeros(around.shape[:2], np.uint8)
    axes = (max(2, int(radius)), max(2, int(radius * random.uniform(0.3, 1))))
    cv2.ellipse(mask, (centre[0] - left, centre[1] - top), axes, float(random.uniform(0, 180)), 0, 360, 1, -1, cv2.LINE_8)
    inside = mask.astype(bool)
    grain = random.normal(size=int(inside.sum())) * random.uniform(0, 6)
    around[inside] = random.uniform(25, 230) + random.normal(0, 28, 3) + 0.35 * (around[inside] - 118) + grain[:, None]


def text_page(seed: int, width: int, height: int) -> Pixels:
    """Black words on paper, in several sizes: all edges, the hardest case for scaled decoding."""
    random = np.random.default_rng(seed)
    page = Image.new("RGB", (width, height), (248, 246, 240))
    draw, top = ImageDraw.Draw(page), 12
    while top < height:
        size = int(random.choice([11, 14, 20, 34]))
        words = " ".join("".join(random.choice(list("abcdefghijklmnopqrstuvwxyz"), random.integers(2, 10))) for _ in range(40))
        draw.text((14, top), words, (20, 20, 24), font=ImageFont.load_default(size))
        top += int(size * 1.4)
    return np.asarray(page)


def jpeg(pixels: Pixels, quality: int = 85, **options: object) -> bytes:
    """4:2:0 unless said otherwise."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()
