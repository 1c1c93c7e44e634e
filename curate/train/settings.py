"""Settings of a training run; `conf/train/*.yaml` holds ready ones."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from curate.settings import Settings
from curate.stage import identity_of

SPEED_ONLY = frozenset({"workers", "cache_bytes", "checkpoint_every_steps"})
"""Fields that change how fast a model is trained and not which model comes out, with one exception: streamed packed shards
come in an order that depends on the number of workers and processes."""


class Architecture(Settings):
    """A model in open_clip's own words; the two `_cfg` mappings are what its `CLIPVisionCfg` and `CLIPTextCfg` take."""

    embed_dim: int = Field(gt=0)
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    quick_gelu: bool = False


class TrainSettings(Settings):
    """What is trained and how; two runs with equal settings on equal data give the same model on a CPU.

    `model` is an `Architecture`, the name of an open_clip model, or `local-dir:FOLDER` to go on from a trained one.
    `init` are weights to begin with: an open_clip tag, or a folder; none means random.
    `batch_size` counts pairs per step over all processes. One of `epochs` and `samples_seen` says how long.
    `crop_scale` is the share of the image's area that a random square crop covers.
    """

    model: str | Architecture = "ViT-B-32"
    init: str | None = None
    batch_size: int = Field(256, gt=1)
    epochs: int | None = Field(None, gt=0)
    samples_seen: int | None = Field(None, gt=0)
    lr: float = Field(5e-4, gt=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.2, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    epsilon: float = Field(1e-6, gt=0)
    grad_clip_norm: float | None = Field(1.0, gt=0)
    crop_scale: tuple[float, float] = (0.9, 1.0)
    precision: Literal["auto", "fp32", "amp_bf16"] = "auto"
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, gt=0)
    workers: int = Field(2, ge=0)
    cache_bytes: int = Field(1 << 30, ge=0)
    checkpoint_every_steps: int = Field(1000, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.epochs is not None and self.samples_seen is not None:
            raise ValueError("give epochs or samples_seen, not both")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError("crop_scale is [low, high] with 0 < low <= high <= 1")
        return self

    def total_steps(self, samples: int) -> int:
        """Optimiser steps of the whole run on a source of `samples` pairs; an epoch leaves out its last, partial batch."""
        if self.samples_seen is not None:
            return max(1, self.samples_seen // self.batch_size)
        return (self.epochs or 1) * self.steps_per_epoch(samples)

    def steps_per_epoch(self, samples: int) -> int:
        """Whole batches in one pass over `samples` pairs."""
        return samples // self.batch_size

    def identity(self) -> str:
        """Fingerprint of everything that decides which model comes out."""
        return identity_of("train", 1, self.model_dump(mode="json", exclude=set(SPEED_ONLY)))
