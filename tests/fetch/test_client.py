"""Every way in which a server can answer ends in its reason, after the right number of requests."""

from __future__ import annotations

import hashlib
import time

import pytest

from curate.errors import REASONS
from tests.fetch.conftest import FaultServer, fetch, picture, quick

# path, reason, requests the server sees
ANSWERS = [
    ("/image/3", None, 1),
    ("/png", None, 1),
    ("/gif", None, 1),
    ("/hops/5", None, 1),
    ("/recovers/1/503/4", None, 2),
    ("/recovers/2/429/4", None, 3),
    ("/recovers/2/408/5", None, 3),
    ("/recovers/2/425/6", None, 3),
    ("/recovers/3/503/4", "http_server_error", 3),
    ("/status/404", "http_not_found", 1),
    ("/status/410", "http_not_found", 1),
    ("/status/401", "http_forbidden", 1),
    ("/status/403", "http_forbidden", 1),
    ("/status/451", "http_forbidden", 1),
    ("/status/418", "http_status", 1),
    ("/status/206", "http_status", 1),
    ("/status/204", "http_status", 1),
    ("/status/304", "http_status", 1),
    ("/status/500", "http_server_error", 3),
    ("/status/429", "http_rate_limited", 3),
    ("/wait-long", "http_rate_limited", 1),
    ("/missing-noindex", "http_not_found", 1),
    ("/busy-noai", "opt_out", 1),
    ("/opt-out", "opt_out", 1),
    ("/tdm", "opt_out", 1),
    ("/html.jpg", "not_an_image", 1),
    ("/svg", "format_not_allowed", 1),
    ("/huge-header", "too_many_pixels", 1),
    ("/empty", "empty_body", 1),
    ("/cut-body", "truncated", 3),
    ("/cut-chunked", "truncated", 3),
    ("/cut-quietly", "decode_truncated", 1),
    ("/length-huge", "too_large", 1),
    ("/length-negative", "bad_response", 1),
    ("/length-twice", "bad_response", 1),
    ("/length-short", "decode_truncated", 1),
    ("/endless", "too_large", 1),
    ("/not-http", "bad_response", 1),
    ("/header-huge", "bad_response", 1),
    ("/gzip", "encoding_refused", 1),
    ("/to-file", "bad_scheme", 1),
    ("/to-private", "blocked_address", 1),
    ("/to-userinfo", "bad_url", 1),
    ("/to-nowhere", "http_status", 1),
    ("/reset-before", "connection_reset", 3),
    ("/reset-mid", "connection_reset", 3),
]


def test_answers_end_in_their_reason_after_the_right_number_of_requests(server: FaultServer) -> None:
    results = fetch([server.url(path) for path, _, _ in ANSWERS], quick())
    found = [(path, row["reason"], server.count(path)) for (path, _, _), row in zip(ANSWERS, results, strict=True)]
    wrong = [f"{got} is not {wanted}" for got, wanted in zip(found, ANSWERS, strict=True) if got != wanted]
    assert not wrong, "; ".join(wrong)
    assert all(row["reason"] is None or row["reason"] in REASONS for row in results)
    assert all((row["image"] is None) == (row["reason"] is not None) for row in results)
    assert [row["attempts"] for row in results] == [requests for _, _, requests in ANSWERS]


def test_a_loop_of_redirects_stops_after_five(server: FaultServer) -> None:
    (row,) = fetch([server.url("/loop")], quick())
    assert (row["reason"], server.count("/loop"), row["attempts"]) == ("too_many_redirects", 6, 1)


@pytest.mark.parametrize("path", ["/drip", "/stall"])
def test_the_total_deadline_ends_servers_that_never_finish(server: FaultServer, path: str) -> None:
    started = time.monotonic()
    (row,) = fetch([server.url(path)], quick(total_seconds=0.5))
    assert (row["reason"], row["attempts"]) == ("timeout_total", 1)
    assert time.monotonic() - started < 20  # without a deadline it would be forever


def test_a_good_image_carries_its_description(server: FaultServer) -> None:
    (row,) = fetch([server.url("/hops/1")], quick())
    body = picture(9)
    assert row["http_status"] == 200
    assert row["final_url"] == server.url("/hops/0")
    assert row["content_type"] == "image/jpeg"
    assert (row["original_bytes"], row["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert (row["original_width"], row["original_height"], row["original_format"]) == (400, 300, "jpeg")
    assert (row["width"], row["height"], row["format"]) == (341, 256, "jpg")
    assert (row["image_bytes"], row["image_sha256"]) == (len(row["image"]), hashlib.sha256(row["image"]).hexdigest())
    assert row["bytes_read"] == len(body)


def test_what_is_known_of_a_failed_row_is_kept(server: FaultServer) -> None:
    html, huge, missing = fetch([server.url("/html.jpg"), server.url("/huge-header"), server.url("/status/404")], quick())
    assert (html["content_type"], html["original_bytes"], html["sha256"] is None) == ("image/jpeg", 30, False)
    assert (huge["original_width"], huge["original_height"]) == (30_000, 20_000)
    assert (missing["http_status"], missing["sha256"]) == (404, None)


def test_opt_outs_are_stored_and_their_body_is_not_read(server: FaultServer) -> None:
    (row,) = fetch([server.url("/opt-out")], quick())
    assert (row["signal"], row["signal_value"]) == ("X-Robots-Tag", "NoAI, max-snippet: -1")
    assert (row["bytes_read"], row["sha256"], row["image"]) == (0, None, None)
    (row,) = fetch([server.url("/opt-out")], quick(opt_out=False))
    assert row["reason"] is None


def test_requests_are_honest_and_carry_nothing_personal(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    (row,) = fetch([server.url("/image/1")], quick(contact="mailto:me@example.org"))
    assert row["reason"] is None
    head = server.headers["/image/1"].lower()
    assert "user-agent: curate/" in head and "contact mailto:me@example.org" in head
    assert "accept-encoding: identity" in head
    assert not any(name in head for name in ("cookie:", "referer:", "authorization:"))


def test_refused_connections_are_retried_and_named(server: FaultServer) -> None:
    (row,) = fetch(["http://127.0.0.1:1/x.jpg"], quick())
    assert (row["reason"], row["attempts"]) == ("connect_failed", 3)


def test_names_that_do_not_exist_are_final(server: FaultServer) -> None:
    (row,) = fetch(["http://no-such-host.invalid/x.jpg"], quick())
    assert row["reason"] in ("dns_not_found", "dns_timeout")  # the second where this machine has no resolver at all


def test_skipped_rows_are_copied_and_never_requested(server: FaultServer) -> None:
    rows = fetch([server.url("/image/1"), server.url("/image/2")], quick(), skips=["prefilter", None])
    assert [row["reason"] for row in rows] == ["prefilter", None]
    assert [path for _, _, path in server.log] == ["/image/2"]


def test_results_keep_the_order_of_rows_when_early_ones_are_slow(server: FaultServer) -> None:
    paths = ["/slow/1", *[f"/image/{seed}" for seed in range(2, 40)]]
    rows = fetch([server.url(path) for path in paths], quick(), batch=4)
    hashes = [hashlib.sha256(picture(seed)).hexdigest() for seed in range(1, 40)]
    assert [row["sha256"] for row in rows] == hashes
    assert len({path for _, _, path in server.log}) == 39


def test_little_room_slows_down_but_never_stops(server: FaultServer) -> None:
    settings = quick(buffer_bytes=1 << 20, rows_under_way=16, in_flight=8)
    rows = fetch([server.url(f"/image/{seed}") for seed in range(60)] + [server.url("/endless")] * 6, settings, batch=4)
    assert [row["reason"] for row in rows] == [None] * 60 + ["too_large"] * 6


def test_a_reader_that_leaves_early_stops_the_work(server: FaultServer) -> None:
    import pyarrow as pa

    from curate.fetch.stage import FetchStage

    urls = [server.url("/image/1"), server.url("/stall")]
    batches = [pa.record_batch({"url": [url], "skip": pa.array([None], pa.string())}) for url in urls]
    with FetchStage(quick(total_seconds=60.0)).open() as compute:
        results = compute(iter(batches))
        assert next(results).column("reason").to_pylist() == [None]
        results.close()
