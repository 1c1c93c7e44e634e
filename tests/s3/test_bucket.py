"""One bucket over HTTP: conditional puts, verified uploads, ranges, faults, and what refusals are called."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from curate import bucket
from curate.errors import CurateError, LocalFault, UsageError
from curate.objects import ObjectFile, ObjectPath, is_object, place, read_span
from curate.store import Pool
from tests.conftest import Said
from tests.s3.server import Proxy


def at(address: str) -> ObjectPath:
    found = place(address)
    assert isinstance(found, ObjectPath)
    return found


def test_a_conditional_put_holds_against_others_and_not_against_ones_own_lost_answer(prefix: str, s3: Proxy) -> None:
    path = at(f"{prefix}/lease")
    first = bucket.put(path.bucket, path.key, b"mine", new=True)
    assert bucket.put(path.bucket, path.key, b"mine", new=True) == first, "as after an answer that was lost"
    with pytest.raises(bucket.Conflict):
        bucket.put(path.bucket, path.key, b"theirs", new=True)
    second = bucket.put(path.bucket, path.key, b"renewed", etag=first)
    with pytest.raises(bucket.Conflict):
        bucket.put(path.bucket, path.key, b"theirs", etag=first)
    assert path.read_bytes() == b"renewed" and second != first


@pytest.mark.parametrize("size", [0, 100, (12 << 20) + 17])
def test_uploads_arrive_whole_in_pieces_and_under_faults(
    size: int, prefix: str, s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 << 20)
    data, path, local = os.urandom(size), at(f"{prefix}/x.tar"), tmp_path / "x.tar"
    local.write_bytes(data)
    with s3.failing(0.1, seed=size):
        bucket.upload(local, path.bucket, path.key, hashlib.sha256(data).hexdigest())
        assert bucket.download(path.bucket, path.key, tmp_path / "back") == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "back").read_bytes() == data
    assert path.stat().st_size == size
    assert bucket.abort_uploads(path.bucket, path.key, older_than_seconds=-9e9) == 0, "nothing unfinished is left"


def test_an_upload_that_breaks_off_leaves_nothing_and_one_whose_worker_died_is_swept(
    prefix: str, s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, path = Pool.create(f"{prefix}/pool"), at(f"{prefix}/pool/tars/x.tar")
    begun = bucket.call("create_multipart_upload", path.bucket, path.key)["UploadId"]
    bucket.call("upload_part", path.bucket, path.key, UploadId=begun, PartNumber=1, Body=b"x" * 100)
    other = at(f"{prefix}/elsewhere/x.tar")
    bucket.call("create_multipart_upload", other.bucket, other.key)
    assert bucket.abort_uploads(path.bucket, f"{at(str(pool.path)).key}/") == 1
    left = bucket.call("list_multipart_uploads", path.bucket, Prefix=at(prefix).key).get("Uploads", [])
    assert [upload["Key"] for upload in left] == [other.key], "only the pool's own are swept"


def test_a_damaged_upload_is_noticed(prefix: str, s3: Proxy, tmp_path: Path) -> None:
    path, local = at(f"{prefix}/x"), tmp_path / "x"
    local.write_bytes(b"what was sent")
    with pytest.raises(LocalFault):
        bucket._is_arrived(b"what was sent", {"ChecksumSHA256": bucket._base64_sha256(b"what came")})
    assert not bucket._is_arrived(b"what was sent", {"ETag": '"opaque"'}), "a store that tells no checksum is asked for the bytes"
    bucket.upload(local, path.bucket, path.key, hashlib.sha256(b"what was sent").hexdigest())


def test_paths_list_match_and_read_as_on_a_disk(prefix: str, s3: Proxy, tmp_path: Path) -> None:
    for root in (at(f"{prefix}/tree"), tmp_path / "tree"):
        for name in ("a/one.json", "a/two.json", "b/deep/three.txt", "top.txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
    far, near = at(f"{prefix}/tree"), tmp_path / "tree"

    def shown(root: Path) -> dict[str, list[str]]:
        found = {
            pattern: sorted(str(path.relative_to(root)) for path in root.glob(pattern)) for pattern in ("*", "*/*.json", "a/*", "*/deep")
        }
        every = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        names = sorted((path.name, path.is_dir()) for path in root.iterdir())
        return {**found, "every": every, "names": [str(name) for name in names]}

    assert shown(far) == shown(near)
    assert [path.exists() for path in (far / "a", far / "a/one.json", far / "a/on", far / "c")] == [True, True, False, False]
    assert read_span(far / "top.txt", 2, 3) == read_span(near / "top.txt", 2, 3) == b"p.t"
    (far / "top.txt").unlink()
    (far / "top.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (far / "top.txt").read_text()
    assert not (tmp_path / "s3:").exists()


def test_a_file_is_pinned_to_the_version_that_was_found(prefix: str, s3: Proxy) -> None:
    path = at(f"{prefix}/list.csv")
    etag = bucket.put(path.bucket, path.key, b"a" * 1000)
    file = ObjectFile(path, 1000, etag)
    assert file.read_at(10, 20) == b"a" * 20
    path.write_bytes(b"b" * 1000)
    with pytest.raises(OSError, match="replaced"):
        file.read_at(10, 20)


def test_what_needs_a_file_of_this_machine_is_refused_in_one_line(prefix: str, s3: Proxy) -> None:
    path = at(f"{prefix}/x")
    for attempt in (lambda: os.listdir(path), lambda: os.stat(path), lambda: path.rename(path), lambda: path.open("w")):
        with pytest.raises(UsageError, match="does not work on an object store yet"):
            attempt()


@pytest.mark.parametrize(
    "address", ["s3://", "s3://b", "s3:///x", "s3://bucket/../x", "s3://bucket/x?versionId=1", "gs://bucket/x", "s3://bu*ket/x"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UsageError):
        place(address)


def test_what_pathlib_makes_of_an_address_is_understood() -> None:
    assert str(place(Path("s3://bucket/a/b"))) == "s3://bucket/a/b"
    assert is_object(place("s3://bucket/a")) and not is_object(place("a"))
    assert str(place("s3://bucket/a") / "c" / "d.json") == "s3://bucket/a/c/d.json"


REFUSALS = [
    ((403, "AccessDenied"), 2, "check the credentials"),
    ((403, "InvalidAccessKeyId"), 2, "check the credentials"),
    ((404, "NoSuchBucket"), 2, "there is no bucket 'pools'"),
    ((403, "RequestTimeTooSkewed"), 1, "clock"),
    ((400, "ExpiredToken"), 1, "have expired"),
    ((503, "SlowDown"), 1, "answers SlowDown"),
]


@pytest.mark.parametrize(("answer", "code", "words"), REFUSALS, ids=lambda value: str(value))
def test_refusals_are_one_line_with_the_right_exit_code(
    answer: tuple[int, str], code: int, words: str, s3: Proxy, prefix: str, curate: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "TRIES", 2)
    bucket._client.cache_clear()
    with s3.refusing(*answer):
        said = curate("status", f"{prefix}/pool")
    assert said.code == code, said.err
    assert words in said.err and said.err.count("\n") == 1 and "Traceback" not in said.err


def test_no_credentials_no_bucket_no_server(
    s3: Proxy, prefix: str, curate: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = curate("run", "ingest", "--pool", "s3://there-is-none/pool", f"input.path={tmp_path}/list.txt")
    assert missing.code == 2 and "there is no bucket 'there-is-none'" in missing.err
    nothing = curate("status", f"{prefix}/pool")
    assert nothing.code == 2 and "is no pool" in nothing.err and f"{prefix}/pool" in nothing.err
    monkeypatch.setattr(bucket, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    bucket._client.cache_clear()
    away = curate("status", f"{prefix}/pool")
    assert away.code == 1 and "cannot be reached" in away.err
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    bucket._client.cache_clear()
    unknown = curate("status", f"{prefix}/pool")
    assert unknown.code == 2 and "no credentials" in unknown.err


def test_a_missing_extra_is_named(prefix: str, s3: Proxy, curate: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "botocore.session", None)
    bucket._client.cache_clear()
    said = curate("status", f"{prefix}/pool")
    assert said.code == 2 and "curate-vlm[s3]" in said.err


def test_commands_that_need_a_disk_say_so(prefix: str, s3: Proxy, curate: Callable[..., Said]) -> None:
    Pool.create(f"{prefix}/pool")
    for command in (
        ["takedown", f"{prefix}/pool", "--where", "true", "--yes"], ["purge", f"{prefix}/pool", "--where", "true", "--yes"],
        ["train", f"{prefix}/pool"], ["eval", f"{prefix}/pool"], ["ablate", "policies", "--pool", f"{prefix}/pool"],
        ["demo", "--pool", f"{prefix}/demo"],
    ):  # fmt: skip
        said = curate(*command)
        assert said.code == 2 and re.search("object store yet|folder of this machine", said.err), (command, said.err)


def test_user_names_in_addresses_are_refused_and_not_shown(s3: Proxy, curate: Callable[..., Said], tmp_path: Path) -> None:
    for pool, listed in (("s3://AKIA1:hunter2@pools/x", "list.txt"), (f"{tmp_path}/pool", "s3://AKIA1:hunter2@pools/list.txt")):
        said = curate("run", "ingest", "--pool", pool, f"input.path={listed}")
        assert said.code == 2 and "must not hold a user name or secret" in said.err
        assert "hunter2" not in said.err + said.out


def test_a_pool_is_not_made_where_other_things_are(prefix: str, s3: Proxy) -> None:
    at(f"{prefix}/full/other.txt").write_text("x")
    with pytest.raises(CurateError, match="not empty and not a pool"):
        Pool.create(f"{prefix}/full")
    assert Pool.create(f"{prefix}/new").path == Pool.create(f"{prefix}/new").path
