"""All that the fault server can say, by the first word of the path; `/f/<kind>/…` takes its kinds from here too."""

from __future__ import annotations

import asyncio

from tests.web.bodies import picture, png_header
from tests.web.kinds import KINDS, busy_until, fixed, says, stall, status
from tests.web.server import Answering, FaultServer, image_answer, response


def _image(path: str) -> bytes:
    """/image/<seed>"""
    return image_answer(int(path.split("/")[2].partition(".")[0]))


def _hop(path: str) -> bytes:
    """/hops/<left>"""
    left = int(path.split("/")[2])
    return image_answer(9) if left == 0 else response(b"", f"Location: ../hops/{left - 1}", status="303 See Other")


async def _drip(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(response(b"", length=5000))
    while True:
        writer.write(b"\xff")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _slow(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.25)
    writer.write(_image(path))


async def _status(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    """/status/<code>"""
    await status(f"{path[-3:]} Status")(server, path, writer)


async def _recovers(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    """/recovers/<failures>/<status>/<seed>"""
    _, _, failures, code, seed = path.split("/")
    if server.count(path) <= int(failures):
        writer.write(response(b"later", status=f"{code} Later"))
    else:
        writer.write(image_answer(int(seed)))


ANSWERS: dict[str, Answering] = {name: kind.answer for name, kind in KINDS.items()} | {
    "429_second": status("429 Slow down", "Retry-After: 1"),
    "503_soon": busy_until(2),
    "image": fixed(_image),
    "png": says(lambda: picture(5, kind="PNG")),
    "gif": says(lambda: picture(6, kind="GIF")),
    "small": says(lambda: picture(7, 120, 90)),
    "huge-header": says(lambda: png_header(30_000, 20_000)),
    "html.jpg": KINDS["html_200"].answer,
    "cut-body": KINDS["fin_mid_50"].answer,
    "cut-quietly": KINDS["fin_mid_untold_50"].answer,
    "cut-chunked": KINDS["fin_mid_chunked_50"].answer,
    "length-huge": KINDS["cl_huge"].answer,
    "length-negative": KINDS["cl_negative"].answer,
    "length-twice": KINDS["cl_twice"].answer,
    "length-short": KINDS["cl_short"].answer,
    "not-http": KINDS["not_http"].answer,
    "header-huge": says(b"x", "X-Long: " + "a" * 200_000),
    "loop": KINDS["redirect_loop"].answer,
    "hops": fixed(_hop),
    "to-file": KINDS["redirect_file"].answer,
    "to-private": KINDS["redirect_private"].answer,
    "to-userinfo": KINDS["redirect_userinfo"].answer,
    "to-nowhere": KINDS["redirect_no_location"].answer,
    "status": _status,
    "missing-noindex": status("404 Missing", "X-Robots-Tag: noindex"),
    "busy-noai": KINDS["noai_on_503"].answer,
    "wait-long": KINDS["429_hour"].answer,
    "to-nonsense": says(b"", "Location: http://[::1/x", status="302 Found"),
    "opt-out-plain": says(lambda: picture(1), "X-Robots-Tag: all", "X-Robots-Tag: NoAI", "Content-Type: image/jpeg"),
    "opt-out": says(lambda: picture(1), "X-Robots-Tag: all", "x-robots-tag: NoAI, max-snippet: -1", "Content-Type: image/jpeg"),
    "tdm": KINDS["tdm_reservation"].answer,
    "drip": _drip,
    "slow": _slow,
    "stall": stall,
    "endless": KINDS["chunk_endless"].answer,
    "reset-before": KINDS["reset_before"].answer,
    "reset-mid": KINDS["reset_mid_50"].answer,
    "recovers": _recovers,
}  # fmt: skip
