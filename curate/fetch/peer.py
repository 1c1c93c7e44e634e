"""img2dataset as the backend of a fetch: its own Downloader, part by part, into our tables; the only user of that package.

So two pools of one list compare row by row. What img2dataset does not tell (final address, content type, body size,
attempts, latency) stays null. It has none of our guards: see `WARNING`.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from curate.errors import MissingExtra, UsageError
from curate.fetch.client import RunFacts
from curate.fetch.peer_reasons import http_status, reason
from curate.fetch.rows import Asked, Fetched, FetchRows, added, as_compute, needed
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import Wish
from curate.media.blur import BadBoxes, Box, parse_boxes
from curate.media.header import ALLOWED, sniff
from curate.stage import Compute, Resources, identity_of

WARNING = (
    "fetch.backend=img2dataset has no address guard, no cap on bytes, no robots.txt and no budget per site: use it to compare, "
    "on lists you trust; see 'img2dataset as a backend' in the README"
)
_PACKAGE = "img2dataset"
_Columns = dict[str, object]


def require(settings: FetchSettings) -> None:
    """Raises MissingExtra when img2dataset is not installed, UsageError where it cannot run or not do what is asked for."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise MissingExtra(_PACKAGE, _PACKAGE)
    if importlib.util.find_spec("imghdr") is None:  # gone from the standard library since 3.13
        raise UsageError("img2dataset cannot be imported on Python 3.13 and later: use 3.11 or 3.12, or leave fetch.backend at curate")
    if any(settings.blocklists.files):
        raise UsageError("fetch.backend=img2dataset checks no block lists: take fetch.blocklists away, or leave fetch.backend at curate")


@dataclass(frozen=True)
class Img2datasetStage:
    """Needs and adds what `FetchStage` does; takes all batches of a part before it gives the first one back.

    Of what a list says of a file, boxes are blurred by img2dataset's own blurrer, and a sha256 is compared afterwards; it
    cannot tell what merely looks alike, so a file of another sha256 is kept only with `verify_hash=off`.
    """

    settings: FetchSettings = field(default_factory=FetchSettings)
    run: RunFacts = field(default_factory=RunFacts)
    version: int = 1

    @property
    def resources(self) -> Resources:
        """One core; bodies are held by as many threads as `in_flight`, without a cap."""
        return Resources(cpus=1, memory_bytes=2 << 30)

    @property
    def needs(self) -> pa.Schema:
        """As `FetchStage`."""
        return needed()

    @property
    def adds(self) -> pa.Schema:
        """As `FetchStage`."""
        return added()

    def identity(self) -> str:
        """Fingerprint of the settings that shape outcomes and of img2dataset's version."""
        try:
            package = importlib.metadata.version(_PACKAGE)
        except importlib.metadata.PackageNotFoundError:
            package = "not installed"
        return identity_of(_PACKAGE, self.version, {**self.settings.identity(), "package": package})

    @contextmanager
    def open(self) -> Iterator[Compute]:
        """As `open_rows`, in batches."""
        with self.open_rows() as fetch:
            yield as_compute(fetch, self.adds)

    @contextmanager
    def open_rows(self) -> Iterator[FetchRows]:
        """Imports the package, which takes seconds. Raises MissingExtra or UsageError."""
        require(self.settings)
        make = _downloader_class()
        yield lambda batches: _fetched(make, batches, self.settings)


def _downloader_class() -> Any:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for newer versions of itself
    from img2dataset.downloader import Downloader

    return Downloader


def _fetched(make: Any, batches: Iterable[Sequence[Asked]], settings: FetchSettings) -> Iterator[Fetched]:
    """Outcomes of all rows of one part; images wait on disk meanwhile."""
    rows = [_request(*asked) for batch in batches for asked in batch]
    asked = [row for row in rows if row.skip is None]
    with tempfile.TemporaryDirectory(prefix="curate-img2dataset-") as folder, _Spool(Path(folder)) as spool:
        if asked:
            _download(make, asked, settings, Path(folder), spool)
        places = iter(range(len(asked)))
        for row in rows:
            yield _row(spool, places, row, settings)


@dataclass(frozen=True)
class _Request:
    """A row; `skip` is the reason for which it is not asked for."""

    url: str
    skip: str | None
    wish: Wish
    boxes: tuple[Box, ...] | None


def _request(url: str, skip: str | None, wish: Wish) -> _Request:
    try:
        return _Request(url, skip, wish, None if wish.boxes is None else parse_boxes(wish.boxes))
    except BadBoxes:
        return _Request(url, skip or "boxes_unreadable", wish, None)


def _row(spool: _Spool, places: Iterator[int], row: _Request, settings: FetchSettings) -> Fetched:
    if row.skip is not None:
        return {"reason": row.skip}, None
    columns, image = described(*spool.read(next(places)), settings)
    return (columns, image) if image is None else _judged(columns, image, row, settings)


# -- the package at work


def _download(make: Any, rows: list[_Request], settings: FetchSettings, folder: Path, spool: _Spool) -> None:
    """Runs the Downloader on one shard of rows, whose outcomes it writes into `spool`."""
    shard = folder / "shard.feather"
    blurs = any(row.boxes for row in rows)
    table = pa.table({"url": pa.array([row.url for row in rows], pa.string())})
    if blurs:
        table = table.append_column("boxes", pa.array([list(map(list, row.boxes or ())) for row in rows], pa.list_(pa.list_(pa.float64()))))
    with pa.OSFile(str(shard), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    downloader = make(
        sample_writer_class=lambda *_: spool,
        resizer=_resizer(settings, blurs),
        thread_count=settings.in_flight,
        save_caption=False,
        extract_exif=True,
        output_folder=str(folder),
        column_list=table.column_names,
        timeout=settings.total_seconds,
        number_sample_per_shard=max(2, len(rows)),
        oom_shard_count=1,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format=settings.image.format,
        retries=settings.attempts - 1,
        user_agent_token=settings.robot_names[0] if settings.robot_names else None,
        disallowed_header_directives=list(settings.opt_out_directives) if settings.opt_out else None,
        blurring_bbox_col="boxes" if blurs else None,
    )
    downloader.download_shard((0, str(shard)))  # calling it would swallow what goes wrong
    if spool.fault is not None:
        raise spool.fault


def _resizer(settings: FetchSettings, blurs: bool) -> Any:
    from img2dataset.blurrer import BoundingBoxBlurrer
    from img2dataset.resizer import Resizer

    image = settings.image
    if blurs and image.reencode == "never":
        raise UsageError("img2dataset blurs nothing with fetch.image.reencode=never: choose when_needed, or fetch.blur_column=null")
    return Resizer(
        image_size=image.size,
        resize_mode=image.resize_mode,
        resize_only_if_bigger=image.only_shrink,
        encode_quality=image.png_compression if image.format == "png" else image.quality,
        encode_format=image.format,
        skip_reencode=image.reencode == "when_needed",
        disable_all_reencoding=image.reencode == "never",
        min_image_size=image.min_side or 0,
        max_image_area=min(image.max_pixels, image.max_area or image.max_pixels),
        max_aspect_ratio=image.max_aspect or float("inf"),
        blurrer=BoundingBoxBlurrer() if blurs else None,
    )


class _Spool:
    """What a Downloader takes for its sample writer: keeps descriptions in memory and images in one file."""

    def __init__(self, folder: Path) -> None:
        self.fault: OSError | None = None
        self._file = cast(BinaryIO, (folder / "images").open("w+b"))
        self._told: dict[int, tuple[dict[str, Any], int, int]] = {}

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk was told of when writing
            self._file.close()

    def write(self, image: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        """Called by the Downloader for each row; a full disk is kept for later, since the caller would swallow it."""
        try:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(image or b"")
            self._told[int(key)] = ({**meta, "finished_at": datetime.datetime.now(datetime.UTC)}, offset, len(image or b""))
        except OSError as error:
            self.fault = self.fault or error

    def close(self) -> None:
        """The Downloader has written all; reading goes on."""

    def read(self, place: int) -> tuple[dict[str, Any], bytes]:
        """Description and image of one row; both empty where the Downloader lost it."""
        meta, offset, size = self._told.get(place, ({}, 0, 0))
        self._file.seek(offset)
        return meta, self._file.read(size)


# -- its words in ours


def described(meta: dict[str, Any], image: bytes, settings: FetchSettings) -> tuple[_Columns, bytes | None]:
    """Columns and image of one row, from what img2dataset says of it."""
    message = meta.get("error_message")
    why = reason(meta.get("status"), message)
    if why == "too_many_pixels" and settings.image.max_area:
        why = "image_large"  # it has one limit for both
    columns: _Columns = {"finished_at": meta.get("finished_at"), "worker": f"{socket.gethostname()}:{os.getpid()}"}
    extension = _extension(image, settings)
    if why is None and extension is None:
        why = "not_an_image"  # with reencode=never it stores whatever came
    if why is not None or extension is None:
        signal = "X-Robots-Tag" if why == "opt_out" else None
        return columns | {"reason": why, "http_status": http_status(message), "signal": signal}, None
    names = ("original_width", "original_height", "width", "height", "sha256")
    columns |= {name: meta[name] for name in names}
    columns |= {"exif": _exif(meta.get("exif"), settings), "format": extension}
    return columns | {"image_bytes": len(image), "image_sha256": hashlib.sha256(image).hexdigest()}, image


def _judged(columns: _Columns, image: bytes, row: _Request, settings: FetchSettings) -> tuple[_Columns, bytes | None]:
    """The row after what its list promised of the file."""
    promised = row.wish.promised_sha256
    if promised is not None:
        columns["hash_drift"] = columns["sha256"] != promised
    if settings.verify_hash != "off" and columns.get("hash_drift"):
        return _refused(columns, "hash_mismatch"), None
    if settings.verify_hash == "strict" and promised is None:
        return _refused(columns, "hash_missing"), None
    return columns | {"blurred": None if row.boxes is None else len(row.boxes)}, image


def _refused(columns: _Columns, why: str) -> _Columns:
    stored = ("exif", "width", "height", "format", "image_bytes", "image_sha256")
    return {name: value for name, value in columns.items() if name not in stored} | {"reason": why}


def _extension(image: bytes, settings: FetchSettings) -> str | None:
    """Of the stored file; None when it is none of the formats that we read."""
    if settings.image.reencode != "never":
        return settings.image.format
    name = sniff(image)
    return None if name not in ALLOWED else "jpg" if name == "jpeg" else name


def _exif(text: str | None, settings: FetchSettings) -> str | None:
    """Tags under exifread's names; null when there are none or more than the cap."""
    return None if text in (None, "{}") or len(str(text)) > settings.image.max_exif_bytes else text
