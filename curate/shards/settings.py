"""What a person may say about packing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.settings import Settings


class PackSettings(Settings):
    """How a subset becomes shards."""

    mode: Literal["copy", "index"] = "copy"  # index: no tars, only the table of where each kept image lies
    shard_samples: int = Field(default=10_000, ge=1)
    seed: int = 0  # of the order, which is a hash of sample_id and seed
    partial: bool = False  # pack although rows are still pending
    shards_in_memory: int = Field(default=8, ge=1)  # captions and numbers of so many shards are held at once; never images
