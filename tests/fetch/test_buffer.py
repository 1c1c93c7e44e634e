"""What one worker holds of bodies and images is bounded, and nobody who waits for room is forgotten."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys

import pytest

from curate.fetch.buffer import UNTOLD_BYTES, ByteBudget, Room, Spill


def test_bytes_are_reserved_while_they_fit_and_one_body_always_does() -> None:
    budget = ByteBudget(100, 40)
    assert budget.reserve(50, 1000) == 50
    assert budget.reserve(30, 1000) == 0, "60 bytes are for first reservations, the rest for one body that grows"
    assert budget.reserve(5, 1000) == 5
    budget.release("a", 50)
    budget.release("b", 5)
    assert budget.used_bytes == 0
    assert budget.reserve(1000, 1000) == 1000, "alone, anything fits"


def test_a_body_of_no_bytes_holds_a_place_and_one_of_unknown_length_a_guess() -> None:
    budget = ByteBudget(64 << 20, 32 << 20)
    assert (budget.reserve(0, 1 << 20), budget.reserve(None, 1 << 20), budget.reserve(None, 32 << 20)) == (1, 1 << 20, UNTOLD_BYTES)


def test_bodies_of_unknown_length_grow_one_at_a_time() -> None:
    budget, owners = ByteBudget(64 << 20, 32 << 20), ("a", "b")
    for _ in owners:
        assert budget.reserve(None, 32 << 20)
    assert budget.grow("a", 28 << 20) and not budget.grow("b", 28 << 20)
    assert budget.used_bytes <= 64 << 20
    budget.release("a", 32 << 20)
    assert budget.grow("b", 28 << 20)
    budget.release("b", 32 << 20)
    assert budget.used_bytes == 0


@pytest.mark.parametrize("cancelled", [False, True])
def test_requests_are_let_in_one_by_one_and_not_while_bodies_fill_the_budget(cancelled: bool) -> None:
    async def work() -> list[int]:
        budget, entered = ByteBudget(100, 20), list[int]()
        room = Room(3, budget)

        async def enter(number: int) -> None:
            await room.acquire()
            entered.append(number)

        tasks = [asyncio.create_task(enter(number)) for number in range(4)]
        await asyncio.sleep(0)
        assert entered == [0, 1, 2]
        held = budget.reserve(60, 1000)
        room.release()
        await asyncio.sleep(0)
        assert entered == [0, 1, 2], "60 of 80 bytes are taken"
        if cancelled:
            tasks[3].cancel()
        budget.release("a", held)
        await asyncio.gather(*tasks, return_exceptions=True)
        room.release()
        await asyncio.wait_for(enter(4), 5)
        return entered

    assert asyncio.run(work()) == ([0, 1, 2, 4] if cancelled else [0, 1, 2, 3, 4])


def test_a_spill_on_a_full_disk_says_so_and_never_gives_half_an_image() -> None:
    code = (
        "import resource, signal\n"
        "from curate.fetch.buffer import Spill\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "spill = Spill(); spill.put(b'a' * 50)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: print(len(spill.get(spill.put(b'b' * 100))))\n"
        "except OSError as error: print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)


def test_a_spill_gives_back_what_was_put_in_any_order() -> None:
    spill = Spill()
    numbers = [spill.put(bytes([value]) * (value + 1)) for value in range(20)]
    assert [spill.get(number) for number in reversed(numbers)] == [bytes([value]) * (value + 1) for value in reversed(range(20))]
    spill.close()
    Spill().close()  # one that was never needed
