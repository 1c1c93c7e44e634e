"""How a worker handles a part whose pool is a bucket: one request a tar, images by ranges, room on this machine's disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from curate.errors import AccountingError, LocalFault
from curate.fetch.disk import Disk
from curate.media.tar import TarWriter, members
from curate.score.reading import Image, TarReader
from curate.shards.sources import Tars
from curate.store import Pool
from tests.s3.server import Proxy

BODIES = [bytes([number]) * (1000 + number) for number in range(40)]


@pytest.fixture
def stored(prefix: str) -> tuple[Pool, str, list[int]]:
    """A pool with one tar, and where its images begin."""
    pool = Pool.create(f"{prefix}/pool")
    temporary = pool.temporary(".tar")
    with TarWriter(temporary) as tar:
        offsets = [tar.add(f"{number:032x}.jpg", body) for number, body in enumerate(BODIES)]
    return pool, pool.publish(temporary, "tars", "00000"), offsets


def test_scoring_reads_a_tar_in_one_request_and_leaves_nothing(stored: tuple[Pool, str, list[int]], s3: Proxy) -> None:
    pool, name, offsets = stored
    s3.traffic()
    with TarReader(pool.path, pool.temporary) as tars:
        found = [tars.read(Image(name, at, len(body), np.zeros(1, np.int64))) for at, body in zip(offsets, BODIES, strict=True)]
        with pytest.raises(LocalFault, match="shorter"):
            tars.read(Image(name, offsets[-1], 1 << 20, np.zeros(1, np.int64)))
    assert found == BODIES
    assert [method for method, path in s3.traffic().paths if path.endswith(".tar")] == ["GET"]
    assert not list(pool.scratch.iterdir())


def test_packing_and_looking_read_images_by_ranges(stored: tuple[Pool, str, list[int]], s3: Proxy) -> None:
    pool, name, offsets = stored
    wanted = [(name, at, len(body), hashlib.sha256(body).hexdigest()) for at, body in zip(offsets, BODIES, strict=True)][::-1]
    s3.traffic()
    with Tars(pool.path) as tars:
        assert list(tars.ahead(wanted)) == BODIES[::-1]
        assert s3.traffic().bytes_sent == sum(map(len, BODIES))
        with pytest.raises(AccountingError, match="sha256 differs"):
            tars.read(name, offsets[0], 1000, "0" * 64)
        with pytest.raises(AccountingError, match="not a path inside the pool"):
            tars.read("../x.tar", 0, 1)
    assert [(member.offset, member.size) for member in members(pool.path / name)] == [
        (at, len(body)) for at, body in zip(offsets, BODIES, strict=True)
    ]


def test_a_damaged_tar_is_noticed_before_it_is_scored(stored: tuple[Pool, str, list[int]], s3: Proxy) -> None:
    pool, name, offsets = stored
    (pool.path / name).write_bytes(b"other bytes")
    with TarReader(pool.path, pool.temporary) as tars, pytest.raises(LocalFault, match="another sha256"):
        tars.read(Image(name, offsets[0], 1000, np.zeros(1, np.int64)))


def test_a_part_that_this_machine_has_no_room_for_is_not_begun(prefix: str, s3: Proxy, tmp_path: Path) -> None:
    pool = Pool.create(f"{prefix}/pool")
    assert pool.scratch.is_relative_to(tmp_path / "scratch") and pool.free_bytes() > 0
    with pytest.raises(LocalFault, match=f"no room at {pool.scratch}"), Disk(row_bytes=1e15).room(pool, 0, 1):
        raise AssertionError("begun all the same")
