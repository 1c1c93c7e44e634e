"""What the demo keeps away from the pool, to evaluate on: pictures whose captions are known to be right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from curate.demo.corpus import Corpus
from curate.media.tar import TarWriter

STAMPS = "/stamps/"
HELD_OUT_SHARE = 0.25


def is_held_out(address: str) -> bool:
    """Whether a picture of the real corpus is kept for evaluation: a quarter of the stamps, by a hash of the address."""
    return address.startswith(STAMPS) and hashlib.sha256(address.encode()).digest()[0] < HELD_OUT_SHARE * 256


def write_stamps(corpus: Corpus, target: Path) -> int:
    """Writes the held-out stamps with their English sentence, and their folder as class; returns how many."""
    lines = corpus.rows().to_pylist()
    return _write(corpus, [line for line in lines if is_held_out(line["address"]) and line["language"] == "en"], target)


def write_scenes(corpus: Corpus, target: Path) -> int:
    """Writes the undamaged scenes of an evaluation corpus with their true captions; returns how many."""
    lines = [line | {"label": None} for line in corpus.truth().to_pylist() if line["kind"] == "original"]
    labels = dict(zip(corpus.rows()["address"].to_pylist(), corpus.rows()["label"].to_pylist(), strict=True))
    return _write(corpus, [{**line, "label": labels[line["address"]], "caption": line["true_caption"]} for line in lines], target)


def _write(corpus: Corpus, lines: Iterable[dict[str, str | None]], target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with TarWriter(target) as tar:
        for count, line in enumerate(lines, 1):
            key = f"{count:06d}"
            address = str(line["address"])
            tar.add(f"{key}{Path(address).suffix}", corpus.read(address)[1])
            tar.add(f"{key}.txt", str(line["caption"]).encode())
            if line["label"]:
                tar.add(f"{key}.cls.txt", line["label"].encode())
    return count
