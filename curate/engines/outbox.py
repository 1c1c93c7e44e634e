"""A folder in which workers tell of parts that ended, for engines that hear of a task only when all of it is done."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from curate import errors
from curate.engines.base import PartFailure
from curate.errors import CurateError
from curate.stage import PartFile, PartReport

Said = PartReport | PartFailure | CurateError
"""What becomes of a part; an error ends the run."""


class Outbox:
    """One small file a part, in a folder that the driver makes and removes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> None:
        """Makes the folder."""
        (self.folder / "new").mkdir(parents=True)

    def is_open(self) -> bool:
        """Whether somebody still waits for what is told."""
        return (self.folder / "new").is_dir()

    def close(self) -> None:
        """Removes all of it; what workers would tell from now on is lost on purpose."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def tell(self, said: Said) -> None:
        """Leaves word of a part; of the run's end where it is an error. Does nothing when nobody waits any more."""
        name = str(said.part) if not isinstance(said, CurateError) else f"stop-{uuid.uuid4().hex[:12]}"
        temporary = self.folder / f".{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(encode(said))
            os.replace(temporary, self.folder / "new" / name)
        except FileNotFoundError:
            return

    def hear(self) -> Iterator[Said]:
        """What is new; reports first, so that they count although the run ends with an error."""
        for name in sorted(os.listdir(self.folder / "new"), key=lambda name: name.startswith("stop")):
            said = decode((self.folder / "new" / name).read_bytes())
            (self.folder / "new" / name).unlink()
            yield said


def encode(said: Said) -> bytes:
    """As JSON: what lies in a pool's folder must not be able to run code."""
    if isinstance(said, CurateError):
        kind = next(kind for kind in type(said).__mro__ if getattr(errors, kind.__name__, None) is kind)
        given = said.__reduce__()[1] if kind is type(said) else (str(said),)
        return json.dumps({"error": kind.__name__, "given": [str(one) for one in given]}).encode()
    if isinstance(said, PartFailure):
        return json.dumps({"failure": asdict(said)}).encode()
    files, counts = [asdict(file) for file in said.files], {"reasons": dict(said.reasons), "counters": dict(said.counters)}
    report = {"part": said.part, "files": files, **counts}
    return json.dumps({"report": report}, default=lambda number: number.item()).encode()  # counts may be NumPy's


def decode(content: bytes) -> Said:
    """The other way round."""
    found = json.loads(content)
    if "error" in found:
        error = getattr(errors, found["error"])(*found["given"])
        assert isinstance(error, CurateError)
        return error
    if "failure" in found:
        return PartFailure(**found["failure"])
    report = found["report"]
    return PartReport(**{**report, "files": tuple(PartFile(**file) for file in report["files"])})
