"""Settings of what a run tells beside its progress."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from curate.settings import Settings


class LogSettings(Settings):
    """Where figures of a run go, beside the terminal and the pool's own status document; nothing here changes what comes out.

    `log=tensorboard` and `log=wandb` name the files in conf/log.
    """

    to: Literal["", "tensorboard", "wandb"] = ""
    folder: str = ""  # of TensorBoard's or wandb's files; default logs/ in the pool
    project: str = "curate"  # wandb's
    offline: bool = False  # wandb writes to the folder and asks no server; `wandb sync` sends it later
    metrics: str = ""  # an OpenMetrics file, or a folder in which each run has its own: node_exporter's textfile folder
    events: str = ""  # a file of JSON lines to append to; - is stderr
    every_seconds: float = Field(default=1.0, ge=0.1)  # at most so often; the status document too

    @model_validator(mode="before")
    @classmethod
    def _board(cls, said: object) -> object:
        return {"to": said} if isinstance(said, str) else said
