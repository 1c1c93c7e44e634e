"""Connections that serve several requests: what one request did to them is not taken for the next one's answer or fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

reused: ContextVar[bool] = ContextVar("reused", default=False)
"""Whether the connection of the request that runs in this task was used before."""


class Connector(aiohttp.TCPConnector):
    """Notes for the running request whether its connection was used before; one with unread bytes is not used again.

    Those bytes would be an answer that nobody asked for, and be taken for the next URL's.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (found := await super()._get(key, traces)) is not None:
            if found.protocol is not None and not found.protocol.should_close:
                break
            found.close()
        reused.set(found is not None)
        return found


class MalformedBody(aiohttp.ClientPayloadError):
    """Chunks that cannot be told apart."""


@asynccontextmanager
async def ends_with_connection(response: aiohttp.ClientResponse) -> AsyncIterator[None]:
    """Ends the reading of a body of unknown length with its connection.

    Where aiohttp finds a chunk malformed, it closes the connection but leaves whoever reads the body waiting.
    """
    protocol = response.connection.protocol if response.connection and response.content_length is None else None
    closed = None if protocol is None else protocol.closed
    if closed is None:
        yield
        return

    def end(_: object) -> None:
        if not response.content.is_eof() and response.content.exception() is None:
            response.content.set_exception(MalformedBody("malformed chunks"))

    closed.add_done_callback(end)
    try:
        yield
    finally:
        closed.remove_done_callback(end)
