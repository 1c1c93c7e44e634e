"""What a codec does to its process costs one row: crashes, hangs, hunger and attempts to get out, by real processes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import psutil
import pytest

from curate.errors import LocalFault
from curate.fetch.decoder import Decoder, Outcome
from curate.fetch.wish import Wish
from tests.fetch.conftest import picture, quick
from tests.fetch.rogue import PROGRAM

SETTINGS = quick(decode_seconds=0.2, decode_memory_bytes=512 << 20, image={"max_pixels": 1_000_000})


def running(work: Coroutine[Any, Any, Any]) -> Any:
    """Hangs no longer than a minute."""

    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


async def decode(decoder: Decoder, bodies: list[bytes]) -> list[Outcome]:
    return list(await asyncio.gather(*(decoder.outcome(body, Wish()) for body in bodies)))


def decoded(bodies: list[bytes]) -> list[Outcome]:
    """Outcomes of all bodies, asked for at once."""

    async def work() -> list[Outcome]:
        decoder = Decoder(SETTINGS, PROGRAM)
        try:
            return await decode(decoder, bodies)
        finally:
            await decoder.close()

    return list(running(work()))


def reasons(outcomes: list[Outcome]) -> list[object]:
    return [columns.get("reason") for columns, _ in outcomes]


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits to be buried."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_body_that_ends_its_process_costs_its_own_row_and_no_other() -> None:
    acts = {
        b"segfault": "decoder_crashed",
        b"exit": "decoder_crashed",
        b"raise": "decoder_crashed",
        b"spin": "decode_timeout",
        b"eat": "decode_memory",
    }
    bodies = [picture(seed) for seed in range(12)]
    outcomes = decoded([*bodies[:2], *(body for pair in zip(acts, bodies[2:7], strict=True) for body in pair), *bodies[7:]])
    bad, good = outcomes[2:12:2], outcomes[:2] + outcomes[3:13:2] + outcomes[12:]
    assert [columns for columns, _ in bad] == [{"reason": reason, "original_bytes": len(act)} for act, reason in acts.items()]
    assert [columns["sha256"] for columns, _ in good] == [hashlib.sha256(body).hexdigest() for body in bodies]
    assert [columns["image_sha256"] for columns, _ in good] == [hashlib.sha256(image or b"").hexdigest() for _, image in good]


def test_a_body_on_which_the_codec_sleeps_ends_by_the_clock() -> None:
    assert reasons(decoded([picture(1), b"sleep", picture(2)])) == [None, "decode_timeout", None]


def test_many_crashes_among_many_rows_cost_exactly_those() -> None:
    bodies = [b"segfault" if number % 20 == 7 else picture(number % 9) for number in range(200)]
    assert reasons(decoded(bodies)) == ["decoder_crashed" if number % 20 == 7 else None for number in range(200)]


def test_wishes_and_images_of_any_size_come_through() -> None:
    async def work() -> list[Outcome]:
        decoder = Decoder(SETTINGS, PROGRAM)
        wish = Wish(boxes="[" + ",".join(["[0.1,0.1,0.2,0.2]"] * 2700) + "]")
        try:
            asked = [decoder.outcome(b"segfault" if seed == 5 else picture(seed), wish) for seed in range(12)]
            return list(await asyncio.gather(*asked, decoder.outcome(b"large", Wish())))
        finally:
            await decoder.close()

    outcomes = running(work())
    assert len(outcomes[-1][1]) == 4_000_000
    found = reasons(outcomes[:-1])
    assert found[5] == "decoder_crashed" and len(set(found)) == 2


def test_the_child_cannot_open_files_or_sockets_nor_start_programs() -> None:
    ((tried, _),) = decoded([b"escape"])
    assert {"open", "create", "socket", "pipe", "fork", "exec", "rename", "unlink", "truncate", "mkdir", "chmod", "kill"} == set(tried)
    refused = {"PermissionError 1", "OSError 24"}  # EPERM of the filter, or no descriptor left
    assert set(tried.values()) <= refused, tried


def test_a_child_that_was_killed_from_outside_loses_no_row() -> None:
    async def work() -> list[Outcome]:
        decoder = Decoder(SETTINGS, PROGRAM)
        try:
            ((told, _),) = await decode(decoder, [b"pid"])
            asked = asyncio.ensure_future(decode(decoder, [picture(seed) for seed in range(20)]))
            await asyncio.sleep(0)
            os.kill(int(str(told["pid"])), signal.SIGKILL)
            return await asked
        finally:
            await decoder.close()

    assert reasons(running(work())) == [None] * 20


def test_a_keeper_that_was_killed_is_replaced_and_one_that_never_lives_stops_the_run() -> None:
    async def work() -> list[Outcome]:
        decoder = Decoder(SETTINGS, PROGRAM)
        try:
            asked = asyncio.ensure_future(decode(decoder, [picture(seed) for seed in range(20)]))
            await asyncio.sleep(0)
            decoder._keeper.kill()
            return await asked
        finally:
            await decoder.close()

    assert reasons(running(work())) == [None] * 20

    async def hopeless() -> list[Outcome]:
        decoder = Decoder(SETTINGS, ("-c", "raise SystemExit(1)"))
        try:
            return await decode(decoder, [picture(1)] * 5)
        finally:
            await decoder.close()

    with pytest.raises(LocalFault, match="decoding process"):
        running(hopeless())


def test_closing_ends_both_processes_whatever_they_are_at() -> None:
    async def work() -> tuple[int, int]:
        decoder = Decoder(SETTINGS, PROGRAM)
        ((told, _),) = await decode(decoder, [b"pid"])
        asked = asyncio.ensure_future(decode(decoder, [b"sleep"]))
        await asyncio.sleep(0.05)
        await decoder.close()
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        return decoder._keeper.pid, int(str(told["pid"]))

    assert all(gone_soon(pid) for pid in running(work()))


def gone_soon(pid: int) -> bool:
    for _ in range(500):
        if ended(pid):
            return True
        time.sleep(0.01)
    return False


_WORKER = """
import asyncio
from curate.fetch.decoder import Decoder
from curate.fetch.wish import Wish
from tests.fetch.rogue import PROGRAM
from tests.fetch.test_decoder import SETTINGS

async def work():
    decoder = Decoder(SETTINGS, PROGRAM)
    columns, _ = await decoder.outcome(b"pid", Wish())
    print(decoder._keeper.pid, columns["pid"], flush=True)
    await decoder.outcome(b"sleep", Wish())

asyncio.run(work())
"""


def test_a_worker_that_is_killed_leaves_no_process_behind() -> None:
    worker = subprocess.Popen([sys.executable, "-c", _WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    keeper, child = map(int, worker.stdout.readline().split())
    threads = psutil.Process(keeper).num_threads()
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert gone_soon(keeper) and gone_soon(child)
    assert threads == 1  # who forks has one thread
