"""Lease files: who writes a table, and when that was last said; on a disk, or as an object that is only put conditionally.

They serve politeness only: `curate.lease` fences runs by epochs, whatever a lease says.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from curate import bucket
from curate.objects import ObjectPath


class LeaseFile:
    """A small JSON file whose age says when its holder was last alive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def table(self) -> str:
        """Whose lease it is."""
        return self.path.stem

    def read(self) -> dict[str, object] | None:
        """What it says; None when there is none that can be read."""
        try:
            return dict(json.loads(self.path.read_text()))
        except (OSError, ValueError):
            return None

    def age_seconds(self) -> float | None:
        """How long ago it was renewed; None when there is none."""
        try:
            return time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return None

    def write(self, content: Mapping[str, object]) -> None:
        """Takes the lease, whosever it was."""
        self.path.parent.mkdir(exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(content))
        os.replace(temporary, self.path)

    def renew(self) -> None:
        """Says that its holder is alive; given back in this very moment, it stays away."""
        with suppress(FileNotFoundError):
            os.utime(self.path)

    def remove(self) -> None:
        """Gives it back."""
        self.path.unlink(missing_ok=True)


class LeaseObject(LeaseFile):
    """The same in an object store. Its age is told by the server's clock alone; it is renewed only over the version that was read last.

    Raises `bucket.Conflict` when another run wrote it in between.
    """

    def __init__(self, path: ObjectPath) -> None:
        super().__init__(path)
        self._bucket, self._key, self._etag, self._said = path.bucket, path.key, "", b""

    def read(self) -> dict[str, object] | None:
        """See `LeaseFile.read`."""
        found = self._get()
        with suppress(ValueError):
            return None if found is None else dict(json.loads(found.data))
        return None

    def age_seconds(self) -> float | None:
        """See `LeaseFile.age_seconds`."""
        found = self._get()
        return None if found is None else found.now - found.modified

    def _get(self) -> bucket.Body | None:
        try:
            found = bucket.get(self._bucket, self._key)
        except FileNotFoundError:
            self._etag = ""
            return None
        self._etag, self._said = found.etag, found.data
        return found

    def write(self, content: Mapping[str, object]) -> None:
        """See `LeaseFile.write`."""
        data = json.dumps(content).encode()
        self._etag = bucket.put(self._bucket, self._key, data, new=not self._etag, etag=self._etag)
        self._said = data

    def renew(self) -> None:
        """See `LeaseFile.renew`."""
        with suppress(bucket.Conflict):
            bucket.put(self._bucket, self._key, self._said, etag=self._etag)


def lease_at(path: Path) -> LeaseFile:
    """The lease at that place."""
    return LeaseObject(path) if isinstance(path, ObjectPath) else LeaseFile(path)
