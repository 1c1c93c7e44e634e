"""What a person looked at and cleared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.errors import InputError
from curate.stage import fingerprint


@dataclass(frozen=True)
class Clearance:
    """Lines of a file, one thing each: a sample_id, an item as the evidence names it (EVALUATION/ITEM), or both, a tab between them.

    A sample_id alone clears the row of everything, an item alone clears it for all rows. What follows a # at the start of a line is
    for people.
    """

    lines: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: str | None) -> Clearance:
        """Of a file; None is nothing. Raises InputError."""
        if path is None:
            return cls()
        try:
            said = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a list of what is cleared ({getattr(error, 'strerror', None) or error})") from None
        return cls(frozenset(line.strip() for line in said if line.strip() and not line.startswith("#")))

    def covers(self, sample_id: str, item: str) -> bool:
        """Whether one finding is cleared."""
        return not self.lines.isdisjoint((sample_id, item, f"{sample_id}\t{item}"))

    def identity(self) -> str:
        """Changes with the lines, not with their order."""
        return fingerprint(*sorted(self.lines))
