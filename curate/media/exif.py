"""EXIF as something that a table can hold."""

from __future__ import annotations

import json
import math
import struct

from PIL import ExifTags, Image

_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, RuntimeError, struct.error)
"""What Pillow raises on damaged EXIF."""


def exif_json(raw: bytes, max_bytes: int = 4096) -> str | None:
    """Main EXIF tags as JSON of at most `max_bytes`; numbers and text (first 200 characters) only; None without any."""
    if not raw:
        return None
    tags = Image.Exif()
    try:
        tags.load(b"Exif\0\0" + raw)
        values = {ExifTags.TAGS.get(tag, str(tag)): _plain_value(value) for tag, value in tags.items()}
    except _ERRORS:
        return None
    kept: dict[str, object] = {}
    size = 2
    for name in sorted(name for name, value in values.items() if value is not None):
        size += len(json.dumps({name: values[name]})) + 1
        if size <= max_bytes:
            kept[name] = values[name]
    return json.dumps(kept, sort_keys=True) if kept else None


def _plain_value(value: object) -> str | int | float | None:
    if isinstance(value, str):
        return "".join(c for c in value[:200] if c.isprintable()).strip() or None
    if isinstance(value, bool | bytes | tuple | dict):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]  # Pillow's rationals
    except (TypeError, ValueError, ArithmeticError):
        return None
    return round(number, 6) if math.isfinite(number) else None
