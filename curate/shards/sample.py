"""What a packed sample says about itself: the `.json` member and the metadata row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_FIRST = ("sample_id", "url", "caption", "captions", "label")
_IMAGE = (
    "original_width", "original_height", "original_format", "original_bytes", "width", "height", "format", "image_bytes",
    "sha256", "image_sha256",
)  # fmt: skip


def sample_json(line: Mapping[str, Any], score_names: list[str]) -> bytes:
    """The `.json` member: identity, texts, image facts, then all scores; the same bytes for the same values."""
    found = {name: line[name] for name in (*_FIRST, *_IMAGE) if line[name] is not None}
    scores = {name: line[name] for name in score_names if _is_plain(line[name])}
    return json.dumps({**found, "part": line["part"], "row": line["row"], "scores": scores}, ensure_ascii=False, allow_nan=False).encode()


def _is_plain(value: Any) -> bool:
    """JSON knows neither NaN nor bytes; what is not known is left out."""
    return value is not None and not isinstance(value, bytes) and not (isinstance(value, float) and not math.isfinite(value))
