"""Boxes blurred at pack: only pictures that have some are encoded anew, their new sha256 is recorded, and the pool verifies."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import schema as schemas
from curate.catalog.verify import verify
from curate.errors import UsageError
from curate.lease import claim
from curate.media.blur import blur
from curate.media.image import decode_rgb
from curate.removal.takedown import takedown
from curate.shards.reader import ShardReader
from curate.shards.settings import PackSettings
from curate.store import Pool
from tests.shards import pools
from tests.shards.pools import Sample
from tests.shards.test_pack import apply, folder_hashes, packed

FACE = [0.25, 0.25, 0.75, 0.75]


def with_faces(folder: Path, boxes: dict[int, list[list[float]] | None]) -> Pool:
    """Eight kept rows in two parts; `boxes` by row of both, [] where nothing is said."""
    pool = pools.build(folder, [[Sample(caption=f"{part} {row}") for row in range(4)] for part in range(2)])
    schema = schemas.table("scores")  # of which a test's scores_base has all columns, so these have a name of their own
    kept = [schema.field(name) for name in ("part", "row", "reason", "basis")]
    schema = pa.schema([*kept[:3], schema.field("face_boxes").with_name("my_boxes"), kept[3]])
    with claim(pool, {"scores_faces": schema}) as run:
        for part in range(2):
            found = pa.array([boxes.get(row, []) for row in range(4)], schema.field("my_boxes").type)
            table = pa.table({"row": pa.array(range(4), pa.int32()), "my_boxes": found})
            run.commit("scores_faces", [pool.write_part("scores_faces", part, table, f"faces-{part}", schema)])
    apply(pool)
    return pool


def images(pool: Pool, subset: str = "mine") -> dict[str, bytes]:
    found = {}
    for path in sorted((pool.path / "shards" / subset).glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {Path(name).stem: tar.extractfile(name).read() for name in tar.getnames() if name.endswith(".jpg")}  # type: ignore[union-attr]
    return found


def test_only_pictures_with_boxes_change_and_the_pool_verifies(tmp_path: Path) -> None:
    pool = with_faces(tmp_path / "pool", {1: [FACE], 3: [FACE, [0.0, 0.0, 0.2, 0.2]]})
    packed(pool)
    plain, before = images(pool), folder_hashes(pool.path / "shards" / "mine")
    packed(pool, blur="my_boxes")
    found = images(pool)
    blurred = {pools.sample_id(part, row): boxes for part in range(2) for row, boxes in ((1, [FACE]), (3, [FACE, [0.0, 0.0, 0.2, 0.2]]))}
    assert {name for name in found if found[name] != plain[name]} == set(blurred)
    for name, boxes in blurred.items():
        wanted = blur(decode_rgb(plain[name]), tuple((b[0], b[1], b[2], b[3]) for b in boxes))
        assert np.abs(decode_rgb(found[name]).astype(int) - wanted).mean() < 4  # but for the encoding
    lines = {line["sample_id"]: line["image_sha256"] for line in pool.snapshot("shards").read().to_pylist()}
    assert {name for name, digest in lines.items() if digest is not None} == set(blurred)
    assert all(hashlib.sha256(found[name]).hexdigest() == lines[name] for name in blurred)
    said = pq.read_table(next((pool.path / "shards" / "mine").glob("*.parquet"))).to_pylist()
    for line in said:
        assert line["image_sha256"] == hashlib.sha256(found[line["sample_id"]]).hexdigest()
        assert line["image_bytes"] == len(found[line["sample_id"]])
    verify(pool).require()
    assert {sample.sample_id for sample in ShardReader(pool.path / "shards" / "mine").epoch(0)} == set(found)

    assert packed(pool, blur="my_boxes").unchanged
    packed(pool)
    assert folder_hashes(pool.path / "shards" / "mine") == before


def test_verify_sees_a_picture_that_is_neither_fetched_nor_blurred(tmp_path: Path) -> None:
    pool = with_faces(tmp_path / "pool", {1: [FACE]})
    packed(pool, blur="my_boxes")
    path = next((pool.path / "shards" / "mine").glob("*.tar"))
    name = pools.sample_id(0, 1)
    data = path.read_bytes()
    image = images(pool)[name]
    path.write_bytes(data.replace(image, image[:-4] + b"\0\0\0\0"))
    (shards,) = [check for check in verify(pool).checks if check.name == "shards"]
    assert any(name in said for said in shards.offenders)


def test_a_takedown_after_blurring_leaves_a_pool_that_verifies(tmp_path: Path) -> None:
    pool = with_faces(tmp_path / "pool", {1: [FACE], 2: [FACE]})
    packed(pool, blur="my_boxes")
    takedown(pool, f"sample_id = '{pools.sample_id(0, 1)}'", None, "asked")
    assert pools.sample_id(0, 1) not in images(pool)
    verify(pool).require()


@pytest.mark.parametrize("box", [[120.0, 40.0, 300.0, 200.0], [0.5, 0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [0.1, float("nan"), 0.3, 0.4]])
def test_boxes_that_would_blur_nothing_are_refused(tmp_path: Path, box: list[float]) -> None:
    """In pixels, ending before they begin, of three numbers, of one that is none."""
    pool = with_faces(tmp_path / "pool", {2: [FACE, box]})
    with pytest.raises(UsageError, match="blur=my_boxes: part 0, row 2: a box"):
        packed(pool, blur="my_boxes")
    assert not (pool.path / "shards" / "mine").exists()


def test_nothing_is_packed_unblurred_by_mistake(tmp_path: Path) -> None:
    pool = with_faces(tmp_path / "pool", {2: None})
    with pytest.raises(UsageError, match="1 kept rows of part 0 have no boxes, not even none"):
        packed(pool, blur="my_boxes")
    with pytest.raises(UsageError, match="did you mean 'my_boxes'"):
        packed(pool, blur="my_box")
    with pytest.raises(UsageError, match="a box is a list of four numbers, and scores_base.phash holds int64"):
        packed(pool, blur="phash")
    assert not (pool.path / "shards" / "mine").exists()
    with pytest.raises(ValueError, match="blur needs mode=copy"):
        PackSettings(mode="index", blur="my_boxes")


def test_every_format_is_encoded_as_it_was() -> None:
    from PIL import Image

    from curate.shards.blurring import Blur

    for kind in ("jpg", "png", "webp"):
        stream = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(
            stream, "jpeg" if kind == "jpg" else kind
        )
        line = {"format": kind, "face_boxes": [FACE], "part": 0, "row": 0}
        packed_bytes = Blur("face_boxes", 95)(stream.getvalue(), line)
        with Image.open(io.BytesIO(packed_bytes)) as image:
            assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[kind] and image.size == (60, 40)
        assert packed_bytes == Blur("face_boxes", 95)(stream.getvalue(), line) != stream.getvalue()
        assert Blur("face_boxes", 95)(stream.getvalue(), {**line, "face_boxes": []}) == stream.getvalue()
