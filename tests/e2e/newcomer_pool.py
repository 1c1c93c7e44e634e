"""What someone new brings along: a small web, a list of their own, and weights on disk."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.demo.corpus import Corpus
from curate.demo.server import Server
from tests.e2e.runs import HOST_FILES

ROWS = 140
LOCAL = 'fetch.allow_addresses=["127.0.0.0/8"]'
"""The README is about the public web; here the web is on this machine."""


@dataclass(frozen=True)
class Web:
    """Scenes on loopback addresses."""

    corpus: Corpus
    server: Server

    def lines(self) -> list[dict[str, str]]:
        """The rows of the corpus, with their URL."""
        return [{**line, "url": self.server.url(line["address"])} for line in self.corpus.rows().to_pylist()]

    def requested(self) -> list[str]:
        """Paths of pictures that were asked for, in order."""
        return [request.path for request in self.server.requests() if request.path not in HOST_FILES]


def odd_csv(web: Web, path: Path) -> Path:
    """A list whose columns nobody could guess: a number, a German title, the picture's address."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["nr", "titel", "bild"])
        writer.writerows([number, line["caption"], line["url"]] for number, line in enumerate(web.lines()))
    return path


def laion_parquet(web: Web, path: Path, rows: int) -> Path:
    """A list as LAION publishes it; `similarity` rises from 0 to 1, every second picture is wide enough."""
    lines = web.lines()[:rows]
    table = {
        "URL": [line["url"] for line in lines],
        "TEXT": [line["caption"] for line in lines],
        "WIDTH": pa.array([512 if number % 2 else 128 for number in range(rows)], pa.int32()),
        "HEIGHT": pa.array([512] * rows, pa.int32()),
        "similarity": [number / rows for number in range(rows)],
    }
    pq.write_table(pa.table(table), path)
    return path
