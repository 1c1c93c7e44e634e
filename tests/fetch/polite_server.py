"""A web server that keeps its own log: when each request arrived, at which address, how many were open there then.

Run as a process of its own, so that nobody's event loop delays its clock: `python -m tests.fetch.polite_server LOG`.
It prints its port. `/wait/<milliseconds>/<n>` answers with a picture after that time, `/robots.txt` allows all.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import TextIO

from tests.fetch.conftest import picture


class PoliteServer:
    """Counts and stamps on arrival; a request is open until its answer is written or its client is gone."""

    def __init__(self, log: TextIO) -> None:
        self.log = log
        self.open: Counter[str] = Counter()
        self.body = picture(1, 64, 48)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head.split(b" ")[1].decode(), address, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open[address] += 1
        self.log.write(json.dumps({"time": time.monotonic(), "address": address, "path": path, "open": self.open[address]}) + "\n")
        self.log.flush()
        try:
            words = path.split("/")
            if words[1] == "wait" and not await self._waited(float(words[2]) / 1000, reader):
                return
            known = words[1] in ("wait", "robots.txt")
            body = self.body if words[1] == "wait" else b"User-agent: *\nDisallow:\n"
            head = f"HTTP/1.1 {'200 OK' if known else '404 No'}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
        finally:
            self.open[address] -= 1

    async def _waited(self, seconds: float, reader: asyncio.StreamReader) -> bool:
        """False when the client left meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await reader.read(1)
        except TimeoutError:
            return True
        return False


async def main(path: str) -> None:
    with open(path, "w") as log:
        server = await asyncio.start_server(PoliteServer(log).serve, "0.0.0.0", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
