"""One fault server with all its ports, and a client process whose memory and time are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.web.ports import Ports, open_ports
from tests.web.server import FaultServer, background_loop, running


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with background_loop() as loop:
        yield loop


@pytest.fixture(scope="module")
def server(loop: asyncio.AbstractEventLoop) -> Iterator[FaultServer]:
    with running(FaultServer(), loop) as faults:
        yield faults


@pytest.fixture(scope="module")
def ports(server: FaultServer, loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    with open_ports(server, loop, tmp_path_factory.mktemp("tls")) as found:
        yield found
