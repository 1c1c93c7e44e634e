"""Rows set aside to fit a model on, and therefore never scored by it; chosen by hash, the same everywhere."""

from __future__ import annotations

import hashlib

from pydantic import Field

from curate.settings import Settings


class Reserve(Settings):
    """The share of rows that the model was fitted on; `salt` lets two models reserve different rows."""

    fraction: float = Field(ge=0, le=1)
    salt: str = ""


def reserved(sample_id: str, fraction: float, salt: str = "") -> bool:
    """Whether the row belongs to the reserved share: the first 64 bits of sha256(salt, newline, sample_id) below `fraction`.

    Nested: what is reserved at 0.1 is reserved at 0.2 too.
    """
    digest = hashlib.sha256(f"{salt}\n{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
