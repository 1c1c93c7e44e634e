"""What decoding costs and what it keeps: `fast` beside `faithful` and img2dataset's Resizer, on JPEGs at quality 85.

    python -m tests.bench.pixels [FOLDER]

FOLDER holds pictures of your own; without it, photo-like ones are drawn. One thread; rounds take turns, so that a busy
machine slows all alike. The last line is one JSON object: CPU milliseconds per image (median over rounds, with the
lowest and highest round), the same by step of `fast`, and PSNR against full-size decoding with area averaging.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from curate.fetch.codec import outcome, prepare_process
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import EMPTY
from curate.media import image as codec
from curate.media import resize
from curate.media.settings import ImageSettings
from tests.media.photos import jpeg, photo_like, text_page
from tests.media.test_fidelity import MODES, ours, peer, psnr, resizer_class

SIZES = [(640, 427), (741, 500), (800, 600), (1024, 768), (1200, 800), (1280, 960), (1600, 1067), (900, 1200), (720, 1080)]
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def bodies(folder: Path | None, count: int) -> list[bytes]:
    """`count` JPEGs at quality 85: drawn, or made of the folder's pictures, each as large as it is."""
    if folder is None:
        return [jpeg(photo_like(seed, *SIZES[seed % len(SIZES)])) for seed in range(count)]
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ENDINGS]
    return [jpeg(np.asarray(Image.open(path).convert("RGB"))) for path in paths[:count]]


def cpu_milliseconds(work: Callable[[bytes], object], files: Sequence[bytes]) -> float:
    """CPU time of one pass over the files, per file."""
    started = time.process_time()
    for data in files:
        work(data)
    return (time.process_time() - started) / len(files) * 1e3


def steps(files: Sequence[bytes], settings: ImageSettings) -> dict[str, float]:
    """CPU milliseconds per image of each step of `fast`."""
    spent = dict.fromkeys(("sha256 of the body", "header", "decode", "resize", "encode", "sha256 of the image"), 0.0)

    def timed(name: str, work: Callable[..., Any], *arguments: object) -> Any:
        started = time.process_time()
        made = work(*arguments)
        spent[name] += (time.process_time() - started) * 1e3 / len(files)
        return made

    for data in files:
        timed("sha256 of the body", hashlib.sha256, data)
        found = timed("header", codec.header, data)
        how = resize.fit(*found.upright, settings)
        pixels = timed("decode", codec._decoded, data, found, resize.quick_size(found, how.scaled))
        scaled = timed("resize", resize.scale, pixels, how.scaled, resize.extent_of(pixels, found), True)
        stored = timed("encode", codec.encode, scaled, settings)
        timed("sha256 of the image", hashlib.sha256, stored)
    return spent


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": round(float(np.median(values)), 3), "low": round(min(values), 3), "high": round(max(values), 3)}


def costs(files: Sequence[bytes], rounds: int) -> dict[str, object]:
    """CPU milliseconds per image at 256 pixels, keep_ratio, of each way, and of the steps of the fast one."""
    fast = FetchSettings()
    faithful = FetchSettings(image=ImageSettings(decode="faithful"))
    ways: dict[str, Callable[[bytes], object]] = {
        "fast": lambda data: outcome(data, EMPTY, fast),
        "faithful": lambda data: outcome(data, EMPTY, faithful),
    }
    if img2dataset_is_there():
        ways["img2dataset"] = _hashed_peer()
    for work in ways.values():  # imports and caches are nobody's cost
        work(files[0])
    taken: dict[str, list[float]] = {name: [] for name in ways}
    parts: list[dict[str, float]] = []
    for _ in range(rounds):
        for name, work in ways.items():
            taken[name].append(cpu_milliseconds(work, files))
        parts.append(steps(files, fast.image))
    of_steps = {name: spread([one[name] for one in parts]) for name in parts[0]}
    return {"milliseconds": {name: spread(values) for name, values in taken.items()}, "steps_of_fast": of_steps}


def _hashed_peer() -> Callable[[bytes], object]:
    import io

    resizer = resizer_class()(256, "keep_ratio", True, encode_format="jpg", encode_quality=95)
    return lambda data: (hashlib.sha256(data).hexdigest(), resizer(io.BytesIO(data)))


def img2dataset_is_there() -> bool:
    """Whether its Resizer can be imported."""
    try:
        resizer_class()
    except ImportError:
        return False
    return True


def full(data: bytes, mode: str) -> resize.Rgb:
    """Full-size decoding by OpenCV, then area averaging: img2dataset's pixels."""
    if img2dataset_is_there():
        return peer(data, mode)
    pixels = np.asarray(cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
    return resize.resize(pixels, resize.fit(pixels.shape[1], pixels.shape[0], ImageSettings.model_validate({"resize_mode": mode})))


def fidelity(files: Sequence[bytes]) -> dict[str, dict[str, dict[str, float]]]:
    """PSNR in dB by decoding and resize mode: median and minimum."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for decode in ("fast", "faithful"):
        found[decode] = {}
        for mode in MODES:
            values = [psnr(ours(data, mode, decode), full(data, mode)) for data in files]
            found[decode][mode] = {"median": round(float(np.median(values)), 1), "minimum": round(min(values), 1)}
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=5)
    said = parser.parse_args()
    prepare_process()
    files = bodies(said.folder, said.count)
    text = [jpeg(text_page(seed, *size)) for seed, size in enumerate([(640, 480), (1000, 700), (1240, 877), (1600, 900)])]
    measured = {
        "images": len(files),
        "mean_bytes": round(float(np.mean([len(data) for data in files]))),
        "rounds": max(3, said.rounds),
        **costs(files, max(3, said.rounds)),
        "psnr_db": {"photos": fidelity(files), "text_pages": fidelity(text)},
    }
    print(json.dumps(measured, indent=2))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
