"""Settings of an evaluation; `conf/evaluate/*.yaml` holds ready ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.settings import Settings


class EvaluateSettings(Settings):
    """What is measured on a held-out split, and how.

    `templates` are sentences with `{}` where the class name goes. Zero-shot needs labels, retrieval needs captions;
    a task that finds neither is left out. `data` is a WebDataset tar or a folder of them (image, .txt, .cls.txt).
    `name` stands before the task in the results, as in scenes/zero_shot.
    """

    name: str = "held_out"
    data: str | None = None
    templates: tuple[str, ...] = Field(("a photo of a {}.", "a picture of a {}", "{}"), min_length=1)
    top: tuple[int, ...] = (1, 5, 10)
    batch_size: int = Field(256, gt=0)
    seed: int = Field(0, ge=0)
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
