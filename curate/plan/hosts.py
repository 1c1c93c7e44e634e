"""How many rows of a list lead to each host: what says how long the politest fetch must take."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from curate.plan.portable import convert
from curate.plan.readers import read_blocks
from curate.plan.settings import InputSettings
from curate.plan.survey import Survey
from curate.progress import Progress, Silent

TASK = "plan: hosts"
MAX_HOSTS = 2_000_000  # counted at a time; then those that were seen once are forgotten
_HOST = r"^\s*(?i:https?)://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]+)"


def count_hosts(found: Survey, settings: InputSettings, progress: Progress | None = None) -> Counter[str]:
    """Rows by host, lower case, over the whole list; hosts of few rows may be missing where there are millions of them.

    Rows without a readable address count nowhere.
    """
    progress, hosts = progress or Silent(), Counter[str]()
    progress.start(TASK, found.rows, "rows")
    for file in found.files:
        for block in read_blocks(file, settings):
            column = found.mapping.of(block.columns, "url")
            if column is not None:
                hosts.update(_hosts(block.columns[column]))
            if len(hosts) > MAX_HOSTS:
                hosts = Counter({host: rows for host, rows in hosts.items() if rows > 1})
            progress.advance(TASK, block.rows, file=file.name)
    progress.finish(TASK)
    return hosts


def _hosts(urls: pa.Array) -> Counter[str]:
    """Of one block; bytes that are no text do not hide their neighbours."""
    try:
        found = pc.extract_regex(convert(urls, pa.string()).cast(pa.binary()), _HOST)
    except (pa.ArrowException, UnicodeDecodeError, ValueError):
        return Counter()  # a column of another type altogether; the plan says which rows
    hosts = Counter[str]()
    for pair in pc.value_counts(pc.struct_field(found, "host")).to_pylist():
        if pair["values"]:
            hosts[pair["values"].decode(errors="replace").lower()] += pair["counts"]
    return hosts
