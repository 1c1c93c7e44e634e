"""An S3-speaking server on this machine, and a proxy before it that counts, and that fails as networks do."""

from __future__ import annotations

import collections
import http.client
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.ports import free_port

BUCKET = "pools"
KINDS = ("503", "500", "refused", "answer lost", "body torn")
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "server", "date", "expect"}


@dataclass(frozen=True)
class Traffic:
    """What passed since the last look: requests by method, (method, path) of each, bytes of bodies sent to clients, faults by kind."""

    requests: dict[str, int]
    paths: list[tuple[str, str]]
    bytes_sent: int
    failed: dict[str, int]


class Proxy:
    """A process that passes requests on to the store; it must be one of its own, since delta-rs asks while it holds the GIL."""

    def __init__(self, upstream: int) -> None:
        command = [sys.executable, "-m", "tests.s3.server", str(upstream)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self._say()['port']}"

    def _say(self, **said: object) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(said) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def traffic(self) -> Traffic:
        """What passed since the last look."""
        said = self._say()
        said.pop("port")
        return Traffic(**said)

    @contextmanager
    def failing(self, share: float, seed: int = 0) -> Iterator[None]:
        """While this lasts, so many of all requests fail, drawn by the seed."""
        self._say(share=share, seed=seed)
        try:
            yield
        finally:
            self._say(share=0.0)

    @contextmanager
    def refusing(self, status: int, code: str) -> Iterator[None]:
        """While this lasts, every request gets this answer."""
        self._say(answer=[status, code])
        try:
            yield
        finally:
            self._say(answer=None)

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class _Server(ThreadingHTTPServer):
    """The other side of a `Proxy`."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.lock = upstream, threading.Lock()
        self.share, self.draw = 0.0, random.Random(0)
        self.answer: tuple[int, str] | None = None
        self._begin()

    def _begin(self) -> None:
        self.requests, self.failed = collections.Counter[str](), collections.Counter[str]()
        self.paths, self.bytes_sent = list[tuple[str, str]](), 0

    def obey(self, said: dict[str, Any]) -> dict[str, Any]:
        """Takes new orders; tells what passed since the last."""
        with self.lock:
            told = {"requests": self.requests, "failed": self.failed, "paths": self.paths, "bytes_sent": self.bytes_sent}
            self._begin()
            self.share = said.get("share", self.share)
            self.answer = said.get("answer", self.answer)
            self.draw = random.Random(said["seed"]) if "seed" in said else self.draw
        return {**told, "port": self.server_address[1]}

    def fault(self) -> str | None:
        """What is to happen to the next request."""
        with self.lock:
            kind = self.draw.choice(KINDS) if self.draw.random() < self.share else None
            if kind:
                self.failed[kind] += 1
            return kind

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    local = threading.local()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with self.server.lock:
            self.server.requests[self.command] += 1
            self.server.paths.append((self.command, self.path))
        if self.server.answer is not None:
            return self._refuse(*self.server.answer)
        kind = self.server.fault()
        if kind in ("503", "500"):
            return self._refuse(int(kind), "SlowDown" if kind == "503" else "InternalError")
        if kind == "refused":
            return self._hang_up()
        status, headers, data = self._ask(body)
        if kind == "answer lost":
            return self._hang_up()
        self._send(status, headers, data, torn=kind == "body torn")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _any

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        for attempt in range(3):
            link = getattr(self.local, "link", None) or http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
            try:
                link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "expect"):
                        link.putheader(name, value)
                link.endheaders(body or None)
                answer = link.getresponse()
                data = answer.read()
                self.local.link = None if answer.will_close else link
                return answer.status, answer.getheaders(), data
            except (OSError, http.client.HTTPException):
                self.local.link = None
                if attempt == 2:
                    raise
        raise AssertionError

    def _send(self, status: int, headers: list[tuple[str, str]], data: bytes, torn: bool) -> None:
        self.send_response(status)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(data)))
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        sent = data[: len(data) // 2] if torn else data
        self.wfile.write(sent)
        with self.server.lock:
            self.server.bytes_sent += len(sent)
        if torn:
            self._hang_up()

    def _refuse(self, status: int, code: str) -> None:
        self._send(
            status, [("Content-Type", "application/xml")], f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), False
        )

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def store() -> Iterator[Proxy]:
    """The server and its proxy, with one bucket; this process and its children find it by their environment."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        make_bucket(port, BUCKET)
        proxy = Proxy(port)
        try:
            yield proxy
        finally:
            proxy.stop()
    finally:
        process.kill()
        process.wait()


def make_bucket(port: int, name: str) -> None:
    """A bucket, made past the proxy."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    signed = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    link.request("PUT", f"/{name}", headers={"Authorization": signed})
    assert link.getresponse().status == 200
    link.close()


def environment(proxy: Proxy) -> dict[str, str]:
    """What a client must find in its environment to use the store."""
    return {
        "AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY0001",
        "AWS_SECRET_ACCESS_KEY": "canary-secret-ZzYyXxWw0123456789", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the S3 server did not start")


if __name__ == "__main__":
    serving = _Server(int(sys.argv[1]))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    for order in sys.stdin:
        print(json.dumps(serving.obey(json.loads(order))), flush=True)
