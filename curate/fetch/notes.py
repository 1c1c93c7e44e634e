"""Notes of what hosts said of themselves: one word each on the way to the broker, one line each in table `robots`."""

from __future__ import annotations

import base64
import datetime
import json
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields

import pyarrow as pa

from curate.fetch.link import seed
from curate.parquet import open_file
from curate.stage import PartFile, fingerprint
from curate.store import Pool

DAY_SECONDS = 86_400.0
TABLE = "robots"
_MOST_CHARACTERS = 32 << 20
_BATCH_ROWS = 64  # a text may have half a megabyte


class Unreached(Exception):
    """No connection to the host could be made: what becomes of the row is what would become of its own request."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def packed(self) -> str:
        """As one word, for others who wait."""
        return _packed({"unreached": self.reason})


@dataclass(frozen=True)
class Note:
    """One of a host's files as it was found; times in seconds since 1970, text null where there is no such file."""

    kind: str
    scheme: str
    host: str
    port: int
    fetched_at: float
    expires_at: float
    status: int | None = None
    reason: str | None = None
    text: str | None = None

    @property
    def key(self) -> str:
        """Its name at the broker."""
        return f"{self.kind}:{self.scheme}://{self.host}:{self.port}"

    def packed(self) -> str:
        """As one word."""
        return _packed(asdict(self))

    @classmethod
    def unpacked(cls, word: str) -> Note:
        """Reads a word back; raises Unreached when it says that nobody got through."""
        content = json.loads(zlib.decompress(base64.b64decode(word)))
        if "unreached" in content:
            raise Unreached(content["unreached"])
        return cls(**content)


def _packed(content: dict[str, object]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(content).encode(), 1)).decode()


@dataclass
class Notes:
    """What this worker asked hosts for and no part has reported yet; filled on the event loop, emptied from outside."""

    found: deque[Note] = field(default_factory=deque)
    characters: int = 0

    def add(self, note: Note) -> None:
        """Notes it, unless the part's texts are too large together: then only the broker has it."""
        if self.characters < _MOST_CHARACTERS:
            self.characters += len(note.text or "")
            self.found.append(note)

    def take(self) -> list[Note]:
        """Everything noted so far."""
        self.characters = 0
        return [self.found.popleft() for _ in range(len(self.found))]


def write_notes(pool: Pool, part: int, notes: Notes, basis: str) -> PartFile | None:
    """The part's file of table `robots`: what is new, and what its earlier file says that still holds; None without either."""
    found = {note.key: note for note in notes.take()}
    earlier = pool.snapshot(TABLE)
    if part in earlier.by_part and found:
        found = {note.key: note for note in _read(earlier.path_of(part))} | found
    if not found:
        return None
    lines = [asdict(note) for note in found.values()]
    columns: dict[str, object] = {name.name: [line[name.name] for line in lines] for name in fields(Note)}
    for name in ("fetched_at", "expires_at"):
        columns[name] = [datetime.datetime.fromtimestamp(float(str(line[name])), datetime.UTC) for line in lines]
    return pool.write_part(TABLE, part, pa.table({"row": pa.array(range(len(lines)), pa.int32()), **columns}), basis)


def recall_notes(pool: Pool) -> None:
    """Tells this machine's broker what the pool's table `robots` says that still holds, once for all workers."""
    earlier = pool.snapshot(TABLE)
    if earlier.files:
        name = f"pool:{fingerprint(str(pool.path), str(earlier.version))}"
        seed(name, ((note.key, note.expires_at, note.packed()) for path in earlier.paths() for note in _read(path)))


def _read(path: str) -> Iterator[Note]:
    now = datetime.datetime.now(datetime.UTC)
    names = [name.name for name in fields(Note)]
    for batch in open_file(path).iter_batches(_BATCH_ROWS, columns=names):
        yield from (_note(line) for line in batch.to_pylist() if line["expires_at"] > now)


def _note(line: Mapping[str, object]) -> Note:
    times = {name: _seconds(line[name]) for name in ("fetched_at", "expires_at")}
    return Note(**{**line, **times})  # type: ignore[arg-type]


def _seconds(moment: object) -> float:
    assert isinstance(moment, datetime.datetime)
    return moment.timestamp()
