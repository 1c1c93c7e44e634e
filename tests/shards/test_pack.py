"""Packing: the kept rows and nothing else, the same bytes every time, whole or not at all, read by the real packages."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from curate.errors import AccountingError, Fenced, UsageError
from curate.filter.decide import filter_pool
from curate.filter.settings import FilterSettings
from curate.lease import claim
from curate.shards.index import read_index
from curate.shards.pack import PackReport, pack
from curate.shards.settings import PackSettings
from curate.store import Pool, file_sha256
from tests.shards import pools
from tests.shards.pools import Sample


def parts(count: int = 3, rows: int = 17) -> list[list[Sample]]:
    kinds = [{}, {"score": 0.1}, {"reason": "http_not_found"}, {"caption": "Grüße, 世界 <b>"}]
    return [[Sample(**{"caption": f"caption {part} {row}", **kinds[(part + row) % 4]}) for row in range(rows)] for part in range(count)]


def apply(pool: Pool, name: str = "mine", where: str = "clip_score > 0.3") -> None:
    with claim(pool, {}) as run:
        filter_pool(pool, run, FilterSettings(where=where, name=name))


def packed(pool: Pool, name: str = "mine", **settings: object) -> PackReport:
    with claim(pool, {}) as run:
        return pack(pool, run, name, PackSettings.model_validate({"shard_samples": 10, **settings}))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    pool = pools.build(tmp_path / "pool", parts())
    apply(pool)
    return pool


def folder_hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.iterdir())}


def kept_keys(pool: Pool, name: str = "mine") -> dict[str, tuple[int, int]]:
    decisions = pool.snapshot(f"decisions_{name}").read(["part", "row", "keep"]).to_pylist()
    return {pools.sample_id(d["part"], d["row"]): (d["part"], d["row"]) for d in decisions if d["keep"]}


def test_kept_rows_members_and_table_are_one_to_one(pool: Pool) -> None:
    report = packed(pool)
    kept = kept_keys(pool)
    assert report.samples == len(kept) == 25 and report.shards == 3
    seen: dict[str, list[str]] = {}
    for path in sorted(report.folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.isreg() and (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
                key, extension = member.name.split(".")
                seen.setdefault(key, []).append(extension)
    assert set(seen) == set(kept) and all(extensions == ["jpg", "txt", "json"] for extensions in seen.values())
    table = DeltaTable(str(pool.path / "tables" / "shards")).to_pyarrow_table().to_pylist()
    assert {line["sample_id"]: (line["part"], line["row"]) for line in table} == kept
    assert sorted((line["shard"], line["position"]) for line in table) == [(n // 10, n % 10) for n in range(25)]
    for line in table:
        part, row = kept[line["sample_id"]]
        content = (pool.path / line["tar_file"]).read_bytes()
        image, text, about = (content[m["offset"] : m["offset"] + m["size"]] for m in line["members"])
        assert [m["extension"] for m in line["members"]] == ["jpg", "txt", "json"]
        assert image == pools.jpeg(part * 100_000 + row)
        facts = json.loads(about)
        assert (
            facts["caption"] == text.decode() and facts["sample_id"] == line["sample_id"] and (facts["part"], facts["row"]) == (part, row)
        )
        assert facts["scores"]["clip_vit_b_32_openai"] == 0.5 and facts["original_width"] == 300


def test_metadata_and_sizes_match_the_tars(pool: Pool) -> None:
    report = packed(pool)
    index = read_index(report.folder)
    assert json.loads((report.folder / "sizes.json").read_text()) == {"00000.tar": 10, "00001.tar": 10, "00002.tar": 5}
    for shard in index.shards:
        assert (file_sha256(report.folder / shard.tar), file_sha256(report.folder / shard.parquet)) == (shard.sha256, shard.parquet_sha256)
        content = (report.folder / shard.tar).read_bytes()
        for line in pq.read_table(report.folder / shard.parquet).to_pylist():
            image = content[line["image_offset"] : line["image_offset"] + line["image_bytes"]]
            assert hashlib.sha256(image).hexdigest() == line["image_sha256"]
    assert index.samples == 25 and index.bytes == sum((report.folder / shard.tar).stat().st_size for shard in index.shards)


def test_packing_is_a_function_of_the_subset(pool: Pool, tmp_path: Path) -> None:
    first = folder_hashes(packed(pool).folder)
    again = pools.build(tmp_path / "again", parts())
    apply(again)
    assert folder_hashes(packed(again, shards_in_memory=1).folder) == first
    other = folder_hashes(packed(pool, seed=1).folder)
    assert other.keys() == first.keys() and other["00000.tar"] != first["00000.tar"]


def test_the_same_subset_again_is_no_work(pool: Pool) -> None:
    first = packed(pool)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    version = len(pool.snapshot("shards").files)
    again = packed(pool)
    assert again.unchanged and (again.samples, again.bytes, again.train_command) == (first.samples, first.bytes, first.train_command)
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before and len(pool.snapshot("shards").files) == version
    (first.folder / "00001.tar").write_bytes(b"")
    assert not packed(pool).unchanged


def test_another_subset_replaces_the_folder_and_leaves_its_neighbour(pool: Pool) -> None:
    apply(pool, "few", "clip_score > 0.3 AND part = 0")
    packed(pool, "few")
    few = folder_hashes(pool.path / "shards" / "few")
    packed(pool)
    apply(pool, where="clip_score > 0.3 AND row < 10")
    report = packed(pool)
    assert sorted(path.name for path in report.folder.iterdir()) == [
        "00000.parquet", "00000.tar", "00001.parquet", "00001.tar", "index.json", "sizes.json",
    ]  # fmt: skip
    assert folder_hashes(pool.path / "shards" / "few") == few
    lines = pool.snapshot("shards").read(["subset", "sample_id"]).to_pylist()
    assert {line["sample_id"] for line in lines if line["subset"] == "few"} == set(kept_keys(pool, "few"))
    assert {line["sample_id"] for line in lines if line["subset"] == "mine"} == set(kept_keys(pool))
    assert not [path for path in (pool.path / "tmp").iterdir() if path.is_dir() and path.name != "duckdb"]


def test_an_altered_image_stops_the_packing_and_leaves_what_was_there(pool: Pool) -> None:
    before = folder_hashes(packed(pool).folder)
    apply(pool, where="clip_score > 0.2")
    line = next(d for d in pool.snapshot("fetched").read(["part", "row", "tar_file", "tar_offset"]).to_pylist() if d["tar_file"])
    tar = pool.path / line["tar_file"]
    content = bytearray(tar.read_bytes())
    content[line["tar_offset"] + 20] ^= 1
    os.chmod(tar, 0o644)
    tar.write_bytes(content)
    with pytest.raises(AccountingError, match=rf"row {line['row']} of part {line['part']}: {line['tar_file']}.*sha256"):
        packed(pool, seed=3)
    assert folder_hashes(pool.path / "shards" / "mine") == before
    tar.unlink()
    with pytest.raises(AccountingError, match="cannot be opened"):
        packed(pool, seed=3)


def test_pending_rows_are_refused_unless_asked(tmp_path: Path) -> None:
    pool = pools.build(tmp_path / "pool", [[Sample(), Sample(pending=True)]])
    apply(pool)
    with pytest.raises(UsageError, match=r"1 of 2 rows of 'mine' are pending.*pack\.partial=true"):
        packed(pool)
    assert packed(pool, partial=True).samples == 1
    with pytest.raises(UsageError, match="no subset 'mne'; did you mean 'mine'"):
        packed(pool, "mne")


def test_an_index_points_into_the_part_tars(pool: Pool) -> None:
    report = packed(pool, mode="index")
    assert [path.name for path in report.folder.iterdir()] == ["index.json"] and report.train_command == ""
    lines = pool.snapshot("shards").read().to_pylist()
    assert len(lines) == 25
    for line in lines:
        (member,) = line["members"]
        content = (pool.path / line["tar_file"]).read_bytes()
        assert content[member["offset"] : member["offset"] + member["size"]] == pools.jpeg(line["part"] * 100_000 + line["row"])
    copied = packed(pool)
    assert not copied.unchanged and copied.samples == 25


def test_a_subset_that_keeps_nothing_packs_to_nothing(pool: Pool) -> None:
    apply(pool, "none", "false")
    report = packed(pool, "none")
    assert (report.samples, report.shards, report.train_command) == (0, 0, "")
    assert packed(pool, "none").unchanged


def test_webdataset_reads_the_shards(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_SECURE", "1")
    webdataset = pytest.importorskip("webdataset")
    report = packed(pool)
    pattern = f"{report.folder}/{{00000..00002}}.tar"
    found = {s["__key__"]: s for s in webdataset.WebDataset(pattern, shardshuffle=False).decode("pil")}
    kept = kept_keys(pool)
    assert found.keys() == kept.keys()
    for key, (part, row) in kept.items():
        assert found[key]["jpg"].size == (24, 24) and found[key]["txt"] == found[key]["json"]["caption"]
        assert (found[key]["json"]["part"], found[key]["json"]["row"]) == (part, row)


def test_open_clip_reads_the_shards_through_its_own_arguments(pool: Pool) -> None:
    params = pytest.importorskip("open_clip_train.params")
    data = pytest.importorskip("open_clip_train.data")
    torch = pytest.importorskip("torch")
    report = packed(pool)
    words = shlex.split(report.train_command)
    assert words[:3] == ["python", "-m", "open_clip_train.main"]
    args = params.parse_args([*words[3:], "--workers", "0", "--batch-size", "5"])
    args.distributed, args.world_size, args.rank = False, 1, 0

    def preprocess(image: object) -> object:
        return torch.from_numpy(np.asarray(image)).permute(2, 0, 1)

    def tokenizer(text: str) -> object:
        return torch.tensor([[len(text)]])

    info = data.get_data(args, (preprocess, preprocess), tokenizer=tokenizer)["train"]
    assert info.dataloader.num_samples == report.samples == 25
    batches = list(info.dataloader)
    assert [tuple(images.shape) for images, _ in batches] == [(5, 3, 24, 24)] * 5
    lengths = sorted(int(n) for _, texts in batches for n in texts.reshape(-1))
    captions = [s.caption for part in parts() for s in part if s.score != 0.1 and s.reason is None]
    assert lengths == sorted(len(caption) for caption in captions)
    size, shards = data.get_dataset_size(f"{report.folder}/{{00000..00002}}.tar")
    assert (size, shards) == (25, 3)


def test_a_killed_packing_leaves_nothing_half_done(pool: Pool) -> None:
    code = (
        "import os, sys; from curate.store import Pool; from curate.lease import claim; from curate.shards import pack as p\n"
        "from curate.shards.settings import PackSettings\n"
        "p.move_into_place = lambda *a: os.kill(os.getpid(), 9)\n"
        "pool = Pool.open(sys.argv[1])\n"
        "with claim(pool, {}) as run: p.pack(pool, run, 'mine', PackSettings(shard_samples=10))\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(pool.path)], check=False, capture_output=True)
    assert died.returncode == -9 and not (pool.path / "shards").exists()
    assert pool.snapshot("shards").files == ()
    assert packed(pool).samples == 25
    assert not [path for path in (pool.path / "tmp").iterdir() if path.is_dir()]


def test_a_packer_that_was_replaced_leaves_its_successors_files_alone(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over(*_: object) -> None:
        assert packed(pool).samples == 25
        raise Fenced("a newer run took over")

    with monkeypatch.context() as patched, claim(pool, {}) as run:
        patched.setattr(run, "check", taken_over)
        patched.setattr("curate.lease._refuse_when_live", lambda *_: None)
        with pytest.raises(Fenced):
            pack(pool, run, "mine", PackSettings(shard_samples=10))
    assert packed(pool).unchanged


def test_images_are_still_images(pool: Pool) -> None:
    from PIL import Image

    with tarfile.open(packed(pool).folder / "00000.tar") as tar:
        first = tar.extractfile(tar.next() or pytest.fail("empty tar"))
        assert first is not None and Image.open(io.BytesIO(first.read())).format == "JPEG"
    assert pa.__version__
