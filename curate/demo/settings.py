"""Settings of the demo's corpora and of its server."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.settings import Settings


class ScenesSettings(Settings):
    """The generated corpus; equal settings give equal bytes.

    The counts of `kind` follow from the fractions by rounding, so that a corpus of any size has the same noise.
    """

    rows: int = Field(default=4000, ge=1)
    seed: int = Field(default=0, ge=0)
    split: Literal["train", "eval"] = "train"
    swapped: float = Field(default=0.30, ge=0, le=0.6)
    duplicates: float = Field(default=0.20, ge=0, le=0.4)
    hue_changes: float = Field(default=0.05, ge=0, le=0.1)
    near_duplicate_captions: float = Field(default=0.04, ge=0, le=0.1)
    other_languages: float = Field(default=0.05, ge=0, le=0.1)
    too_small: float = Field(default=0.02, ge=0, le=0.05)
    opted_out: float = Field(default=0.02, ge=0, le=0.05)
    dead: float = Field(default=0.02, ge=0, le=0.05)
    min_side_pixels: int = Field(default=160, ge=64)
    max_side_pixels: int = Field(default=640, le=2048)


class OpenclipartSettings(Settings):
    """The real corpus from three Debian packages.

    `translations` is the number of further rows per stamp, each with the caption of another locale (77 locales in all,
    chosen by hash).
    """

    translations: int = Field(default=2, ge=0, le=76)


class ServerSettings(Settings):
    """The loopback web server.

    `count_attempts=False` makes each answer a function of the URL alone: addresses that fail first and then recover
    answer well at once.
    """

    hosts: int = Field(default=400, ge=1, le=60_000)
    port: int = Field(default=0, ge=0, le=65_535)
    count_attempts: bool = True
    drip_bytes: int = Field(default=16, ge=1)
    drip_seconds: float = Field(default=0.25, gt=0)
