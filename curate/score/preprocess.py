"""The picture as a CLIP model wants to see it: resized, cropped and normalised as open_clip's own transform does, but cheaper.

Torch resamples bytes with Pillow's taps in a third of Pillow's time; values differ from open_clip's by rounding only, at most 2 of
255. Of a long picture, which would be resized to many times what the crop leaves, only that part is ever computed (Pillow resamples
a box of the source), so that one of 1 x 20000 pixels costs no more than any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.score.scorer import Pixels

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, red, green, blue, as fractions: what most networks but CLIP were trained with."""

_LONG = 4  # times the pixels that the crop leaves


@dataclass(frozen=True)
class Preprocess:
    """open_clip's preprocessing configuration: `size` is (height, width); mean and std are of values 0 to 1."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preprocess:
        """From the `preprocess_cfg` that open_clip attaches to a model."""
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
        return cls(
            (height, width), tuple(config["mean"]), tuple(config["std"]), config["interpolation"], config["resize_mode"],
            config.get("fill_color", 0) or 0,
        )  # fmt: skip

    def __call__(self, pixels: Pixels) -> Pixels:
        """Height x width x 3 bytes of the model's input size, not yet normalised; in memory one colour lies after the other."""
        scaled = self._scaled(pixels.shape[1], pixels.shape[0])
        long = scaled[0] * scaled[1] > _LONG * self.size[0] * self.size[1]
        resized = self._part(pixels, scaled) if long else self._whole(pixels, scaled)
        return self._padded(resized)

    def _whole(self, pixels: Pixels, scaled: tuple[int, int]) -> Pixels:
        """All of the picture resized, then its middle; torch's tensors are planes."""
        import torch

        planes = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
        mode = "bilinear" if self._filter() is Image.Resampling.BILINEAR else "bicubic"
        resized = torch.nn.functional.interpolate(planes, (scaled[1], scaled[0]), mode=mode, antialias=True)[0]
        left, top, wide, high = self._shown(scaled)
        return np.asarray(resized[:, top : top + high, left : left + wide].contiguous().numpy(), np.uint8).transpose(1, 2, 0)

    def _part(self, pixels: Pixels, scaled: tuple[int, int]) -> Pixels:
        """The middle of the picture, resized."""
        height, width = pixels.shape[:2]
        left, top, wide, high = self._shown(scaled)
        across, down = width / scaled[0], height / scaled[1]
        box = (left * across, top * down, min((left + wide) * across, width), min((top + high) * down, height))
        return np.asarray(Image.fromarray(pixels).resize((wide, high), self._filter(), box), np.uint8)

    def _shown(self, scaled: tuple[int, int]) -> tuple[int, int, int, int]:
        """What the crop leaves of the resized picture: left, top, width, height."""
        wide, high = min(scaled[0], self.size[1]), min(scaled[1], self.size[0])
        return round((scaled[0] - wide) / 2), round((scaled[1] - high) / 2), wide, high

    def _filter(self) -> Image.Resampling:
        """open_clip resizes to a target that is not square with its default filter, whatever the configuration says."""
        ignored = self.resize_mode == "shortest" and self.size[0] != self.size[1]
        return Image.Resampling.BILINEAR if self.interpolation == "bilinear" and not ignored else Image.Resampling.BICUBIC

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the whole picture after the resize, before the crop."""
        high, wide = self.size
        if self.resize_mode == "squash":
            return wide, high
        if self.resize_mode == "shortest" and high == wide:  # torchvision truncates the longer side
            return (wide, int(high * height / width)) if width <= height else (int(wide * width / height), high)
        ratios = (height / high, width / wide)
        ratio = max(ratios) if self.resize_mode == "longest" else min(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _padded(self, pixels: Pixels) -> Pixels:
        """Centred on the fill colour up to the input size; the odd pixel goes right and below."""
        high, wide = pixels.shape[:2]
        if (high, wide) == self.size:
            return pixels
        top, left = (self.size[0] - high) // 2, (self.size[1] - wide) // 2
        canvas = np.full((*self.size, 3), self.fill_color, np.uint8)
        canvas[top : top + high, left : left + wide] = pixels
        return canvas


@dataclass
class Normaliser:
    """Bytes to numbers of mean 0 and deviation 1, as a model was trained on; one thread at a time.

    The batch lies in memory that the next one takes over: fresh memory for every batch costs more than the arithmetic.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    _room: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 3, 0, 0), np.float32))

    @property
    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What a byte is multiplied by and what is then taken off, (3, 1, 1) each."""
        mean, std = (np.asarray(values, np.float64)[:, None, None] for values in (self.mean, self.std))
        return (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)

    def __call__(self, pictures: Sequence[Pixels] | NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 3, height, width) of n pictures of equal size; to be read before the next call."""
        height, width = pictures[0].shape[:2]
        if len(self._room) < len(pictures) or self._room.shape[2:] != (height, width):
            self._room = np.empty((len(pictures), 3, height, width), np.float32)
        batch = self._room[: len(pictures)]
        scale, shift = self.factors
        for numbers, picture in zip(batch, pictures, strict=True):  # one after the other, so that each stays in the cache
            np.multiply(picture.transpose(2, 0, 1), scale, out=numbers)
            numbers -= shift
        return batch
