"""A real browser without a window: opens a page, returns what it drew and what it complained about."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ACCENT = (13, 125, 112)
"""The colour of the report's kept rows, red first; on the screen only when the style sheet was accepted."""


@dataclass(frozen=True)
class Opened:
    """A page as it was shown: pixels (height, width, 3), and the browser's own log."""

    pixels: np.ndarray
    log: str

    @property
    def complaints(self) -> list[str]:
        """Lines that the page left on the console."""
        return [line for line in self.log.splitlines() if "CONSOLE" in line]

    @property
    def accent_share(self) -> float:
        """Share of the pixels in the report's accent colour."""
        return float((np.abs(self.pixels.astype(int) - np.array(ACCENT)).sum(axis=2) < 12).mean())


def opened(page: Path, folder: Path, width: int = 1280) -> Opened:
    """Opens a local page in headless Chromium; skips the test on a machine without one."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("NO BROWSER: install chromium to have the report opened in one")
    shot = folder / "page.png"
    run = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--hide-scrollbars", f"--screenshot={shot}", f"--window-size={width},2400", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return Opened(np.asarray(Image.open(shot).convert("RGB")), run.stderr)
