"""A small web server on hundreds of loopback addresses, for well-behaved and for misbehaving URLs.

It runs as a process of its own (`python -m curate.demo.server CORPUS... --log FILE`) and ends when its standard input
closes, so it never outlives whoever started it. What it does is a function of the URL alone, but for answers with a
`first_status`, where it counts attempts. Every request is one line of the log: seconds, host, status, path.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from curate.demo.behaviours import BEHAVIOURS, Exchange
from curate.demo.corpus import Answer, Corpus
from curate.demo.settings import ServerSettings
from curate.errors import LocalFault


@dataclass(frozen=True)
class Request:
    """One line of the request log."""

    seconds: float
    host: str
    status: int
    path: str


@dataclass(frozen=True)
class Address:
    """Where the server listens: `hosts` loopback addresses, one port."""

    hosts: int
    port: int

    def url(self, address: str) -> str:
        """The URL of a path, on the host that its hash names; a whole URL stays as it is."""
        if not address.startswith("/"):
            return address
        digest = hashlib.sha256(unquote(address).encode()).digest()
        return f"http://{host_name(int.from_bytes(digest[:4], 'big') % self.hosts)}:{self.port}{address}"


def host_name(number: int) -> str:
    """The loopback address of host `number`: 127.1.0.1, 127.1.0.2, …, 250 in each block."""
    block, last = divmod(number, 250)
    return f"127.{1 + block // 250}.{block % 250}.{1 + last}"


def read_log(path: Path) -> list[Request]:
    """All requests so far, in the order of their arrival."""
    lines = (line.split("\t", 3) for line in path.read_text(encoding="utf-8").splitlines())
    return [Request(float(seconds), host, int(status), target) for seconds, host, status, target in lines]


class Server:
    """Runs the server for the length of a `with` block; attributes are valid inside it.

    `log` is appended to. Raises LocalFault when the port is taken or the machine has no 127.0.0.0/8.
    """

    def __init__(self, corpora: Sequence[Corpus] | Corpus, log: Path, settings: ServerSettings | None = None) -> None:
        self.corpora = [corpora] if isinstance(corpora, Corpus) else list(corpora)
        self.log = log
        self.settings = settings or ServerSettings()

    def __enter__(self) -> Server:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        package_parent = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH", "")]))
        arguments = [*(str(corpus.folder) for corpus in self.corpora), "--log", str(self.log)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments, "--settings", self.settings.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for the owner; the server ends when the owner does
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline() or '{"error": "the demo server did not start"}')
        if "error" in ready:
            self._stop()
            raise LocalFault(ready["error"])
        self.address = Address(self.settings.hosts, ready["port"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    @property
    def port(self) -> int:
        """The one port on which all hosts listen."""
        return self.address.port

    @property
    def process_id(self) -> int:
        """Of the server's process."""
        return self._process.pid

    def url(self, address: str) -> str:
        """The URL under which this server answers for a path."""
        return self.address.url(address)

    def requests(self) -> list[Request]:
        """All requests so far."""
        return read_log(self.log) if self.log.exists() else []

    def _stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class _Site:
    """Everything that the process serves."""

    corpora: Sequence[Corpus]
    settings: ServerSettings
    log_file: int
    address: Address = Address(1, 0)
    _answers: dict[str, tuple[Answer, int]] = field(default_factory=dict)
    _attempts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._bodies = [corpus.bodies() for corpus in self.corpora]
        for number, corpus in enumerate(self.corpora):
            self._answers |= {path: (answer, number) for path, answer in corpus.answers().items()}
        self._corpus_of = {id(answer): number for answer, number in self._answers.values()}

    def body(self, answer: Answer) -> bytes:
        """The bytes that belong to an answer of one of the corpora."""
        if not answer.size_bytes:
            return b""
        return bytes(self._bodies[self._corpus_of[id(answer)]][answer.offset : answer.offset + answer.size_bytes])

    def answer(self, path: str) -> Answer:
        """What to do for a path now; counts the attempt where the first one is to fail."""
        answer, _ = self._answers.get(path, (_NOT_FOUND, 0))
        if not (answer.first_status and self.settings.count_attempts):
            return answer
        self._attempts[path] += 1
        return answer if self._attempts[path] > 1 else Answer(status=answer.first_status, headers=(("Retry-After", "1"),))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        host = writer.get_extra_info("sockname")[0]
        try:
            while await self._exchange(host, await reader.readuntil(b"\r\n\r\n"), writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client left, which is its right, or the server is being closed under a slow answer
        finally:
            writer.close()

    async def _exchange(self, host: str, head: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection stays open."""
        method, _, rest = head.decode("latin-1").partition(" ")
        target = rest.partition(" ")[0]
        answer = self.answer(unquote(target)) if method in ("GET", "HEAD") else _NOT_ALLOWED
        keep_alive = b"connection: close" not in head.lower()
        exchange = Exchange(writer, answer, self.body(answer), method == "GET", keep_alive, self.address.url, self.settings)
        self._write_log(host, answer, target)
        await BEHAVIOURS[answer.behaviour](exchange)
        return exchange.keep_alive

    def _write_log(self, host: str, answer: Answer, target: str) -> None:
        os.write(self.log_file, f"{time.time():.4f}\t{host}\t{answer.status}\t{target}\n".encode())


_NOT_FOUND = Answer(status=404)
_NOT_ALLOWED = Answer(status=405)


def listen(hosts: int, port: int) -> list[socket.socket]:
    """One listening socket per host, all on the same port; port 0 takes one that is free on all of them.

    Raises LocalFault when the port is taken or an address cannot be had.
    """
    for _ in range(20):
        first = _bound(host_name(0), port)
        sockets = [first]
        try:
            sockets += [_bound(host_name(number), first.getsockname()[1]) for number in range(1, hosts)]
            return sockets
        except LocalFault:
            for opened in sockets:
                opened.close()
            if port:
                raise
    raise LocalFault(f"no port is free on all {hosts} loopback addresses")


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise LocalFault(f"cannot listen on {host}:{port} ({error.strerror}); the demo needs 127.0.0.0/8 and a free port") from None
    made.setblocking(False)
    return made


async def _run(site: _Site, sockets: Iterable[socket.socket]) -> None:
    servers = [await asyncio.start_server(site.serve, sock=opened, backlog=256) for opened in sockets]
    print(json.dumps({"port": site.address.port}), flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, functools.partial(sys.stdin.buffer.read))
    for server in servers:
        server.close()


def _raise_file_limit() -> None:
    """Four hundred listening sockets and their connections may pass the usual limit of 1,024 open files."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the server's process."""
    parser = argparse.ArgumentParser(prog="curate.demo.server", description=__doc__)
    parser.add_argument("corpora", nargs="+", type=Path)
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--settings", default="{}")
    options = parser.parse_args(arguments)
    settings = ServerSettings.model_validate_json(options.settings)
    _raise_file_limit()
    try:
        sockets = listen(settings.hosts, settings.port)
    except LocalFault as error:
        print(json.dumps({"error": str(error)}), flush=True)
        raise SystemExit(error.exit_code) from None
    log_file = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    address = Address(settings.hosts, sockets[0].getsockname()[1])
    asyncio.run(_run(_Site([Corpus.open(path) for path in options.corpora], settings, log_file, address), sockets))


if __name__ == "__main__":
    main()
