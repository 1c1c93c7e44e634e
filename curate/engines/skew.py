"""What must be the same on driver and workers for equal values: the code, Python, and the packages that compute."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from curate.errors import UsageError

_PACKAGES = ("pyarrow", "numpy", "pillow", "opencv-python-headless", "simplejpeg", "torch")


@functools.cache
def versions() -> dict[str, str]:
    """Of this process: curate with a digest of its source, Python's minor version, and the packages that shape values."""
    found = {"curate": f"{_version('curate-vlm')} ({_source_digest()})", "Python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    return found | {package: _version(package) for package in _PACKAGES}


def refuse_skew(driver: Mapping[str, str], where: str) -> None:
    """Raises UsageError, with one line, when this process differs from `driver`; `where` names this process."""
    here = versions()
    differing = [name for name, known in driver.items() if here.get(name) != known]
    if differing:
        told = ", ".join(f"{name} {here.get(name, 'absent')} there and {driver[name]} here" for name in differing)
        raise UsageError(f"{where} has other software than the driver ({told}): install the same curate-vlm and requirements on both")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _source_digest() -> str:
    """Eight hex digits over curate's own files: two checkouts may bear one version."""
    digest, root = hashlib.sha256(), Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:8]
