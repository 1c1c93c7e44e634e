"""Photo-like files for benchmarks: made here, equal on every machine, kept in the temporary folder between runs."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

VERSION = 2
ASPECTS = (2 / 3, 3 / 4, 1.0, 4 / 3, 9 / 16)


def folder(count: int = 200) -> Path:
    """`count` files: of each 40, 38 are JPEG (quality 85), one PNG, one WebP; longer side 640 to 1,600 pixels (PNG half of it)."""
    place = Path(tempfile.gettempdir()) / f"curate-bench-photos-{VERSION}-{count}"
    if len(list(place.glob("*.*"))) < count:
        place.mkdir(exist_ok=True)
        for number in range(count):
            suffix, data = encoded(number)
            (place / f"{number:04d}.{suffix}").write_bytes(data)
    return place


def encoded(number: int) -> tuple[str, bytes]:
    """File number `number`: its suffix and bytes."""
    picture, stream = Image.fromarray(photo(number)), io.BytesIO()
    kind = number % 40
    if kind == 38:
        picture.resize((picture.width // 2, picture.height // 2)).save(stream, "PNG")
        return "png", stream.getvalue()
    if kind == 39:
        picture.save(stream, "WEBP", quality=80)
        return "webp", stream.getvalue()
    picture.save(stream, "JPEG", quality=85)
    return "jpg", stream.getvalue()


def photo(seed: int) -> npt.NDArray[np.uint8]:
    """Pixels with the spectrum of photographs (amplitude falls as a power of frequency) and hard edges; (height, width, 3)."""
    random = np.random.default_rng(seed)
    longer, aspect = int(random.integers(640, 1601)), float(random.choice(ASPECTS))
    width, height = (longer, int(longer * aspect)) if aspect <= 1 else (int(longer / aspect), longer)
    power = random.uniform(1.35, 1.75)
    grey = _noise(random, height, width, power)
    layers = np.stack([grey + 0.4 * _noise(random, height, width, power + 0.3) for _ in range(3)], -1) * 45 + 128
    for _ in range(30):
        left, top = random.integers(0, width), random.integers(0, height)
        wide, tall = random.integers(10, width // 3), random.integers(10, height // 3)
        layers[top : top + tall, left : left + wide] += random.normal(0, 35, 3)
    return np.clip(layers, 0, 255).astype(np.uint8)


def _noise(random: np.random.Generator, height: int, width: int, power: float) -> npt.NDArray[np.float64]:
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency**power
    values = np.fft.irfft2(spectrum, (height, width))
    return np.asarray(values / values.std())
