"""A worker process with two fetch stages at once: `python -m tests.fetch.polite_worker` reads settings and URL lists as JSON.

Prints the reasons of all rows, by list.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.fetch.conftest import fetch, quick


def main() -> None:
    said = json.load(sys.stdin)
    settings = quick(**said["settings"])
    with ThreadPoolExecutor(len(said["lists"])) as pool:
        lists = list(pool.map(partial(fetch, settings=settings), said["lists"]))
    print(json.dumps([[row["reason"] for row in rows] for rows in lists]))


if __name__ == "__main__":
    main()
