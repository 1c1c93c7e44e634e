"""The pool that `curate demo` leaves behind, beside what its corpus knows to be true."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import curate
from curate.demo.server import read_log

SHORT = ("fit.samples_seen=640", "train.samples_seen=640", "fetch.floor_seconds=4")
"""Models that have seen this little judge at random, and a site that drips is given up sooner; all else is the demo's own."""


@dataclass(frozen=True)
class DemoPool:
    """One finished run of `curate demo --corpus scenes --size small`."""

    path: Path

    @property
    def command(self) -> list[str]:
        """What made the pool."""
        words = [sys.executable, "-m", "curate", "demo", "--pool", str(self.path), "--corpus", "scenes", "--size", "small"]
        return [*words, *SHORT]

    @property
    def log(self) -> Path:
        """The web server's log of requests."""
        return self.path / "demo" / "server.log"

    def sql(self, select: str) -> list[dict[str, Any]]:
        """The answer to one SELECT, as one dict a line."""
        return curate.open(str(self.path)).sql(select).rows()

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """Each line of the input list that could be read: its truth, its `path`, and as `found` its line of `samples`."""
        truth = pq.read_table(self.path / "demo" / "truth.parquet").to_pylist()
        found = {line["source_row"]: line for line in self.sql("SELECT * FROM samples")}
        assert len(found) == len(truth) + 1, "the broken line is a row as well"
        return [line | {"path": path_of(line["url"]), "found": found[number]} for number, line in enumerate(truth)]

    @cached_property
    def scenes(self) -> list[dict[str, Any]]:
        """The lines of the generated corpus, without the planted trouble."""
        return [line for line in self.lines if not line["planted"]]

    @cached_property
    def troubles(self) -> dict[str, dict[str, Any]]:
        """The planted lines by kind."""
        return {line["kind"]: line for line in self.lines if line["planted"]}

    @cached_property
    def requests(self) -> Counter[str]:
        """Requests by path."""
        return Counter(request.path for request in read_log(self.log))

    def is_served(self, url: str) -> bool:
        """Whether the demo's web server would see a request for this URL."""
        port = json.loads((self.path / "documents" / "demo.json").read_text())["port"]
        return url.startswith("http://127.") and f":{port}/" in url


def path_of(url: str) -> str:
    """What follows the host; some of the URLs here cannot be parsed."""
    return "/" + url.split("/", 3)[-1]
