"""What a body becomes when the list promises hashes, names boxes to blur, or the settings set limits."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.demo.render import Scene, Thing, render
from curate.errors import REASONS, InputError
from curate.fetch.codec import outcome
from curate.fetch.settings import FetchSettings
from curate.fetch.wish import EMPTY, Wish, read_wishes, wish_columns
from curate.media.image import decode_rgb, phash
from curate.media.pdq import pdq

PIXELS = render(Scene(1, 640, 480, "noisy", (Thing("red", "star", "big"), Thing("blue", "ring", "small")), "left"))
OTHER = render(Scene(2, 640, 480, "striped", (Thing("green", "heart", "big"),)))


def jpeg(pixels: np.ndarray, quality: int = 90, size: tuple[int, int] | None = None) -> bytes:
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    (image.resize(size, Image.Resampling.BICUBIC) if size else image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


BODY, DRIFTED, SWAPPED = jpeg(PIXELS), jpeg(PIXELS, 60, (400, 300)), jpeg(OTHER)
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()
PDQ = pdq(decode_rgb(BODY)).hash.hex()


def become(body: bytes, wish: Wish = EMPTY, **settings: object) -> tuple[dict[str, object], bytes | None]:
    return outcome(body, pickle.loads(pickle.dumps(wish)), FetchSettings.model_validate(settings))


def listed_phash(body: bytes = BODY) -> str:
    """As table `scores` has it: of the stored picture."""
    _, image = become(body)
    assert image is not None
    return f"{phash(decode_rgb(image)) & (1 << 64) - 1:016x}"


def test_no_promise_no_verdict() -> None:
    columns, image = become(BODY)
    assert columns["reason" if "reason" in columns else "sha256"] == SHA256 and image is not None
    assert "hash_drift" not in columns and "md5" not in columns and "blurred" not in columns


@pytest.mark.parametrize(
    "promise", [{"sha256": SHA256}, {"sha256": SHA256.upper()}, {"md5": MD5}, {"md5": f" {MD5.upper()}\n"}, {"sha256": SHA256, "md5": MD5}]
)
@pytest.mark.parametrize("verify", ["off", "drift", "strict"])
def test_a_promise_that_is_kept(verify: str, promise: dict[str, str]) -> None:
    columns, image = become(BODY, Wish(**promise), verify_hash=verify)
    assert columns["hash_drift"] is False and "reason" not in columns and image is not None
    assert ("md5" in columns) == ("md5" in promise) and columns.get("md5", MD5) == MD5


@pytest.mark.parametrize(
    ("verify", "body", "described", "reason"),
    [
        ("off", SWAPPED, {}, None),
        ("drift", SWAPPED, {}, "hash_mismatch"),
        ("drift", DRIFTED, {}, "hash_mismatch"),  # nothing says how the picture looked
        ("drift", DRIFTED, {"pdq": PDQ}, None),
        ("drift", DRIFTED, {"phash": listed_phash()}, None),
        ("drift", SWAPPED, {"pdq": PDQ}, "hash_mismatch"),
        ("drift", SWAPPED, {"phash": listed_phash()}, "hash_mismatch"),
        ("drift", SWAPPED, {"pdq": "12"}, "hash_mismatch"),
        ("strict", DRIFTED, {"pdq": PDQ}, "hash_mismatch"),
        ("drift", b"<html>gone</html>", {"pdq": PDQ}, "not_an_image"),
        ("strict", b"<html>gone</html>", {}, "not_an_image"),
    ],
)
@pytest.mark.parametrize("promise", [{"sha256": SHA256}, {"md5": MD5}, {"sha256": SHA256, "md5": "0" * 32}])
def test_a_promise_that_is_broken(verify: str, body: bytes, described: dict[str, str], reason: str | None, promise: dict[str, str]) -> None:
    columns, image = become(body, Wish(**promise, **described), verify_hash=verify)
    assert (columns.get("reason"), image is None) == (reason, reason is not None)
    assert columns["hash_drift"] is True
    if reason == "hash_mismatch":  # described, not stored
        assert columns["original_format"] == "jpeg" and columns["original_width"] and "image_sha256" not in columns


def test_two_promises_must_both_be_kept() -> None:
    assert become(BODY, Wish(sha256=SHA256, md5="0" * 32), verify_hash="strict")[0]["reason"] == "hash_mismatch"


@pytest.mark.parametrize("promise", [{}, {"sha256": ""}, {"sha256": SHA256[:-1]}, {"sha256": "g" * 64}, {"md5": SHA256}, {"sha256": MD5}])
def test_a_promise_that_cannot_be_checked(promise: dict[str, str]) -> None:
    columns, image = become(BODY, Wish(**promise), verify_hash="strict")
    assert columns["reason"] == "hash_missing" and image is None and columns["original_width"] == 640
    columns, image = become(BODY, Wish(**promise), verify_hash="drift")
    assert "reason" not in columns and "hash_drift" not in columns and image is not None


def test_a_benign_change_is_found_whatever_becomes_of_it() -> None:
    """Other qualities, sizes and formats of the same picture are drift; other pictures never are."""
    png = io.BytesIO()
    Image.fromarray(PIXELS).save(png, "PNG")
    copies = [jpeg(PIXELS, 40), jpeg(PIXELS, 95, (1280, 960)), jpeg(PIXELS, 85, (320, 240)), png.getvalue()]
    strangers = [jpeg(render(Scene(seed, 640, 480, "noisy", (Thing("red", "star", "big"),)))) for seed in range(10, 30)]
    for described in ({"pdq": PDQ}, {"phash": listed_phash()}):
        wish = Wish(sha256=SHA256, **described)
        assert [become(body, wish)[0].get("reason") for body in copies] == [None] * len(copies)
        assert {become(body, wish)[0].get("reason") for body in strangers} == {"hash_mismatch"}


def test_boxes_are_counted_and_gone() -> None:
    columns, image = become(BODY, Wish(boxes="[[0.2, 0.2, 0.6, 0.8], [0.7, 0.1, 0.8, 0.2]]"))
    plain = become(BODY)[1]
    assert columns["blurred"] == 2 and image is not None and plain is not None
    hidden, shown = decode_rgb(image).astype(int), decode_rgb(plain).astype(int)
    assert np.abs(hidden - shown)[60:190, 70:200].mean() > 10 > np.abs(hidden - shown)[:30].mean()
    assert become(BODY, Wish(boxes="[]"))[0]["blurred"] == 0


@pytest.mark.parametrize("boxes", ["[[1, 2, 3]]", "face", "[[10, 20, 300, 400]]", '{"x": 1}', "[[0.5, 0.5, 0.1, 0.9]]"])
@pytest.mark.parametrize("reencode", ["never", "when_needed"])
def test_boxes_that_cannot_be_read_store_nothing(boxes: str, reencode: str) -> None:
    columns, image = become(BODY, Wish(boxes=boxes), image={"reencode": reencode, "resize_mode": "no"})
    assert columns["reason"] == "boxes_unreadable" and image is None and columns["original_width"] == 640


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"min_side": 480}, None), ({"min_side": 481}, "image_small"),
        ({"min_bytes": len(BODY)}, None), ({"min_bytes": len(BODY) + 1}, "image_small"),
        ({"max_aspect": 4 / 3}, None), ({"max_aspect": 1.33}, "image_aspect"),
        ({"max_area": 640 * 480}, None), ({"max_area": 640 * 480 - 1}, "image_large"),
    ],
)  # fmt: skip
def test_limits_are_judged_by_the_header(limits: dict[str, object], reason: str | None) -> None:
    columns, image = become(BODY, image=limits)
    assert (columns.get("reason"), image is None) == (reason, reason is not None) and columns["original_height"] == 480
    cut = BODY[: len(BODY) // 2] if "min_bytes" not in limits else BODY[:-600]
    assert become(cut, image=limits)[0]["reason"] == (reason or "decode_truncated" if "min_bytes" not in limits else "image_small")
    assert reason is None or REASONS[reason].outcome == "dropped"


def test_listed_pictures_are_refused_in_any_copy(tmp_path: Path) -> None:
    (tmp_path / "known.txt").write_text(f"{'0' * 64}\n{PDQ}\n")
    lists = {"pdq": [str(tmp_path / "known.txt")]}
    for body in (BODY, DRIFTED, jpeg(PIXELS, 50)):
        columns, image = become(body, blocklists=lists)
        assert (columns["reason"], columns["signal"], columns["signal_value"], image) == ("blocklisted", "blocklist:known.txt", "2", None)
        assert "original_width" not in columns
    kept = become(BODY, blocklists=lists, image={"reencode": "never"})
    assert kept[0]["reason"] == "blocklisted" and kept[1] is None
    assert "reason" not in become(SWAPPED, blocklists=lists)[0]
    blank = jpeg(np.full((300, 300, 3), 80, np.uint8))
    (tmp_path / "blank.txt").write_text(pdq(decode_rgb(blank)).hash.hex())
    assert "reason" not in become(blank, blocklists={"pdq": [str(tmp_path / "blank.txt")]})[0]  # its hash means nothing


def test_listed_files_are_not_even_decoded(tmp_path: Path) -> None:
    (tmp_path / "md5.txt").write_text(hashlib.md5(b"not an image").hexdigest())
    columns, _ = become(b"not an image", blocklists={"hashes": [str(tmp_path / "md5.txt")]})
    assert columns["reason"] == "blocklisted" and "md5" not in columns


def test_wishes_come_from_columns_of_any_usual_type() -> None:
    table = pa.table(
        {
            "source.sha256": [SHA256, None, None],
            "source.MD5": pa.array([None, bytes.fromhex(MD5), None], pa.binary()),
            "source.phash": pa.array([-2, None, None], pa.int64()),
            "source.face_bboxes": pa.array([[[0.1, 0.2, 0.3, 0.4]], [], None], pa.list_(pa.list_(pa.float64()))),
        }
    )
    columns = wish_columns(table.column_names, "auto", "drift")
    wishes = list(read_wishes(table, columns))
    assert wishes[0] == Wish(sha256=SHA256, phash="fffffffffffffffe", boxes="[[0.1, 0.2, 0.3, 0.4]]")
    assert wishes[1] == Wish(md5=MD5, boxes="[]") and wishes[2] == Wish()
    assert json.loads(str(wishes[0].boxes)) and wishes[0].described_phash == 2**64 - 2


def test_columns_that_the_list_lacks() -> None:
    assert wish_columns(["row", "source.WIDTH"], "auto", "drift") == {}
    assert wish_columns(["source.boxes", "source.face_bboxes"], "auto", "off") == {"boxes": "source.boxes"}
    assert wish_columns(["source.boxes", "source.faces"], "faces", "off") == {"boxes": "source.faces"}
    assert wish_columns(["source.boxes"], None, "off") == {}
    with pytest.raises(InputError, match="fetch.blur_column=face: .*nothing would be blurred; did you mean 'faces'"):
        wish_columns(["source.faces"], "face", "off")
    with pytest.raises(InputError, match="needs hashes"):
        wish_columns(["source.faces"], "auto", "strict")
