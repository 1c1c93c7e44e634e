"""What a person may say about packing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.settings import Settings


class PackSettings(Settings):
    """How a subset becomes shards."""

    mode: Literal["copy", "index"] = "copy"  # index: no tars, only the table of where each kept image lies
    shard_samples: int = Field(default=10_000, ge=1)
    seed: int = 0  # of the order, which is a hash of sample_id and seed
    blur: str | None = None  # a column of boxes, such as face_boxes, in which packed pictures are made unrecognisable
    quality: int = Field(default=95, ge=1, le=100)  # of jpg and webp that are encoded anew since something in them is blurred
    partial: bool = False  # pack although rows are still pending
    shards_in_memory: int = Field(default=8, ge=1)  # captions and numbers of so many shards are held at once; never images

    @model_validator(mode="after")
    def _no_blur_in_place(self) -> PackSettings:
        if self.blur is not None and self.mode == "index":
            raise ValueError("blur needs mode=copy: with mode=index readers see the stored pictures, which stay as they are")
        return self

    @property
    def choices(self) -> str:
        """What decides over the packed bytes, as JSON; the same text as before there was `blur`, where nothing is blurred."""
        without = {"partial", "shards_in_memory", *(() if self.blur else ("blur", "quality"))}
        return self.model_dump_json(exclude=without)
