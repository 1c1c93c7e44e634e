"""The table of faults: how each kind answers, which reason it ends in, and how many requests that takes.

`/f/<kind>/99/<seed>` never gets better; `/f/<kind>/1/<seed>` serves image `seed` from the second request on.
Reasons and requests are those for `client.settings()`: 3 attempts, a floor of 4,000 bytes in each second.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import functools
import gzip
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zstandard

from tests.web import bodies
from tests.web.server import Answering, FaultServer, image_answer, reset, response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GZIP_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
UNTOLD = b"HTTP/1.0 200 OK\r\n\r\n"  # no length: the end of the connection is the end of the body


@dataclass(frozen=True)
class Kind:
    """One fault: what it answers, and what has to become of a URL that never gets better.

    `requests` counts redirects too, `attempts` does not. `recovers` says that a later attempt of the same run may
    succeed; `slow` that the answer takes until a deadline.
    """

    answer: Answering
    reason: str | None
    requests: int = 1
    attempts: int = 0
    slow: bool = False

    @property
    def recovers(self) -> bool:
        return self.reason is not None and self.tries > 1

    @property
    def tries(self) -> int:
        return self.attempts or self.requests


def fixed(make: Callable[[str], bytes]) -> Answering:
    """An answer that is just bytes of the path."""

    async def answer(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(make(path))

    return answer


def says(body: bytes | Callable[[], bytes], *headers: str, status: str = "200 OK", length: int | None = None) -> Answering:
    """A whole response, made when it is first asked for."""
    return fixed(functools.cache(lambda path: response(body() if callable(body) else body, *headers, status=status, length=length)))


def status(line: str, *headers: str) -> Answering:
    """An answer without an image."""
    return says(b"" if line[:3] in ("204", "304") else b"no", *headers, status=line)


def redirect(target: str, code: int = 302) -> Answering:
    """A redirect; `{path}` in the target stands for the path that was asked for."""
    return fixed(lambda path: response(b"", f"Location: {target.replace('{path}', path)}", status=f"{code} Moved"))


def repeating(start: bytes, again: bytes | Iterator[bytes], seconds: float = 0.0) -> Answering:
    """Sends `start`, then the same again and again, a pause between."""

    async def answer(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for piece in itertools.repeat(again) if isinstance(again, bytes) else again:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(seconds)

    return answer


def drip(rate_bytes: int, start: bytes | None = None, step_seconds: float = 0.05) -> Answering:
    """The image at so many bytes per second."""
    body = bodies.picture(1)
    step = max(1, int(rate_bytes * step_seconds))

    async def answer(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"", length=len(body)) if start is None else start)
        for position in range(0, len(body), step):
            writer.write(body[position : position + step])
            await writer.drain()
            await asyncio.sleep(step_seconds)

    return answer


def breaks(start: bytes, rest: bytes, percent: int, with_reset: bool) -> Answering:
    """Sends part of the body, then FIN or RST."""

    async def answer(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(start + bodies.cut(rest, percent))
        await writer.drain()
        if with_reset:
            await asyncio.sleep(0.05)
            reset(writer)

    return answer


def later(first: bytes, second: bytes) -> Answering:
    """Sends two pieces that do not arrive together."""

    async def answer(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(second)
        await writer.drain()
        await asyncio.sleep(0.1)

    return answer


def told(percent: int, with_reset: bool = False) -> Answering:
    """Breaks off inside a body of announced length."""
    return breaks(response(b"", length=len(bodies.picture(1))), bodies.picture(1), percent, with_reset)


def untold(percent: int) -> Answering:
    """Breaks off inside a body that ends with its connection."""
    return breaks(UNTOLD, bodies.picture(1), percent, False)


def chunked(percent: int) -> Answering:
    """Breaks off inside chunks, before the last one."""
    body = bodies.picture(1)
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 900]), body[at : at + 900]) for at in range(0, len(body), 900))
    return breaks(CHUNKED, pieces, percent, False)


async def stall(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""
    await asyncio.sleep(60)


async def stall_mid(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    """Says half and no more."""
    body = bodies.picture(1)
    writer.write(response(body[:4000], length=len(body)))
    await asyncio.sleep(60)


async def reset_before(server: FaultServer, path: str, writer: asyncio.StreamWriter) -> None:
    """RST instead of an answer."""
    reset(writer)


def busy_until(seconds: int) -> Answering:
    """503 with a Retry-After that names a moment so many seconds away."""

    def make(path: str) -> bytes:
        moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        return response(b"no", f"Retry-After: {email.utils.format_datetime(moment, usegmt=True)}", status="503 Busy")

    return fixed(make)


def swapped(path: str) -> bytes:
    """Another picture than the one the list was made from."""
    return image_answer(int(path.split("/")[4]) + 1000)


def hop(path: str) -> bytes:
    """/f/redirect_<n>/99/<seed>?<left> goes on until nothing is left."""
    start, _, left = path.partition("?")
    steps = int(left or start.split("/")[2].rpartition("_")[2])
    return image_answer(9) if steps == 0 else response(b"", f"Location: {start.rpartition('/')[2]}?{steps - 1}", status="303 See Other")


def ping_pong(path: str) -> bytes:
    """Two addresses that name each other."""
    return response(b"", f"Location: {path[:-2] if path.endswith('?b') else path + '?b'}", status="307 Over there")


def tiny(kind: str = "PNG") -> Callable[[], bytes]:
    """A picture of one pixel."""
    return lambda: bodies.picture(3, 1, 1, kind)


BOMB = 32 << 20
COOKIES = [f"Set-Cookie: c{number}=v{number}; Path=/" for number in range(100)]
ENDLESS = bytes(0x10000)
IMAGE_HEADERS = ("Content-Type: image/jpeg",)

BROKEN = {
    "ok": Kind(fixed(lambda path: image_answer(2)), None),
    "reset_before": Kind(reset_before, "connection_reset", 3),
    "fin_before": Kind(fixed(lambda path: b""), "connection_reset", 3),
    **{f"reset_mid_{p}": Kind(told(p, True), "connection_reset", 3) for p in (1, 50, 99)},
    **{f"fin_mid_{p}": Kind(told(p), "truncated", 3) for p in (1, 50, 99)},
    **{f"fin_mid_untold_{p}": Kind(untold(p), "decode_truncated") for p in (1, 50, 99)},
    **{f"fin_mid_chunked_{p}": Kind(chunked(p), "truncated", 3) for p in (1, 50, 99)},
    "chunked_no_last": Kind(chunked(100), "truncated", 3),
    "stall_before": Kind(stall, "timeout_total", slow=True),
    "stall_mid": Kind(stall_mid, "too_slow", slow=True),
    "drip_below_floor": Kind(drip(1000), "too_slow", slow=True),
    "drip_single_bytes": Kind(drip(20), "too_slow", slow=True),
    "drip_above_floor": Kind(repeating(response(b"", length=1 << 19), bytes(900), 0.05), "timeout_total", slow=True),
    "drip_chunked": Kind(repeating(CHUNKED, b"1\r\n\xff\r\n", 0.05), "too_slow", slow=True),
    "header_drip": Kind(repeating(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"a", 0.05), "timeout_total", slow=True),
    "status_drip": Kind(repeating(b"HTTP/1.1 200 ", b"O", 0.05), "timeout_total", slow=True),
    "headers_endless": Kind(repeating(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 400), "bad_response"),
    "continue_endless": Kind(repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, 0.01), "bad_response"),  # all heads together have a cap
    "hints_endless": Kind(repeating(b"", (b"HTTP/1.1 103 Hints\r\n" + b"X: y\r\n" * 60 + b"\r\n") * 10, 0.01), "bad_response"),
    "blank_lines_endless": Kind(repeating(b"", b"\r\n" * 100, 0.01), "bad_response"),
    "early_hints": Kind(fixed(lambda path: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + image_answer(8)), None),
    "switching": Kind(fixed(lambda path: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "http_status"),
}  # fmt: skip

LENGTHS = {
    "cl_short": Kind(says(lambda: bodies.picture(1), length=2500), "decode_truncated"),  # what follows the announced bytes is not read
    "cl_long": Kind(says(lambda: bodies.picture(1), length=50_000), "truncated", 3),
    "cl_huge": Kind(says(b"x", length=10 << 30), "too_large"),
    "cl_beyond_64_bits": Kind(says(b"x", length=1 << 70), "bad_response"),
    "cl_negative": Kind(says(b"x", length=-5), "bad_response"),
    "cl_text": Kind(says(b"", "Content-Length: many"), "bad_response"),
    "cl_twice": Kind(says(b"abc", "Content-Length: 7"), "bad_response"),
    "cl_and_te": Kind(says(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), "bad_response"),
    "te_unknown": Kind(fixed(lambda path: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"), "bad_response"),
    "te_gzip_chunked": Kind(fixed(lambda path: GZIP_CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"), "bad_response"),
    "chunk_size_wrong": Kind(fixed(lambda path: CHUNKED + b"zz\r\nabc\r\n"), "bad_response"),
    "chunk_size_huge": Kind(fixed(lambda path: CHUNKED + b"f" * 16 + b"0\r\nabc\r\n"), "bad_response"),
    "chunk_size_wrong_later": Kind(later(CHUNKED + b"1\r\nx\r\n", b"zz\r\nabc\r\n"), "bad_response"),
    "chunk_size_huge_later": Kind(later(CHUNKED + b"1\r\nx\r\n", b"f" * 17 + b"\r\nabc"), "bad_response"),
    "chunk_too_long_later": Kind(later(CHUNKED + b"1\r\nx\r\n", b"3\r\nabcdef\r\n"), "bad_response"),
    "trailers_later": Kind(later(CHUNKED + b"1\r\nx\r\n", b"0\r\n" + b"X: y\r\n" * 5000), "bad_response"),
    "trailer_long_later": Kind(later(CHUNKED + b"1\r\nx\r\n", b"0\r\nX: " + b"y" * 500_000), "bad_response"),
    "cl_short_later": Kind(later(response(bodies.picture(1)[:2500], length=2500), bodies.picture(1)[2500:]), "decode_truncated"),
    "chunk_tiny_endless": Kind(repeating(CHUNKED, b"1\r\nx\r\n" * 500, 0.01), "timeout_total", slow=True),
    "chunk_endless": Kind(repeating(CHUNKED, b"10000\r\n" + ENDLESS + b"\r\n"), "too_large"),
    "chunk_extension_endless": Kind(repeating(CHUNKED + b"1;", b"a" * 0x4000), "bad_response"),
    "trailers_endless": Kind(repeating(CHUNKED + b"1\r\nx\r\n0\r\n", b"X-More: and more\r\n" * 400), "bad_response"),
    "no_length": Kind(fixed(lambda path: UNTOLD + bodies.picture(1)), None),
    "no_length_endless": Kind(repeating(UNTOLD, ENDLESS), "too_large"),
    "empty": Kind(says(b""), "empty_body"),
    "empty_chunked": Kind(fixed(lambda path: CHUNKED + b"0\r\n\r\n"), "empty_body"),
}  # fmt: skip

ENCODED = {
    "gzip": Kind(says(lambda: gzip.compress(bodies.picture(1)), "Content-Encoding: gzip"), "encoding_refused"),
    "gzip_bomb": Kind(says(lambda: gzip.compress(bytes(BOMB)), "Content-Encoding: gzip"), "encoding_refused"),
    "gzip_twice": Kind(says(lambda: gzip.compress(gzip.compress(bytes(BOMB))), "Content-Encoding: gzip, gzip"), "encoding_refused"),
    "gzip_two_lines": Kind(says(lambda: bodies.picture(1), "Content-Encoding: identity", "Content-Encoding: gzip"), "encoding_refused"),
    "deflate_bomb": Kind(says(lambda: bodies.zeros(BOMB), "Content-Encoding: deflate"), "encoding_refused"),
    "zstd_bomb": Kind(says(lambda: zstandard.compress(bytes(BOMB)), "Content-Encoding: zstd"), "encoding_refused"),
    "br_bomb": Kind(says(b"\x0b\xff\xff\x80" + bytes(500), "Content-Encoding: br"), "encoding_refused"),
    "gzip_unlabelled": Kind(says(lambda: gzip.compress(bytes(BOMB)), *IMAGE_HEADERS), "not_an_image"),
    "identity": Kind(says(lambda: bodies.picture(1), "Content-Encoding: Identity"), None),
    "gzip_transfer": Kind(says(lambda: gzip.compress(bytes(BOMB)), "Transfer-Encoding: gzip, chunked"), "bad_response"),
}  # fmt: skip

HEADERS = {
    "headers_10000": Kind(says(lambda: bodies.picture(1), *(f"X-{n}: v" for n in range(10_000))), "bad_response"),
    "header_10_mib": Kind(says(lambda: bodies.picture(1), "X-Long: " + "a" * (10 << 20)), "bad_response"),
    "header_name_long": Kind(says(lambda: bodies.picture(1), "a" * (1 << 20) + ": 1"), "bad_response"),
    "cookies_100": Kind(says(lambda: bodies.picture(1), *COOKIES), None),
    "header_bytes": Kind(fixed(lambda path: response(bodies.picture(1), "X-Odd: \xe9\xff\x80", "Content-Type: image/\xfcx")), None),
    "header_nul": Kind(fixed(lambda path: response(bodies.picture(1), "X-Odd: a\x00b")), "bad_response"),
    "header_folded": Kind(fixed(lambda path: response(bodies.picture(1), "X-Odd: a\r\n b")), None),
    "status_long": Kind(says(lambda: bodies.picture(1), status="200 " + "OK" * (1 << 19)), "bad_response"),
    "status_999": Kind(status("999 Denied"), "http_status"),
    "status_text": Kind(says(b"", status="abc OK"), "bad_response"),
    "not_http": Kind(fixed(lambda path: b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "bad_response"),
    "http_0_9": Kind(fixed(lambda path: bodies.picture(1)), "bad_response"),
    "http_2_preface": Kind(fixed(lambda path: b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0d" * 9), "bad_response"),
    "icy": Kind(fixed(lambda path: b"ICY 200 OK\r\n\r\n" + bodies.picture(1)), "bad_response"),
}  # fmt: skip

STATUSES = {
    **{str(code): Kind(status(f"{code} No"), "http_not_found") for code in (404, 410)},
    **{str(code): Kind(status(f"{code} No"), "http_forbidden") for code in (401, 403, 451)},
    **{str(code): Kind(status(f"{code} Odd"), "http_status") for code in (204, 206, 304, 305, 400, 406, 418)},
    **{str(code): Kind(status(f"{code} Later"), "http_status", 3) for code in (408, 425)},
    **{str(code): Kind(status(f"{code} Later"), "http_server_error", 3) for code in (500, 502, 503, 504, 522)},
    "429": Kind(status("429 Slow down"), "http_rate_limited", 3),
    "429_seconds": Kind(status("429 Slow down", "Retry-After: 0"), "http_rate_limited", 3),
    "429_hour": Kind(status("429 Slow down", "Retry-After: 3600"), "http_rate_limited"),
    "429_nonsense": Kind(status("429 Slow down", "Retry-After: soon"), "http_rate_limited", 3),
    "503_date": Kind(busy_until(3600), "http_server_error"),
    "503_past_date": Kind(busy_until(-60), "http_server_error", 3),
    "500_endless_body": Kind(repeating(b"HTTP/1.1 500 Oops\r\n\r\n", ENDLESS), "http_server_error", 3),
    "404_image": Kind(says(lambda: bodies.picture(1), *IMAGE_HEADERS, status="404 Missing"), "http_not_found"),
}  # fmt: skip

REDIRECTS = {
    "redirect_loop": Kind(redirect("{path}"), "too_many_redirects", 6, 1),
    "redirect_ping_pong": Kind(fixed(ping_pong), "too_many_redirects", 6, 1),
    "redirect_5": Kind(fixed(hop), None, 6, 1),
    "redirect_6": Kind(fixed(hop), "too_many_redirects", 6, 1),
    "redirect_1000": Kind(fixed(hop), "too_many_redirects", 6, 1),
    "redirect_private": Kind(redirect("http://169.254.169.254/latest/meta-data", 301), "blocked_address"),
    "redirect_private_v6": Kind(redirect("http://[fd00:ec2::254]/", 308), "blocked_address"),
    "redirect_file": Kind(redirect("file:///etc/hostname"), "bad_scheme"),
    "redirect_ftp": Kind(redirect("ftp://127.0.0.1/x"), "bad_scheme"),
    "redirect_data": Kind(redirect("data:image/png;base64,AA"), "bad_scheme"),
    "redirect_userinfo": Kind(redirect("http://a:b@127.0.0.1/x"), "bad_url"),
    "redirect_backslash": Kind(redirect("http:\\\\127.0.0.1\\x"), "bad_url"),
    "redirect_port": Kind(redirect("http://127.0.0.1:99999/"), "bad_url"),
    "redirect_bracket": Kind(redirect("http://[::1/"), "bad_url"),
    "redirect_long": Kind(redirect("/" + "x" * 20_000), "bad_url"),
    "redirect_empty": Kind(redirect(""), "too_many_redirects", 6, 1),
    "redirect_no_location": Kind(status("302 Found"), "http_status"),
    "redirect_endless_body": Kind(repeating(b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", ENDLESS), "blocked_address"),
    "refresh": Kind(says(b"<html>", "Refresh: 0; url=http://127.0.0.1/x"), "not_an_image"),
}  # fmt: skip

FILES = {
    "html_200": Kind(says(b"<html><body>gone</body></html>", *IMAGE_HEADERS), "not_an_image"),
    "svg": Kind(says(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://10.0.0.1/'/></svg>"), "format_not_allowed"),
    "eps": Kind(says(b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%touch /tmp/x) (w) file\n"), "format_not_allowed"),
    "tiff": Kind(says(lambda: bodies.picture(1, kind="TIFF")), "format_not_allowed"),
    "bmp": Kind(says(lambda: bodies.picture(1, kind="BMP")), "format_not_allowed"),
    "pdf": Kind(says(b"%PDF-1.7\n1 0 obj"), "not_an_image"),
    "mp4": Kind(says(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(99)), "not_an_image"),
    "zip": Kind(says(bodies.archive), "not_an_image"),
    "gifar": Kind(says(lambda: bodies.picture(6, kind="GIF") + bodies.archive()), None),
    "wrong_mime": Kind(says(lambda: bodies.picture(5, kind="PNG"), *IMAGE_HEADERS), None),
    "text_plain": Kind(says(lambda: bodies.picture(5), "Content-Type: text/plain"), None),
    "one_pixel": Kind(says(tiny(), "Content-Type: image/png"), None),
    "png_header_bomb": Kind(says(lambda: bodies.png_header(65_500, 65_500)), "too_many_pixels"),
    "png_bomb": Kind(says(lambda: bodies.png_bomb(16_000)), "too_many_pixels"),
    "png_long_side": Kind(says(lambda: bodies.png_header(2_000_000, 1)), "too_many_pixels"),
    "webp_bomb": Kind(says(bodies.webp_bomb), "too_many_pixels"),
    "gif_frames": Kind(says(lambda: bodies.gif_frames(100_000)), None),
    "jpeg_scans": Kind(says(lambda: bodies.jpeg_scans(300)), None),
    "exif_bomb": Kind(says(bodies.exif_bomb), None),
    # what is not the picture is not unpacked
    "ztxt_bomb": Kind(says(lambda: bodies.png_with(b"zTXt", b"Comment\0\0" + bodies.zeros(BOMB))), None),
    "itxt_bomb": Kind(says(lambda: bodies.png_with(b"iTXt", b"XML\0\1\0\0\0" + bodies.zeros(BOMB))), None),
    "iccp_bomb": Kind(says(lambda: bodies.png_with(b"iCCP", b"ICC\0\0" + bodies.zeros(BOMB))), None),
    **{f"cut_jpeg_{p}": Kind(says(lambda p=p: bodies.cut(bodies.picture(1), p)), "decode_truncated") for p in (1, 50, 99)},
    **{f"cut_png_{p}": Kind(says(lambda p=p: bodies.cut(bodies.picture(1, kind="PNG"), p)), "decode_truncated") for p in (1, 50, 99)},
    **{f"cut_webp_{p}": Kind(says(lambda p=p: bodies.cut(bodies.picture(1, kind="WEBP"), p)), "decode_truncated") for p in (1, 50, 99)},
    **{f"cut_gif_{p}": Kind(says(lambda p=p: bodies.cut(bodies.picture(1, kind="GIF"), p)), "decode_truncated") for p in (1, 50, 90)},
    "swap_after": Kind(fixed(swapped), None),
}  # fmt: skip

# No file is known on which a decoder hangs or dies; tests.fetch.test_decoder makes it do so.

OPT_OUTS = {
    "noai": Kind(says(lambda: bodies.picture(1), "X-Robots-Tag: noai"), "opt_out"),
    "noai_mixed_case": Kind(says(lambda: bodies.picture(1), "x-robots-tag: NoImageAI"), "opt_out"),
    "noai_second_line": Kind(says(lambda: bodies.picture(1), "X-Robots-Tag: all", "X-Robots-Tag: max-snippet: -1, none"), "opt_out"),
    "noai_on_404": Kind(status("404 Missing", "X-Robots-Tag: noai"), "http_not_found"),
    "noai_on_503": Kind(status("503 Busy", "X-Robots-Tag: noai"), "opt_out"),
    "noai_endless": Kind(repeating(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\n\r\n", ENDLESS), "opt_out"),
    "tdm_reservation": Kind(says(lambda: bodies.picture(1), "TDM-Reservation: 1"), "opt_out"),
}  # fmt: skip

KINDS: dict[str, Kind] = BROKEN | LENGTHS | ENCODED | HEADERS | STATUSES | REDIRECTS | FILES | OPT_OUTS


def url(server: FaultServer, kind: str, failures: int = 99, seed: int = 1) -> str:
    """A kind's address, on a host of its own: what one kind does to its connections is no other's business."""
    number = list(KINDS).index(kind)
    return server.url(f"/f/{kind}/{failures}/{seed}", f"127.2.{number // 250}.{number % 250 + 1}")
