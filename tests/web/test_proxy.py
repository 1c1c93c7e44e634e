"""A configured proxy is used for everything and told nothing; what it may be asked for is judged by the host's own text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from curate.errors import LocalFault
from curate.fetch.guard import Guard
from curate.fetch.proxy import may_be_asked_for
from curate.fetch.settings import FetchSettings
from tests.fetch.conftest import fetch, quick
from tests.web import spellings
from tests.web.server import FaultServer

HOST = "127.4.0.1"


@dataclass
class Proxy:
    """Forwards plain requests to the fault server, whatever host they name; refuses tunnels to `CONNECT` hosts as told."""

    server: FaultServer
    port: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, target, _ = head.split("\r\n")[0].split(" ")
            self.requests.append(f"{method} {target}")
            if method == "CONNECT":
                status = {"forbidden.example:443": "403 No", "down.example:443": "502 Bad Gateway"}.get(target, "200 OK")
                return writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
            path = "/" + target.removeprefix("http://").partition("/")[2]
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", self.server.port)
            inner.write(head.replace(target, path, 1).encode("latin-1"))
            writer.write(await inner_reader.read())
            inner.close()
            await writer.drain()


@pytest.fixture
def proxy(server: FaultServer, loop: asyncio.AbstractEventLoop) -> Iterator[Proxy]:
    relay = Proxy(server)

    async def listen() -> None:
        relay.port = server.listen(HOST, serve=relay.serve)

    asyncio.run_coroutine_threadsafe(listen(), loop).result()
    yield relay


def through(proxy: Proxy, **changes: object) -> FetchSettings:
    unasked = {name: False for name in ("robots", "tdm_file") if name in FetchSettings.model_fields}
    return quick(proxy=proxy.address, allow_addresses=(), **unasked, **changes)


def test_names_are_resolved_by_the_proxy_and_redirects_stay_with_it(server: FaultServer, proxy: Proxy) -> None:
    urls = [
        "http://pictures.example/image/3",
        "http://bücher.example/hops/2",
        "http://93.184.216.34/image/4",
        "http://a.example/status/404",
    ]
    assert [row["reason"] for row in fetch(urls, through(proxy))] == [None, None, None, "http_not_found"]
    assert sorted(proxy.requests) == [
        "GET http://93.184.216.34/image/4", "GET http://a.example/status/404", "GET http://pictures.example/image/3",
        "GET http://xn--bcher-kva.example/hops/0", "GET http://xn--bcher-kva.example/hops/1", "GET http://xn--bcher-kva.example/hops/2",
    ]  # fmt: skip
    assert "authorization" not in server.headers["/image/3"].lower()


def test_hosts_that_are_private_by_their_text_never_reach_the_proxy(proxy: Proxy) -> None:
    leads_elsewhere = [f"http://{name}/image/1" for name in spellings.PRIVATE_NAMES if name.endswith("example")]
    urls = [url for url in spellings.direct() if url not in leads_elsewhere and "%00." not in url and "ipv6-literal" not in url]
    rows = fetch(urls, through(proxy), batch=64)
    assert proxy.requests == []
    assert {row["reason"] for row in rows} == {"blocked_address", "bad_url", "bad_scheme"}
    assert len(urls) > 600


def test_redirects_to_private_hosts_are_not_passed_on(proxy: Proxy) -> None:
    (row,) = fetch(["http://a.example/redirect_private"], through(proxy))
    assert (row["reason"], proxy.requests) == ("blocked_address", ["GET http://a.example/redirect_private"])


def test_what_the_proxy_says_of_a_tunnel_is_the_reason(proxy: Proxy) -> None:
    rows = fetch(["https://forbidden.example/x", "https://down.example/x", "https://127.0.0.1/x"], through(proxy))
    assert [row["reason"] for row in rows] == ["http_forbidden", "http_server_error", "blocked_address"]
    assert sorted(proxy.requests) == ["CONNECT down.example:443"] * 3 + ["CONNECT forbidden.example:443"]


def test_a_proxy_that_is_down_stops_the_run_and_fails_no_row(proxy: Proxy) -> None:
    settings = through(proxy)
    shut = settings.model_copy(update={"proxy": f"http://{HOST}:9"})
    with pytest.raises(LocalFault, match="fetch.proxy"):
        fetch(["http://a.example/image/1"], shut)


@pytest.mark.parametrize(
    "address", ["https://a:1", "socks5://a:1", "a:1", "http://", "http://a", "http://u:p@a:1", "http://a:1/x", "http://a:0"]
)
def test_a_proxy_is_an_address_and_nothing_more(address: str) -> None:
    with pytest.raises(ValueError, match="proxy"):
        FetchSettings(proxy=address)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("a.example", True),
        ("A.Example.", True),
        ("xn--bcher-kva.example", True),
        ("8.8.8.8", True),
        ("[2606:4700::1111]", True),
        ("10.0.0.1", False),
        ("[::ffff:10.0.0.1]", False),
        ("10.1", False),
        ("2130706433", False),
        ("a.0x7f", False),
        ("a.example.1", False),
        ("localhost", False),
        ("a.localhost", False),
        ("printer.local", False),
        ("intranet", False),
        ("metadata.google.internal", False),
        ("127%2e0%2e0%2e1", False),
        ("a..example", False),
        ("", False),
    ],
)
def test_hosts_a_proxy_may_be_asked_for(host: str, allowed: bool) -> None:
    assert may_be_asked_for(host, Guard()) is allowed
