"""img2dataset as the backend: the real package into our tables, compared row by row with our own on the same server."""

from __future__ import annotations

import importlib.util
import io
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.errors import MissingExtra, UsageError
from curate.fetch import peer
from curate.fetch.peer import Img2datasetStage
from curate.fetch.peer_reasons import DOWNLOAD, RESIZE, reason
from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import WISH
from curate.media.tar import read
from curate.store import Pool
from tests.fetch.conftest import FaultServer, fetch, quick
from tests.fetch.test_phase import fetched, rows_file, run

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 13), reason="img2dataset cannot be imported on Python 3.13")

ALIKE = (
    "/image/1", "/image/2", "/image/3", "/small", "/png", "/hops/2", "/slow/4",
    "/status/403", "/status/404", "/status/410", "/status/429", "/status/451", "/status/500", "/missing-noindex",
    "/loop", "/to-file", "/to-nowhere", "/to-nonsense", "/opt-out-plain", "/empty",
    "/cut-body", "/cut-chunked", "/reset-before", "/reset-mid",
    "/not-http", "/header-huge",
)  # fmt: skip
UNLIKE = {
    "/html.jpg": ("not_an_image", "decode_failed"),  # OpenCV says the same of damage and of what is no image
    "/length-huge": ("too_large", "truncated"),  # no cap on bytes
    "/opt-out": ("opt_out", None),  # it takes `NoAI, max-snippet: -1` for rules of a robot called "noai, max-snippet"
    "/tdm": ("opt_out", None),  # it does not know TDM-Reservation
    "/stall": ("timeout_total", "timeout_total"),
}


def peer_rows(
    urls: list[str], settings: FetchSettings, skips: list[str | None] | None = None, batch: int = 8, wishes: list[Any] | None = None
) -> list[dict[str, Any]]:
    """Runs the img2dataset stage over the URLs; one dict of added columns per URL."""
    rows = pa.table({"url": pa.array(urls, pa.string()), "skip": pa.array(skips or [None] * len(urls), pa.string())})
    rows = rows.append_column("wish", pa.array(wishes or [None] * len(urls), WISH))
    with Img2datasetStage(settings).open() as compute:
        return [row for done in compute(iter(rows.combine_chunks().to_batches(batch))) for row in done.to_pylist()]


def psnr(one: bytes, other: bytes) -> float:
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64) for data in (one, other))
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a - b) ** 2))))


def test_both_backends_agree_row_by_row(server: FaultServer) -> None:
    settings = quick(attempts=1, total_seconds=1.5, max_bytes=1 << 20)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        urls = [*(server.url(path) for path in (*ALIKE, *UNLIKE)), refused]
        ours, theirs = fetch(urls, settings), peer_rows(urls, settings)
    told = {path: (our["reason"], their["reason"]) for path, our, their in zip((*ALIKE, *UNLIKE, "refused"), ours, theirs, strict=True)}
    assert {path: pair for path, pair in told.items() if path not in UNLIKE and pair[0] != pair[1]} == {}
    assert {path: told[path] for path in UNLIKE} == UNLIKE
    assert told["refused"] == ("connect_failed", "connect_failed")
    for our, their in zip(ours, theirs, strict=True):
        if our["reason"] is None and their["reason"] is None:
            same = ("sha256", "width", "height", "original_width", "original_height", "format")
            assert [our[name] for name in same] == [their[name] for name in same]
            assert psnr(our["image"], their["image"]) > 38
        assert their["http_status"] in (None, our["http_status"])
        assert their["attempts"] is their["latency_seconds"] is their["final_url"] is None


def test_an_opt_out_is_honoured_and_told(server: FaultServer) -> None:
    (row,) = peer_rows([server.url("/opt-out-plain")], quick(attempts=1))
    assert (row["reason"], row["signal"], row["image"], row["sha256"]) == ("opt_out", "X-Robots-Tag", None, None)
    (row,) = peer_rows([server.url("/opt-out-plain")], quick(attempts=1, opt_out=False))
    assert row["reason"] is None and row["image"]
    assert "; curate;" in server.headers["/opt-out-plain"], "it must say under which name headers may address it"


@pytest.mark.parametrize("mode", ["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"])
def test_every_resize_mode_gives_the_same_size(mode: str, server: FaultServer) -> None:
    settings = quick(image={"resize_mode": mode, "size": 100, "format": "png"})
    urls = [server.url(path) for path in ("/image/1", "/small", "/png")]
    for our, their in zip(fetch(urls, settings), peer_rows(urls, settings), strict=True):
        assert (our["width"], our["height"], their["format"]) == (their["width"], their["height"], "png")
        assert psnr(our["image"], their["image"]) > 30


def test_skipped_rows_are_not_requested_and_batches_keep_their_order(server: FaultServer) -> None:
    urls = [server.url(f"/image/{number}") for number in range(7)]
    skips: list[str | None] = [None, "bad_url", None, None, "prefilter", None, None]
    rows = peer_rows(urls, quick(), skips, batch=3)
    assert [row["reason"] for row in rows] == skips
    assert sorted(path for _, _, path in server.log) == [f"/image/{number}" for number in (0, 2, 3, 5, 6)]
    ours = fetch(urls, quick())
    assert [row["sha256"] for row in rows] == [None if skip else our["sha256"] for skip, our in zip(skips, ours, strict=True)]
    assert peer_rows(urls, quick(), ["prefilter"] * 7)[0]["reason"] == "prefilter"


def test_a_part_comes_out_in_the_same_tables(tmp_path: Path, server: FaultServer) -> None:
    pools = {name: Pool.create(tmp_path / name) for name in ("curate", "img2dataset")}
    reports = {name: run(pool, quick(attempts=1, backend=name), rows=rows_file(pool, server)) for name, pool in pools.items()}
    assert "requests" in reports["curate"].counters and "requests" not in reports["img2dataset"].counters
    ours, theirs = (fetched(pools[name], reports[name]) for name in pools)
    assert [row["reason"] for row in ours] == ["opt_out" if index == 6 else row["reason"] for index, row in enumerate(theirs)]
    (tar,) = {str(row["tar_file"]) for row in theirs if row["tar_file"]}
    assert len(dict(read(pools["img2dataset"].path / tar))) == 10
    identities = {FetchPhase(quick(backend=name)).identity() for name in pools}
    assert len(identities) == 2 and FetchPhase(quick()).identity() in identities


def test_what_it_stores_unseen_is_at_least_an_image(server: FaultServer) -> None:
    rows = peer_rows([server.url(path) for path in ("/image/1", "/png", "/html.jpg")], quick(image={"reencode": "never"}))
    assert [(row["reason"], row["format"]) for row in rows] == [(None, "jpg"), (None, "png"), ("not_an_image", None)]


def test_what_the_list_promises_of_a_file_holds(server: FaultServer) -> None:
    url, (plain,) = server.url("/image/1"), peer_rows([server.url("/image/1")], quick())
    right, wrong = {"sha256": plain["sha256"]}, {"sha256": "0" * 64}
    wishes = [right, wrong, None, {"boxes": "[[0.2, 0.2, 0.6, 0.6]]"}, {"boxes": "[]"}, {"boxes": "nonsense"}]
    rows = peer_rows([url] * 6, quick(), wishes=wishes)
    assert [row["reason"] for row in rows] == [None, "hash_mismatch", None, None, None, "boxes_unreadable"]
    assert [row["hash_drift"] for row in rows[:3]] == [False, True, None]
    assert [row["blurred"] for row in rows[2:5]] == [None, 1, 0]
    assert rows[4]["image"] == rows[2]["image"] != rows[3]["image"] and rows[1]["image"] is None and rows[1]["width"] is None
    assert [row["reason"] for row in peer_rows([url] * 3, quick(verify_hash="strict"), wishes=wishes[:3])] == [
        None, "hash_mismatch", "hash_missing",
    ]  # fmt: skip
    assert peer_rows([url], quick(verify_hash="off"), wishes=[wrong])[0]["hash_drift"] is True


def test_limits_have_our_reasons(server: FaultServer) -> None:
    limits = {"image_small": {"min_side": 500}, "image_aspect": {"max_aspect": 1.2}, "image_large": {"max_area": 1000}}
    for expected, limit in limits.items():
        urls = [server.url("/image/1")]
        assert [row["reason"] for row in (*peer_rows(urls, quick(image=limit)), *fetch(urls, quick(image=limit)))] == [expected] * 2


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("example.com\n")
    with pytest.raises(UsageError, match="block lists"):
        peer.require(quick(blocklists={"domains": [str(tmp_path / "domains")]}))


def test_a_row_that_it_loses_may_be_tried_again_and_a_full_disk_is_told() -> None:
    spool = peer._Spool.__new__(peer._Spool)
    spool.fault, spool._told = None, {}
    spool._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    spool.write(b"x", "0", None, {"status": "success"})
    assert isinstance(spool.fault, OSError)
    assert reason(None, None) == "local_fault"


@pytest.mark.parametrize("table", [DOWNLOAD, RESIZE])
def test_every_message_has_a_reason_of_the_list(table: tuple[tuple[str, str], ...]) -> None:
    from curate.errors import REASONS

    assert {name for _, name in table} <= set(REASONS)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("<urlopen error [Errno -2] Name or service not known>", "dns_not_found"),
        ("<urlopen error [Errno -5] No address associated with hostname>", "dns_not_found"),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", "dns_timeout"),
        ("<urlopen error timed out>", "connect_timeout"),
        ("The read operation timed out", "timeout_total"),
        ("<urlopen error [Errno 113] No route to host>", "connect_failed"),
        ("<urlopen error [Errno 24] Too many open files>", "local_fault"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)>", "tls_failed"),
        ("<urlopen error _ssl.c:989: The handshake operation timed out>", "connect_timeout"),
        ("HTTP Error 418: I'm a Teapot", "http_status"),
        ("HTTP Error 502: Bad Gateway", "http_server_error"),
        ("'ascii' codec can't encode characters in position 5-7: ordinal not in range(128)", "bad_url"),
        ("got more than 65536 bytes when reading header line", "bad_response"),
        ("", "bad_response"),
    ],
)
def test_texts_of_urllib_become_reasons(message: str, expected: str) -> None:
    assert reason("failed_to_download", message) == expected


@pytest.mark.parametrize(("missing", "error"), [("img2dataset", MissingExtra), ("imghdr", UsageError)])
def test_where_it_cannot_run_one_line_says_so(
    missing: str, error: type[UsageError], monkeypatch: pytest.MonkeyPatch, curate: Callable, tmp_path: Path
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else found(name, *rest))
    with pytest.raises(error, match="img2dataset"):
        peer.require(quick())
    (tmp_path / "list.csv").write_text("url,caption\nhttp://127.0.0.1:9/x,a\n")
    said = curate("run", "ingest", "--pool", tmp_path / "pool", f"input.path={tmp_path / 'list.csv'}", "fetch.backend=img2dataset")
    assert said.code == 2 and "img2dataset" in said.err.splitlines()[-1] and "Traceback" not in said.err


def test_a_run_warns_once_what_this_backend_does_not_have(curate: Callable, tmp_path: Path, server: FaultServer) -> None:
    (tmp_path / "list.csv").write_text(f"url,caption\n{server.url('/image/1')},a\n")
    arguments = ("--pool", tmp_path / "pool", f"input.path={tmp_path / 'list.csv'}", "engine.workers=1")
    assert curate("run", "ingest", *arguments, "--only", "plan").code == 0
    said = curate("run", "ingest", *arguments, "--only", "fetch", "fetch.backend=img2dataset")
    assert said.code == 0 and said.err.count(peer.WARNING) == 1
    assert "1 rows with an image" in said.out or "1 row" in said.out
