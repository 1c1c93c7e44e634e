"""The evidence of duplicate search (tables `pairs_<name>`) without the pairs of rows that leave."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from curate.lease import Run
from curate.store import Pool


def drop_pairs(pool: Pool, run: Run, record: pa.Table) -> None:
    """Rewrites the files that name one of the rows, on either side of a pair."""
    gone = {(line["part"], line["row"]) for line in record.select(["part", "row"]).to_pylist()}
    for table in [name for name in pool.tables() if name.startswith("pairs_")]:
        snapshot = pool.snapshot(table)
        files = []
        for file in snapshot.files:
            data = pq.read_table(snapshot.folder / file.path, partitioning=None)
            stays = [
                (line["part"], line["row"]) not in gone and (line["other_part"], line["other_row"]) not in gone for line in data.to_pylist()
            ]
            if all(stays):
                files.append(file)
            elif any(stays):
                files.append(pool.write_part(table, file.part, data.filter(pa.array(stays)), file.basis, snapshot.schema))
        run.replace_all(table, files)
