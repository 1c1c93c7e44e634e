"""What goes into a fetch and what comes out, row by row: the words that stages, backends and the phase share.

A part's rows never pass through Arrow on their way: turning images into batches and back costs more than asking for them.
The stage contract, which speaks in batches, is built on top by `as_compute`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from curate.fetch.wish import WISH, Wish, wishes_of
from curate.schema import table
from curate.stage import Compute

RESULT_COLUMNS = (
    "reason", "http_status", "final_url", "content_type", "signal", "signal_value", "original_bytes", "original_width",
    "original_height", "original_format", "sha256", "md5", "hash_drift", "blurred", "exif", "width", "height", "format",
    "image_bytes", "image_sha256",
)  # fmt: skip
TELEMETRY_COLUMNS = ("finished_at", "attempts", "latency_seconds", "bytes_read", "worker")
TAR_COLUMNS = ("tar_file", "tar_offset", "tar_size")

Record = Mapping[str, object]
"""Columns of one row by name; absent ones are null."""
Asked = tuple[str, str | None, Wish]
"""A URL, the reason for which it is not to be requested (else None), and what the list says of the file."""
Fetched = tuple[dict[str, object], bytes | None]
"""Result and telemetry columns of one row, and the image to store (None with a reason)."""
FetchRows = Callable[[Iterable[Sequence[Asked]]], Iterator[Fetched]]
"""Takes batches of rows, may look ahead over all of them, and yields the rows' outcomes in order."""


def needed() -> pa.Schema:
    """Columns of an asked row: `url` and `skip`, both string, and `wish`."""
    return pa.schema([("url", pa.string()), ("skip", pa.string()), ("wish", WISH)])


def added() -> pa.Schema:
    """Result columns, telemetry columns, `image`."""
    fetched, telemetry = table("fetched"), table("telemetry")
    plain = [pa.field(name, fetched.field(name).type) for name in RESULT_COLUMNS]
    plain += [pa.field(name, telemetry.field(name).type) for name in TELEMETRY_COLUMNS]
    return pa.schema([*plain, pa.field("image", pa.binary())])


def as_compute(fetch: FetchRows, schema: pa.Schema) -> Compute:
    """The stage contract over `fetch`; it takes all batches before it gives the first one back."""

    def compute(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        asked = [_asked(batch) for batch in batches]
        outcomes = fetch(asked)
        for rows in asked:
            yield _as_batch(list(itertools.islice(outcomes, len(rows))), schema)

    return compute


def _asked(batch: pa.RecordBatch) -> list[Asked]:
    return list(zip(batch.column("url").to_pylist(), batch.column("skip").to_pylist(), wishes_of(batch), strict=True))


def _as_batch(rows: Sequence[Fetched], schema: pa.Schema) -> pa.RecordBatch:
    arrays = [pa.array([columns.get(f.name) for columns, _ in rows], f.type) for f in schema if f.name != "image"]
    return pa.RecordBatch.from_arrays([*arrays, pa.array([image for _, image in rows], pa.binary())], schema=schema)


class Done:
    """Outcomes of a part's requests in the order in which they were asked for, column by column: a tenth of the memory of rows."""

    def __init__(self) -> None:
        self._columns: dict[str, list[object]] = {name: [] for name in (*RESULT_COLUMNS, *TELEMETRY_COLUMNS, *TAR_COLUMNS)}

    def __len__(self) -> int:
        return len(self._columns["reason"])

    def add(self, record: Record) -> None:
        """Appends one outcome."""
        for name, values in self._columns.items():
            values.append(record.get(name))

    def name_tar(self, path: str) -> None:
        """Says in which file the images are."""
        offsets = self._columns["tar_offset"]
        self._columns["tar_file"] = [None if offset is None else path for offset in offsets]

    def values(self, name: str) -> list[object]:
        """One column."""
        return self._columns[name]

    def column(self, name: str, sources: Iterable[int | Record]) -> list[object]:
        """One value for each source: the outcome of that number, or what a record says."""
        values = self._columns[name]
        return [values[source] if isinstance(source, int) else source.get(name) for source in sources]
