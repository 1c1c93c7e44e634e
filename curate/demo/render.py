"""Draws a scene: shapes over a procedural background, the same bytes for the same scene.

Only integer arithmetic touches pixels (numpy integers, OpenCV's fixed-point polygon filling and exact linear resize,
Pillow's fixed-point resampling, libjpeg's integer transform), so that machines with other vector units agree.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 28, 28),
    "orange": (225, 122, 16),
    "yellow": (222, 208, 28),
    "green": (30, 142, 46),
    "cyan": (30, 196, 204),
    "blue": (30, 56, 200),
    "purple": (112, 30, 148),
    "pink": (224, 122, 176),
}
"""Red, green, blue; none above 225, so that a picture brightened by 10 % does not clip."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart")
SIZES = ("small", "big")
BACKGROUNDS = ("plain", "striped", "checkered", "dotted", "noisy", "gradient", "woven", "ringed")

_SHIFT = 4  # fractional bits of polygon corners
_CELLS = 9  # cells of the low-frequency field along a side: fills the 8 x 8 frequencies a perceptual hash looks at


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    colour: str
    shape: str
    size: str


@dataclass(frozen=True)
class Scene:
    """All that decides the pixels of a picture.

    `relation` is where the first thing stands as seen from the second (left, right, above, below); `third` where the
    third stands as seen from the other two. `seed` decides texture and exact places, never colours.
    """

    seed: int
    width: int
    height: int
    background: str
    things: tuple[Thing, ...]
    relation: str | None = None
    third: str | None = None


def render(scene: Scene) -> Pixels:
    """The picture as height x width x 3 bytes, red first."""
    random = np.random.default_rng([scene.seed, 1])
    canvas = _background(random, scene)
    places = np.random.default_rng([scene.seed, 2])
    for thing, centre in zip(scene.things, _centres(places, scene), strict=True):
        _draw(canvas, thing, centre, _radius(places, scene, thing), float(places.uniform(-0.17, 0.17)))
    return _grain(random, canvas)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """JPEG bytes with 4:2:0 chroma."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def resized(pixels: Pixels, percent: int) -> Pixels:
    """The picture scaled to `percent` of its sides."""
    height, width = pixels.shape[:2]
    size = (max(1, width * percent // 100), max(1, height * percent // 100))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def brightened(pixels: Pixels, percent: int) -> Pixels:
    """Each channel times `percent` / 100, clipped at 255."""
    table = np.minimum(np.arange(256, dtype=np.int32) * percent // 100, 255).astype(np.uint8)
    return table[pixels]


def _background(random: np.random.Generator, scene: Scene) -> Pixels:
    """Two muted tints mixed by a smooth random field, with a regular texture on top."""
    size = (scene.width, scene.height)
    cells = random.integers(0, 256, (_CELLS, _CELLS), dtype=np.uint8)
    field = cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int16)
    texture = _TEXTURES[scene.background](random, *_grid(scene))
    mix = np.clip((field * 3 + texture) >> 2, 0, 255)
    dark, light = _tint(random, 40, 84), _tint(random, 150, 200)
    steps = np.arange(256, dtype=np.int32)[:, None]
    table = ((dark * (255 - steps) + light * steps) // 255).astype(np.uint8)
    return np.ascontiguousarray(table[mix])


def _tint(random: np.random.Generator, low: int, high: int) -> NDArray[np.int32]:
    """A colour near grey: objects are told from backgrounds by their saturation."""
    return (random.integers(low, high) + random.integers(-12, 13, 3)).astype(np.int32)


def _grid(scene: Scene) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Column and row numbers, in 1/256 of the shorter side, shaped to broadcast."""
    side = min(scene.width, scene.height)
    x = np.arange(scene.width, dtype=np.int32)[None, :] * 256 // side
    y = np.arange(scene.height, dtype=np.int32)[:, None] * 256 // side
    return x, y


def _wave(phase: NDArray[np.int32]) -> NDArray[np.int16]:
    """Triangle wave of period 256 and range 0 to 254."""
    wave: NDArray[np.int16] = (np.abs((phase & 255) - 128) * 2 - 1).clip(0).astype(np.int16)
    return wave


def _plain(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    return np.full((y.size, x.size), random.integers(64, 192), np.int16)


def _striped(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    across, down = random.integers(-12, 13, 2)
    return _wave(x * (across or 5) + y * down)


def _checkered(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    cell = int(random.integers(10, 34))
    return ((((x // cell) + (y // cell)) & 1) * 255).astype(np.int16)


def _dotted(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    cell = int(random.integers(14, 36))
    inside = (x % cell - cell // 2) ** 2 + (y % cell - cell // 2) ** 2 < (cell * 3 // 10) ** 2
    return (inside * 255).astype(np.int16)


def _noisy(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    cells = random.integers(0, 256, (48, 48), dtype=np.uint8)
    return cv2.resize(cells, (x.size, y.size), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int16)


def _gradient(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    across, down = random.integers(-2, 3, 2)
    slope: NDArray[np.int16] = ((x * (across or 1) + y * down + 512) // 4).clip(0, 255).astype(np.int16)
    return slope


def _woven(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    step = int(random.integers(8, 22))
    return np.maximum(_wave(x * step), _wave(y * step))


def _ringed(random: np.random.Generator, x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int16]:
    left, top = random.integers(0, 256, 2)
    return _wave(((x - left) ** 2 + (y - top) ** 2) // int(random.integers(12, 40)))


_TEXTURES = {
    "plain": _plain,
    "striped": _striped,
    "checkered": _checkered,
    "dotted": _dotted,
    "noisy": _noisy,
    "gradient": _gradient,
    "woven": _woven,
    "ringed": _ringed,
}


def _grain(random: np.random.Generator, canvas: Pixels) -> Pixels:
    """Sensor-like noise of -8 to +7 grey values: without it the pictures compress like drawings, not like photos."""
    noise = np.frombuffer(random.bytes(canvas.shape[0] * canvas.shape[1]), np.uint8).reshape(canvas.shape[:2])
    centred = (noise & 15).astype(np.int16) - 8
    grained: Pixels = np.clip(canvas + centred[:, :, None], 0, 255).astype(np.uint8)
    return grained


def _centres(random: np.random.Generator, scene: Scene) -> list[tuple[float, float]]:
    """Centres of the things as fractions of width and height, so placed that the relations are plain to see."""
    if len(scene.things) == 1:
        return [(float(random.uniform(0.32, 0.68)), float(random.uniform(0.32, 0.68)))]
    across = 0.5 if len(scene.things) == 2 else 0.3
    jitter = random.uniform(-0.03, 0.03, 6)
    centres = [(0.26 + jitter[0], across + jitter[1]), (0.74 + jitter[2], across + jitter[3]), (0.5 + jitter[4], 0.75 + jitter[5])]
    turned = scene.relation in ("above", "below")
    return [_turned(x, y, turned, scene) for x, y in centres[: len(scene.things)]]


def _turned(x: float, y: float, turned: bool, scene: Scene) -> tuple[float, float]:
    """A place of the layout "first left of second, third below", turned into the scene's relations."""
    if scene.relation in ("right", "below"):
        x = 1 - x
    if scene.third in ("above", "left"):
        y = 1 - y
    return (float(y), float(x)) if turned else (float(x), float(y))


def _radius(random: np.random.Generator, scene: Scene, thing: Thing) -> float:
    """Pixels from centre to rim; a big thing has twice the radius of a small one."""
    unit = 0.205 if len(scene.things) < 3 else 0.185
    factor = 1.0 if thing.size == "big" else 0.5
    return min(scene.width, scene.height) * unit * factor * float(random.uniform(0.94, 1.06))


def _draw(canvas: Pixels, thing: Thing, centre: tuple[float, float], radius: float, angle: float) -> None:
    height, width = canvas.shape[:2]
    middle = (centre[0] * width, centre[1] * height)
    colour = COLOURS[thing.colour]
    edge = tuple(channel * 2 // 5 for channel in colour)
    outlines = [_corners(outline, middle, radius, angle) for outline in _OUTLINES[thing.shape]]
    cv2.fillPoly(canvas, outlines, colour, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, outlines, True, edge, max(1, int(radius) // 24), cv2.LINE_AA, _SHIFT)


def _corners(outline: list[tuple[float, float]], middle: tuple[float, float], radius: float, angle: float) -> NDArray[np.int32]:
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = [(x * cosine - y * sine, x * sine + y * cosine) for x, y in outline]
    scale = 1 << _SHIFT
    return np.array([[round((middle[0] + radius * x) * scale), round((middle[1] + radius * y) * scale)] for x, y in turned], np.int32)


def _regular(corners: int, radius: float = 1.0, first: float = -math.pi / 2) -> list[tuple[float, float]]:
    angles = [first + 2 * math.pi * k / corners for k in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> list[tuple[float, float]]:
    outer, inner = _regular(5, 1.12), _regular(5, 0.45, -math.pi / 2 + math.pi / 5)
    return [corner for pair in zip(outer, inner, strict=True) for corner in pair]


def _heart() -> list[tuple[float, float]]:
    """The usual sine curve, scaled into the unit circle."""
    angles = [2 * math.pi * k / 48 for k in range(48)]
    down = [-(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 for t in angles]
    return [(math.sin(t) ** 3, y) for t, y in zip(angles, down, strict=True)]


_ARM = 0.34
_CROSS = [
    (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
    (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
]  # fmt: skip

_OUTLINES: dict[str, list[list[tuple[float, float]]]] = {
    "circle": [_regular(64)],
    "square": [[(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]],
    "triangle": [[(0.0, -1.05), (1.05, 0.85), (-1.05, 0.85)]],
    "star": [_star()],
    "cross": [_CROSS],
    "ring": [_regular(64), _regular(64, 0.55)],
    "diamond": [[(0.0, -1.12), (0.72, 0.0), (0.0, 1.12), (-0.72, 0.0)]],
    "heart": [_heart()],
}
"""Unit outlines, y downwards; a second outline inside the first is a hole."""
