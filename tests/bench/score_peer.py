"""clip-retrieval in an environment of its own, for `tests.bench.score`: its pins (numpy 1, pyarrow 15) are not ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.bench.score_inputs import Model

PINS = (
    "clip-retrieval==2.45.0", "open_clip_torch==2.32.0", "all_clip==1.3.0", "webdataset==0.2.111", "transformers==4.57.6",
    "setuptools==69.5.1",  # the last with what OpenAI's clip imports from pkg_resources
)  # fmt: skip
PROGRAM = Path(__file__).with_name("clip_retrieval_worker.py")
LOADERS = 2


def environment() -> Path:
    """Its Python; set up on the first call (6 GB, most of it torch, which uv links from its cache), kept under ~/.cache."""
    shared = [f"{name}=={version(name)}" for name in ("torch", "torchvision")]  # the same torch on both sides
    folder = Path.home() / ".cache" / "curate-bench" / f"clip-retrieval-{version('torch')}"
    python, uv = folder / "bin" / "python", shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    if not (folder / "whole").exists():
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *PINS, *shared], check=True)
        (folder / "whole").touch()
    return python


def rate(model: Model, tars: Sequence[str], batch: int) -> float:
    """Images per second of its inference worker (reader, mapper and writer) between its first batch and its last."""
    with tempfile.TemporaryDirectory(prefix="curate-bench-peer-") as output:
        said = {
            "model": f"open_clip:{model.name}/{model.weights}", "config": str(model.config), "tars": list(tars), "output": output,
            "batch": batch, "loaders": LOADERS,
        }  # fmt: skip
        quiet = {**os.environ, "PYTHONPATH": "", "NO_ALBUMENTATIONS_UPDATE": "1", "HF_HUB_OFFLINE": "1"}
        command = [str(environment()), str(PROGRAM), json.dumps(said)]
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    if done.returncode:
        raise SystemExit(f"clip-retrieval failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
