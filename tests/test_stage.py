"""The stage contract is enforced, not hoped for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pytest

from curate.errors import SchemaError
from curate.stage import Compute, apply, by_batch, check, fingerprint, identity_of

HAVE = pa.schema([("url", pa.string())])


@dataclass(frozen=True)
class Length:
    """Adds the length of the URL; `spoil` breaks the contract in one way."""

    spoil: str = ""
    version: int = 1

    @property
    def needs(self) -> pa.Schema:
        return HAVE

    @property
    def adds(self) -> pa.Schema:
        return pa.schema([("length", pa.int64())])

    def identity(self) -> str:
        return identity_of("Length", self.version, {"spoil": self.spoil})

    @contextmanager
    def open(self) -> Iterator[Compute]:
        yield self._late if self.spoil == "late" else by_batch(self._one)

    def _one(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        values = [len(url) for url in batch.column("url").to_pylist()]
        if self.spoil == "drop":
            values = values[:-1]
        name = "width" if self.spoil == "rename" else "length"
        return pa.record_batch([pa.array(values, pa.int64())], names=[name])

    def _late(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Reads ahead of what it yields, as a fetcher does."""
        for batch in list(batches):
            yield self._one(batch)


def batches(*groups: list[str]) -> Iterator[pa.RecordBatch]:
    for group in groups:
        yield pa.record_batch([pa.array(group, pa.string())], schema=HAVE)


def test_columns_are_added_in_order_and_rows_stay() -> None:
    for spoil in ("", "late"):
        found = pa.Table.from_batches(list(apply([Length(spoil)], batches(["a", "bb"], [], ["ccc"]))))
        assert found.to_pydict() == {"url": ["a", "bb", "ccc"], "length": [1, 2, 3]}


def test_a_stage_that_drops_rows_or_renames_is_caught() -> None:
    for spoil in ("drop", "rename"):
        with pytest.raises(SchemaError, match="Length returned"):
            list(apply([Length(spoil)], batches(["a", "bb"])))


def test_check_names_stage_column_wanted_and_found() -> None:
    assert check([Length()], HAVE).names == ["url", "length"]
    with pytest.raises(SchemaError, match="Length needs column 'url', which nothing before it adds; did you mean 'urls'"):
        check([Length()], pa.schema([("urls", pa.string())]))
    with pytest.raises(SchemaError, match="Length needs 'url' as string, found int32"):
        check([Length()], pa.schema([("url", pa.int32())]))
    with pytest.raises(SchemaError, match="a second time"):
        check([Length(), Length()], HAVE)


def test_identity_follows_version_and_settings_and_fingerprints_do_not_run_together() -> None:
    assert Length().identity() == Length().identity()
    assert len({Length().identity(), Length(version=2).identity(), Length("late").identity()}) == 3
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
