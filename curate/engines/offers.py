"""Parts that wait in a folder until a worker takes them, for engines that cannot send a worker anything once it is at work."""

from __future__ import annotations

import os
import uuid
from collections.abc import Container, Iterator
from pathlib import Path

from pydantic import TypeAdapter

from curate.stage import PartTask

_TEXT = TypeAdapter(PartTask)  # JSON: what lies in a pool's folder must not be able to run code


class Offers:
    """One small file a part, beside what an `Outbox` holds: `todo/` until an order takes it by a rename, then `taken/`.

    Its name tells the part and how often its worker died; in `taken/` also the order that has it in hand.
    """

    def __init__(self, folder: Path) -> None:
        self.todo, self.taken = folder / "todo", folder / "taken"

    def open(self) -> None:
        """Makes the folders."""
        self.todo.mkdir(parents=True)
        self.taken.mkdir()

    def offer(self, task: PartTask, tried: int) -> None:
        """Leaves a part for whoever takes it first."""
        temporary = self.todo.parent / f".{uuid.uuid4().hex}"
        temporary.write_bytes(_TEXT.dump_json(task))
        os.replace(temporary, self.todo / f"{task.part:09d}-{tried}")

    def count(self) -> int:
        """Parts that nobody has taken yet."""
        return len(os.listdir(self.todo))

    def take(self, order: str) -> tuple[PartTask, int] | None:
        """The first part that is left, and how often its worker died; None when there is none, or nobody waits any more."""
        try:
            for name in sorted(os.listdir(self.todo)):
                mine = self.taken / f"{order}.{name}"
                try:
                    os.rename(self.todo / name, mine)
                except FileNotFoundError:  # another was quicker
                    continue
                return _TEXT.validate_json(mine.read_bytes()), int(name.partition("-")[2])
        except FileNotFoundError:  # the run has ended
            pass
        return None

    def done(self, order: str, part: int, tried: int) -> bool:
        """Says that the order has told of a part; whether it was still the order's."""
        try:
            (self.taken / f"{order}.{part:09d}-{tried}").unlink()
        except FileNotFoundError:
            return False
        return True

    def abandoned(self, orders: Container[str]) -> Iterator[int]:
        """Parts that were in the hands of other orders than these; each once."""
        for name in os.listdir(self.taken):
            order, _, part = name.partition(".")
            if order not in orders:
                (self.taken / name).unlink(missing_ok=True)
                yield int(part.partition("-")[0])
