"""Images that rows of other parts use: a row of a further list takes the image that the pool has of its URL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from curate.parquet import read_table
from curate.store import Snapshot

_PLACE = ["tar_file", "tar_offset"]


def part_of(tar_file: str) -> int:
    """The part whose fetch wrote a tar, whoever uses its images."""
    return int(Path(tar_file).name.split("-", 1)[0])


@dataclass(frozen=True)
class Borrowed:
    """What rows use of other parts' tars: `places` has the offsets by tar, `users` the parts that use a part's tars."""

    places: Mapping[str, frozenset[int]]
    users: Mapping[int, frozenset[int]]

    @classmethod
    def of(cls, fetched: Snapshot) -> Borrowed:
        """Looks through table `fetched`; memory grows with what is borrowed only."""
        places, users = defaultdict[str, set[int]](set), defaultdict[int, set[int]](set)
        for file in fetched.files:
            path = fetched.folder / file.path
            names = read_table(path, _PLACE[:1])["tar_file"].unique().drop_null().to_pylist()
            others = [name for name in names if part_of(name) != file.part]
            if others:
                lines = read_table(path, _PLACE)
                lines = lines.filter(pc.is_in(lines["tar_file"], value_set=pa.array(others, pa.string())))
                for name, offset in zip(*(lines[column].to_pylist() for column in _PLACE), strict=True):
                    places[name].add(offset)
                    users[part_of(name)].add(file.part)
        return cls({name: frozenset(found) for name, found in places.items()}, {part: frozenset(found) for part, found in users.items()})

    def of_part(self, part: int) -> list[str]:
        """Tars of a part that rows of others use."""
        return sorted(name for name in self.places if part_of(name) == part) if part in self.users else []

    def with_users(self, parts: Collection[int]) -> set[int]:
        """These parts and those that use their tars."""
        return set(parts).union(*(self.users.get(part, frozenset()) for part in parts))
