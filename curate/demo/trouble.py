"""Planted trouble: rows that misbehave in one known way each, with the reasons they must end with.

`PLANTED` is the table; `plant` writes it as a corpus of its own, served and listed beside a real one. Pictures are
drawn here, so that the corpus beside it does not matter.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from curate.demo.corpus import Answer, Corpus, CorpusWriter
from curate.demo.render import Scene, Thing, encode_jpeg, render

OK = "ok"
"""Stands among expected reasons for a row that must be fetched (its reason is null)."""

JPEG = (("Content-Type", "image/jpeg"),)


@dataclass(frozen=True)
class Trouble:
    """One planted row.

    `address` is a path, or a whole URL that must never be requested. `expected_reasons` lists what the row may end
    with, the usual one first: where two are listed, it depends on the client's limits which comes first.
    `expected_requests` counts requests for the row's own path by a client that tries retryable failures at least once
    more; None where it depends on the number of tries. `body` names one of `BODIES`. `same_url_as` marks rows that
    share another row's URL, and so its one request.
    """

    kind: str
    address: str
    expected_reasons: tuple[str, ...]
    expected_requests: int | None
    caption: str = "a picture that means trouble"
    behaviour: str = "ok"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = JPEG
    body: str = "none"
    first_status: int = 0
    same_url_as: str | None = None

    @property
    def served(self) -> bool:
        """Whether the address is a path of this server."""
        return self.address.startswith("/")


def _path(name: str) -> str:
    return f"/trouble/{name}"


def _served(kind: str, reasons: str | tuple[str, ...], requests: int | None = 1, name: str = "", **how: object) -> Trouble:
    """A row served at `/trouble/<kind>.jpg`; its caption names the kind, so that no two rows are alike."""
    expected = (reasons,) if isinstance(reasons, str) else reasons
    path = _path(name or f"{kind}.jpg")
    return Trouble(kind, path, expected, requests, f"planted trouble of the kind {kind}", **how)  # type: ignore[arg-type]


def _status(code: int, reason: str, requests: int | None = 1) -> Trouble:
    return _served(f"status_{code}", reason, requests, status=code)


def _opt_out(kind: str, *values: str) -> Trouble:
    headers = (*JPEG, *(("X-Robots-Tag", value) for value in values))
    return _served(f"opt_out_{kind}", "opt_out", headers=headers, body="picture")


def _redirect(kind: str, target: str, reasons: str | tuple[str, ...], requests: int | None = 1, status: int = 302) -> Trouble:
    return _served(kind, reasons, requests, behaviour="redirect", status=status, headers=(("X-Location", target),))


def _unserved(kind: str, address: str, reason: str) -> Trouble:
    return Trouble(kind, address, (reason,), 0, f"planted trouble of the kind {kind}")


PLANTED: tuple[Trouble, ...] = (
    # statuses
    _status(404, "http_not_found"),
    _status(410, "http_not_found"),
    _status(401, "http_forbidden"),
    _status(403, "http_forbidden"),
    _status(451, "http_forbidden"),
    _status(418, "http_status"),
    _status(503, "http_server_error", None),
    _served("recovers_from_500", OK, 2, body="picture_a", first_status=500),
    _served("recovers_from_429", OK, 2, body="picture_b", first_status=429),
    # redirects
    _redirect("redirect_once", "/hop/last.jpg", OK, status=301),
    _redirect("redirect_thrice", "/hop/first", OK, status=307),
    _redirect("redirect_loop", _path("redirect_loop.jpg"), "too_many_redirects", None),
    _redirect("redirect_long", "/hop/long/9", "too_many_redirects"),
    _redirect("redirect_to_link_local", "http://169.254.169.254/latest/meta-data/", "blocked_address"),
    _redirect("redirect_to_private", "http://10.0.0.1/picture.jpg", "blocked_address"),
    _redirect("redirect_to_file", "file:///etc/hostname", ("bad_scheme", "bad_url")),
    # connections
    _served("dripping", ("too_slow", "timeout_total"), None, behaviour="drip", body="picture"),
    _served("reset", "connection_reset", None, behaviour="reset", body="picture"),
    _served("truncated_length", "truncated", None, behaviour="cut_length", body="picture"),
    _served("truncated_chunks", ("truncated", "connection_reset"), None, behaviour="cut_chunks", body="picture"),
    _served("truncated_close", ("decode_truncated", "decode_failed"), behaviour="until_close", body="half_picture"),
    _served("complete_close", OK, behaviour="until_close", body="picture_c"),
    _served("huge_length", "too_large", behaviour="huge_length"),
    _served("endless", "too_large", behaviour="endless", body="picture"),
    _served("garbage", "bad_response", behaviour="garbage"),
    _served("huge_headers", "bad_response", behaviour="huge_headers"),
    _served("unwanted_gzip", "encoding_refused", headers=(*JPEG, ("Content-Encoding", "gzip")), body="gzip_bomb"),
    # bodies
    _served("html", "not_an_image", body="html"),
    _served("empty", "empty_body"),
    _served("text", "not_an_image", headers=(("Content-Type", "text/plain"),), body="text"),
    _served("tiff", "format_not_allowed", body="tiff"),
    _served("damaged_png", ("decode_failed", "decode_truncated"), body="damaged_png"),
    _served("bomb_png", "too_many_pixels", body="bomb_png"),
    _served("bomb_jpeg", "too_many_pixels", body="bomb_jpeg"),
    _served("bomb_gif", ("too_many_pixels", "format_not_allowed"), body="bomb_gif"),
    # opt-outs
    _opt_out("noai", "noai"),
    _opt_out("noimageai", "noimageai"),
    _opt_out("in_a_list", "noindex, NoAI , nofollow"),
    _opt_out("second_header", "all", "noimageai"),
    _opt_out("for_all_agents", "*: noai"),
    # rows that must never be requested
    _unserved("file_url", "file:///etc/hostname", "bad_scheme"),
    _unserved("ftp_url", "ftp://127.1.0.1/picture.jpg", "bad_scheme"),
    _unserved("data_url", "data:image/png;base64,iVBORw0KGgo=", "bad_scheme"),
    _unserved("link_local", "http://169.254.169.254/latest/meta-data/", "blocked_address"),
    _unserved("private_address", "http://10.11.12.13/picture.jpg", "blocked_address"),
    _unserved("mapped_address", "http://[::ffff:169.254.169.254]/picture.jpg", "blocked_address"),
    _unserved("unparseable", "http://[not-an-address/picture.jpg", "bad_url"),
    _unserved("credentials", "http://user:secret@127.1.0.1/picture.jpg", "bad_url"),
    _unserved("nothing", "", "bad_url"),
    _unserved("nobody_listens", "http://127.1.0.1:1/picture.jpg", "connect_failed"),
    # duplicates
    _served("original", OK, body="picture_d"),
    _served("exact_copy", OK, body="picture_d"),
    _served("reencoded_copy", OK, body="picture_d_again"),
    Trouble("second_caption", _path("original.jpg"), (OK,), 0, "another caption of the same address", same_url_as="original"),
    Trouble("repeated_row", _path("original.jpg"), ("duplicate_row",), 0, "planted trouble of the kind original", same_url_as="original"),
)
"""Every planted row, once per kind; the last three expect a policy or the planner to tell them apart."""

BROKEN_LINES = {
    "csv": '"http://127.1.0.1/broken.jpg,a quote that is never closed\n',
    "jsonl": '{"url": "http://127.1.0.1/broken.jpg", "capt\n',
}
"""A last line that cannot be read, by list format; it must end as `input_unparseable`."""

HOPS: dict[str, tuple[str, int]] = {
    "/hop/first": ("/hop/second", 302),
    "/hop/second": ("/hop/last.jpg", 303),
    **{f"/hop/long/{number}": (f"/hop/long/{number - 1}", 302) for number in range(1, 10)},
}
"""Paths that only redirects lead to, each with its target and status."""


def plant(folder: Path) -> Corpus:
    """Writes the planted rows as a corpus into `folder`, replacing what is there."""
    with CorpusWriter(folder) as writer:
        places = {name: writer.body(make()) for name, make in BODIES.items()}
        for trouble in PLANTED:
            if trouble.served and trouble.same_url_as is None:
                writer.answer(trouble.address, _answer(trouble, places[trouble.body]))
            writer.row(trouble.address, trouble.caption, {}, _truth(trouble))
        for path, (target, status) in HOPS.items():
            writer.answer(path, Answer("redirect", status, (("X-Location", target),)))
        for path in ("/hop/last.jpg", "/hop/long/0"):
            writer.answer(path, Answer("ok", 200, JPEG, *places["picture_e"]))
    return Corpus.open(folder)


def break_line(written_list: Path) -> None:
    """Appends a broken line to a `.csv` or `.jsonl` list."""
    with open(written_list, "a", encoding="utf-8") as file:
        file.write(BROKEN_LINES[written_list.suffix.removeprefix(".")])


def _answer(trouble: Trouble, place: tuple[int, int]) -> Answer:
    return Answer(trouble.behaviour, trouble.status, trouble.headers, *place, trouble.first_status)


def _truth(trouble: Trouble) -> dict[str, object]:
    line = asdict(trouble)
    kept = {name: line[name] for name in ("kind", "expected_requests")}
    expected = trouble.expected_reasons[0]
    return {
        **kept,
        "expected_reason": None if expected == OK else expected,
        "expected_reasons": json.dumps(trouble.expected_reasons),
        "planted": True,
    }


def _picture(seed: int, quality: int = 88) -> bytes:
    things = (Thing("blue", "star", "big"), Thing("orange", "ring", "small"))
    return encode_jpeg(render(Scene(seed, 320, 256, "noisy", things, "left")), quality)


def _tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(render(Scene(77, 64, 64, "plain", (Thing("red", "cross", "big"),)))).save(buffer, "TIFF")
    return buffer.getvalue()


def _png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of one bit a pixel around already compressed data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _bomb_png() -> bytes:
    """400 megapixels in 49 kB: a valid file that would fill a decoder's memory."""
    return _png(20_000, 20_000, zlib.compress(bytes(20_000 * 2_501), 9))


def _bomb_jpeg() -> bytes:
    """A small JPEG whose frame header claims 65,500 x 65,500 pixels."""
    data = bytearray(_picture(78))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


def _bomb_gif() -> bytes:
    """A GIF whose screen and one frame claim 65,535 x 65,535 pixels."""
    screen = b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\x00\x00" + b"\x00\x00\x00\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + b"\x00\x02\x02\x4c\x01\x00"
    return screen + frame + b"\x3b"


def _half_picture() -> bytes:
    whole = _picture(80)
    return whole[: len(whole) // 2]


BODIES: dict[str, Callable[[], bytes]] = {
    "none": bytes,
    "picture": functools.partial(_picture, 70),
    "picture_a": functools.partial(_picture, 71),
    "picture_b": functools.partial(_picture, 72),
    "picture_c": functools.partial(_picture, 73),
    "picture_d": functools.partial(_picture, 74),
    "picture_d_again": functools.partial(_picture, 74, 75),
    "picture_e": functools.partial(_picture, 76),
    "half_picture": _half_picture,
    "html": lambda: b"<!DOCTYPE html>\n<html><head><title>Not here</title></head><body>This picture has moved.</body></html>\n",
    "text": lambda: b"This is a line of plain text, and no picture at all.\n",
    "gzip_bomb": lambda: gzip.compress(bytes(64 << 20), 9, mtime=0),
    "tiff": _tiff,
    "damaged_png": lambda: _png(512, 512, b"\x78\x9c" + bytes(range(256)) * 8),
    "bomb_png": _bomb_png,
    "bomb_jpeg": _bomb_jpeg,
    "bomb_gif": _bomb_gif,
}
"""What can be sent, by name; made when the corpus is written."""
