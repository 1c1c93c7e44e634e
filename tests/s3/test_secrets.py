"""A secret that the environment holds stands in nothing that is written: not in the pool, not in a log, not in a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.objects import ObjectPath, place
from curate.parquet import read_table
from tests.conftest import Said
from tests.s3.server import Proxy, environment

SIGNATURE = "canary-signature-0123456789"


def written(folder: Path) -> dict[str, str]:
    """Everything below a folder or prefix as text; Parquet files as their values."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            inside = str(read_table(path if isinstance(path, Path) else str(path)).to_pylist()) if path.suffix == ".parquet" else ""
            found[str(path)] = path.read_bytes().decode("latin-1") + inside
    return found


def test_nothing_that_is_written_holds_the_secret(
    s3: Proxy, prefix: str, tmp_path: Path, curate: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = [value for name, value in environment(s3).items() if "KEY" in name]
    assert len(secrets) == 2
    lists = place(f"{prefix}/lists")
    urls = [f"http://127.0.0.1:9/{number}.jpg?X-Amz-Signature={SIGNATURE}" for number in range(3)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"url": urls, "caption": ["a", "b", "c"]}), sink)
    (lists / "list.parquet").write_bytes(sink.getvalue().to_pybytes())
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(logs))
    pool = f"{prefix}/pool"
    commands = [
        ["run", "ingest", "--pool", pool, f"input.path={lists}/*.parquet", "score.clip=null", "fetch.attempts=1", "engine.workers=1",
         "filter.policy=laion400m", "--only", "plan"],
        ["run", "ingest", "--pool", f"{prefix}/no-list", f"input.path={prefix}/nothing.parquet"],
        ["sql", pool, "SELECT nonsense FROM samples"], ["status", pool], ["verify", pool], ["report", pool],
        ["report", pool, "-o", str(tmp_path / "page.html")],
    ]  # fmt: skip
    said = ""
    for arguments in commands:
        done = curate(*arguments)
        said += done.out + done.err
    assert "3" in said and (tmp_path / "page.html").exists(), said
    root = place(prefix)
    assert isinstance(root, ObjectPath)
    everything = {"said": said, **written(root), **written(tmp_path)}
    assert len(everything) > 10
    for where, text in everything.items():
        assert not any(secret in text for secret in secrets), where
    shown = {where: text for where, text in everything.items() if where == "said" or where.endswith((".html", ".log"))}
    assert not any(SIGNATURE in text for text in shown.values())
