"""One way to read every kind of list: blocks of records, in file order, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

from curate.plan.block import Block
from curate.plan.columnar import read_parquet
from curate.plan.delimited import read_delimited, read_txt
from curate.plan.objects import read_json, read_jsonl
from curate.plan.settings import InputSettings
from curate.plan.sources import InputFile


def read_blocks(file: InputFile, settings: InputSettings) -> Iterator[Block]:
    """Every physical record of a file, readable or broken.

    Raises InputError naming the file when its bytes cannot be read to their end.
    """
    if file.format == "parquet":
        yield from read_parquet(file)
        return
    with file.unpacked() as stream:
        if file.format == "txt":
            yield from read_txt(stream, file.name)
        elif file.format == "json":
            yield from read_json(stream, file.name)
        elif file.format == "jsonl":
            yield from read_jsonl(stream, file.name)
        else:
            yield from read_delimited(stream, file.name, file.format, settings)
