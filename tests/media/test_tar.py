"""Tars: reproducible, readable by others, and distrusted when read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from curate.media.tar import TarError, TarWriter, members, read

FILES = [("a.jpg", b"x" * 511), ("a.txt", b""), ("b.jpg", b"y" * 512), ("b.txt", "\u00e9".encode())]


def write(path: Path) -> list[int]:
    with TarWriter(path) as tar:
        return [tar.add(name, data) for name, data in FILES]


def test_offsets_point_at_the_bytes_and_both_readers_agree(tmp_path: Path) -> None:
    offsets = write(tmp_path / "a.tar")
    whole = (tmp_path / "a.tar").read_bytes()
    assert [whole[offset : offset + len(data)] for offset, (_, data) in zip(offsets, FILES, strict=True)] == [data for _, data in FILES]
    assert list(read(tmp_path / "a.tar")) == FILES
    assert [member.offset for member in members(tmp_path / "a.tar")] == offsets
    with tarfile.open(tmp_path / "a.tar") as tar:
        infos = tar.getmembers()
        assert [(info.name, info.offset_data, info.mode, info.mtime, info.uid, info.gid) for info in infos] == [
            (name, offset, 0o644, 0, 0, 0) for (name, _), offset in zip(FILES, offsets, strict=True)
        ]


def test_equal_members_give_equal_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    write(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_is_what_the_standard_library_writes(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in FILES:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert stream.getvalue().startswith((tmp_path / "a.tar").read_bytes())  # tarfile pads to 10 KiB after the end mark


@pytest.mark.parametrize("name", ["", "x" * 101, "\u00e9" * 60])
def test_names_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    with TarWriter(tmp_path / "a.tar") as tar, pytest.raises(TarError):
        tar.add(name, b"")


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    whole = (tmp_path / "a.tar").read_bytes()
    for length in range(0, len(whole) - 1024 + 1, 256):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(TarError):
            list(members(tmp_path / "cut.tar"))


def test_every_flip_in_a_header_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    whole = (tmp_path / "a.tar").read_bytes()
    for position in range(0, 512, 3):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        (tmp_path / "bad.tar").write_bytes(damaged)
        with pytest.raises(TarError):
            list(members(tmp_path / "bad.tar"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_only_regular_files_are_read(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(TarError, match="regular"):
        list(members(tmp_path / "evil.tar"))
