"""The loopback server, seen through a bare socket: each behaviour as a client meets it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from curate.demo.behaviours import BEHAVIOURS
from curate.demo.corpus import Answer, Corpus, CorpusWriter
from curate.demo.server import Address, Server, host_name
from curate.demo.settings import ServerSettings
from curate.errors import LocalFault

BODY = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("site") / "corpus"
    with CorpusWriter(folder) as writer:
        place = writer.body(BODY)
        for behaviour in BEHAVIOURS:
            writer.answer(f"/{behaviour}", Answer(behaviour, 200, (("X-Location", "/ok"),), *place))
        writer.answer("/gone", Answer("ok", 410))
        writer.answer("/flaky", Answer("ok", 200, (), *place, first_status=503))
        writer.answer("/with%20space(1).jpg", Answer("ok", 200, (), *place))
        writer.answer("/opted", Answer("ok", 200, (("X-Robots-Tag", "noai"), ("X-Robots-Tag", "noimageai")), *place))
    return Corpus.open(folder)


@pytest.fixture(scope="module")
def server(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = ServerSettings(hosts=40, drip_bytes=8, drip_seconds=0.05)
    with Server(corpus, tmp_path_factory.mktemp("log") / "requests.tsv", settings) as running:
        yield running


def connect(server: Server, path: str, method: str = "GET") -> socket.socket:
    """A connection on which `path` has been asked for."""
    parts = urlsplit(server.url(path))
    connection = socket.create_connection((parts.hostname, parts.port), timeout=5)
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    return connection


def raw(server: Server, path: str, method: str = "GET") -> tuple[bytes, bytes]:
    """Head and body as they come until the server closes."""
    with connect(server, path, method) as connection:
        data = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def test_body_arrives_whole_and_is_announced(server: Server) -> None:
    head, body = raw(server, "/ok")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"Content-Length: 10240" in head
    assert body == BODY


def test_head_has_no_body(server: Server) -> None:
    assert raw(server, "/ok", "HEAD")[1] == b""
    assert raw(server, "/ok", "POST")[0].startswith(b"HTTP/1.1 405")


def test_statuses_and_repeated_headers(server: Server) -> None:
    assert raw(server, "/gone")[0].startswith(b"HTTP/1.1 410 Gone")
    assert raw(server, "/nowhere")[0].startswith(b"HTTP/1.1 404 Not Found")
    assert raw(server, "/opted")[0].count(b"X-Robots-Tag: no") == 2


def test_quoting_of_a_path_does_not_matter(server: Server) -> None:
    assert raw(server, "/with%20space(1).jpg")[1] == BODY == raw(server, "/with%20space%281%29.jpg")[1]


def test_redirect_names_the_target_host(server: Server) -> None:
    assert f"Location: {server.url('/ok')}".encode() in raw(server, "/redirect")[0]


def test_cut_bodies_end_early(server: Server) -> None:
    head, body = raw(server, "/cut_length")
    assert b"Content-Length: 20480" in head and body == BODY
    head, body = raw(server, "/cut_chunks")
    assert b"chunked" in head and body == b"5000\r\n" + BODY
    head, body = raw(server, "/until_close")
    assert b"Content-Length" not in head and body == BODY


def test_reset_is_a_reset(server: Server) -> None:
    with connect(server, "/reset") as connection, pytest.raises(ConnectionResetError):
        while connection.recv(1 << 16):
            pass


def test_drip_sends_a_little_at_a_time(server: Server) -> None:
    with connect(server, "/drip") as connection:
        received = [connection.recv(1 << 16) for _ in range(5)]
    assert sum(map(len, received)) < 600
    assert received[-1] == BODY[24:32] or len(received[-1]) <= 16


@pytest.mark.parametrize("behaviour", ["endless", "huge_length"])
def test_endless_bodies_do_not_end(server: Server, behaviour: str) -> None:
    read_bytes = 0
    with connect(server, f"/{behaviour}") as connection:
        while read_bytes < 4 << 20:
            chunk = connection.recv(1 << 18)
            assert chunk, "the server closed"
            read_bytes += len(chunk)
    assert raw(server, "/ok")[1] == BODY  # and it serves on after the client has left


def test_malformed_answers(server: Server) -> None:
    assert not raw(server, "/garbage")[0].startswith(b"HTTP")
    assert len(raw(server, "/huge_headers")[0]) > 1_000_000


def test_recovers_on_the_second_attempt(server: Server) -> None:
    head, body = raw(server, "/flaky")
    assert head.startswith(b"HTTP/1.1 503") and b"Retry-After: 1" in head and body == b""
    assert raw(server, "/flaky")[1] == BODY == raw(server, "/flaky")[1]


def test_attempts_need_not_count(corpus: Corpus, tmp_path: Path) -> None:
    with Server(corpus, tmp_path / "log", ServerSettings(hosts=2, count_attempts=False)) as other:
        assert raw(other, "/flaky")[1] == BODY


def test_a_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url("/ok")).netloc, timeout=5)
    for _ in range(3):
        connection.request("GET", "/ok")
        opened = connection.sock
        assert connection.getresponse().read() == BODY and connection.sock is opened
    connection.close()


def test_log_has_one_line_per_request(corpus: Corpus, tmp_path: Path) -> None:
    paths = ["/ok", "/gone", "/flaky", "/flaky", "/nowhere", "/with%20space(1).jpg"]
    with Server(corpus, tmp_path / "log", ServerSettings(hosts=9)) as other:
        for path in paths:
            raw(other, path)
        seen = other.requests()
        assert [(request.status, request.path) for request in seen] == list(zip([200, 410, 503, 200, 404, 200], paths, strict=True))
        assert [request.host for request in seen] == [urlsplit(other.url(path)).hostname for path in paths]


def test_urls_spread_over_all_hosts() -> None:
    address = Address(400, 8000)
    hosts = {urlsplit(address.url(f"/{number}.jpg")).hostname for number in range(8000)}
    assert hosts == {host_name(number) for number in range(400)}
    assert address.url("file:///etc/hostname") == "file:///etc/hostname"


def test_four_hundred_hosts_answer(corpus: Corpus, tmp_path: Path) -> None:
    with Server(corpus, tmp_path / "log") as other:
        for number in (0, 249, 250, 399):
            with socket.create_connection((host_name(number), other.port), timeout=5) as connection:
                connection.sendall(b"GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n")
                assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_taken_port_is_one_line(corpus: Corpus, server: Server, tmp_path: Path) -> None:
    settings = ServerSettings(hosts=3, port=server.port)
    with pytest.raises(LocalFault, match="cannot listen on 127"), Server(corpus, tmp_path / "log", settings):
        pass


def test_server_ends_with_its_owner(corpus: Corpus, tmp_path: Path) -> None:
    with Server(corpus, tmp_path / "log", ServerSettings(hosts=2)) as other:
        process_id, port = other.process_id, other.port
        os.kill(process_id, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host_name(0), port), timeout=5)
