"""The page of an ablation: its table and its intervals drawn."""

from __future__ import annotations

from pathlib import Path

from curate.ablate.result import METHOD, Ablation, probability, signed_span, span
from curate.catalog.charts import Whisker, whiskers
from curate.catalog.pages import render, write_page


def write(found: Ablation, folder: Path, pool_name: str) -> Path:
    """Writes index.html; returns its path. Raises LocalFault."""
    drawn = [
        (line.name, [Whisker("kept", line.figure.value, line.figure.low, line.figure.high),
                     Whisker("pending", line.random.value, line.random.low, line.random.high)]) for line in found.lines
    ]  # fmt: skip
    content = {
        "found": found, "drawn": whiskers(drawn, "Figure of each arm and of as many random rows, with 95 % intervals"), "method": METHOD,
        "span": span, "signed_span": signed_span, "probability": probability, "pool_name": pool_name, "title": found.name,
    }  # fmt: skip
    return write_page(render("ablation.html", content), folder)
