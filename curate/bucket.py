"""An S3 bucket, as a pool needs it: whole objects, ranges, listings, conditional puts, verified uploads, and plain words for errors.

All requests for side files, documents and leases go through one client, so that retries, timeouts and error lines are the
same everywhere. Credentials come from where botocore looks for them (environment, profile, the platform's role) and are
passed to nobody; addresses that carry any are refused by `curate.objects`. `AWS_ENDPOINT_URL` names another store than Amazon's.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import errno
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import CurateError, LocalFault, MissingExtra, UsageError

TRIES = 8  # of one request, and of one body that breaks off; pauses double in between
PART_BYTES = 16 << 20  # pieces of an upload; smaller files go in one request
MOST_PARTS = 10_000  # of one upload, S3's own limit
UPLOAD_SECONDS = 86_400.0  # an unfinished upload that is older than this has no living owner
_AGAIN = "nothing is lost, run the same command again"
_DENIED = {"AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled", "AccountProblem"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"}
_MISSING = {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}

Result = TypeVar("Result")


class Conflict(Exception):
    """A conditional put came too late: the object is not what the caller believed."""


@dataclass(frozen=True)
class Found:
    """An object or, without a time, a folder in a listing."""

    key: str
    size_bytes: int = 0
    modified: float = 0.0  # seconds since 1970, by the server's clock
    is_folder: bool = False


@dataclass(frozen=True)
class Body:
    """An object's bytes with what the server says of them; `now` is the server's clock, in seconds since 1970."""

    data: bytes
    etag: str
    modified: float
    now: float
    total_bytes: int  # of the whole object, where a range was asked for


def client() -> Any:
    """This process's client; made anew after a fork."""
    return _client(os.getpid())


@functools.lru_cache(maxsize=1)
def _client(process: int) -> Any:
    try:
        import botocore.session
        from botocore.config import Config
    except ModuleNotFoundError:
        raise MissingExtra("botocore", "s3") from None
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # `call` does it again, and sooner
        max_pool_connections=64,
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": "path"} if endpoint() else None,  # stores at an address of one's own rarely have a name for each bucket
    )
    try:
        return botocore.session.get_session().create_client("s3", region_name=os.environ.get("AWS_REGION"), config=config)
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"the object store's settings are wrong: {_line(error)}") from None


def endpoint() -> str:
    """Where the store is when it is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def storage_options() -> dict[str, str]:
    """What delta-rs has to be told: that commits are conditional puts. Never a secret: it finds those where botocore does."""
    options = {"conditional_put": "etag"}
    if endpoint():
        options |= {"endpoint": endpoint(), "allow_http": str(endpoint().startswith("http://")).lower()}
    return options


# -- requests


def call(operation: str, bucket: str, key: str = "", **arguments: Any) -> dict[str, Any]:
    """One request, retried; raises FileNotFoundError, Conflict, or a CurateError of one line."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    if key:
        arguments["Key"] = key
    for attempt in range(TRIES):
        try:
            answer: dict[str, Any] = getattr(client(), operation)(Bucket=bucket, **arguments)
            return answer
        except ClientError as error:
            failure, passes = _refused(error, operation, bucket, key), _passes(error)
        except (BotoCoreError, ResponseParserError) as error:
            failure = _unreached(error, f"s3://{bucket}/{key}")
            passes = isinstance(failure, LocalFault)
        if not passes:
            break
        pause(attempt)
    raise failure from None


def _passes(error: Any) -> bool:
    """Whether the same request may well succeed in a moment."""
    code, status = str(error.response.get("Error", {}).get("Code", "")), error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException")


def _refused(error: Any, operation: str, bucket: str, key: str) -> Exception:
    """The store's answer as an exception; its text is left out, since it may repeat what the request was signed with."""
    code, where = str(error.response.get("Error", {}).get("Code", "")), f"s3://{bucket}/{key}"
    if code in _MISSING:
        return FileNotFoundError(errno.ENOENT, "there is no such object", where)
    if code in _CONFLICT:
        return Conflict(where)
    if code == "NoSuchBucket":
        return UsageError(f"there is no bucket {bucket!r}: make it first, or correct the address {where}")
    if code == "RequestTimeTooSkewed":
        return LocalFault(
            f"{where}: this machine's clock is too far from the object store's: set it (NTP), then run the same command again"
        )
    if code in _EXPIRED:
        return LocalFault(f"{where}: the credentials have expired ({code}): renew them, then run the same command again")
    if code in _DENIED:
        return UsageError(f"{where}: the object store refuses {operation} ({code}): check the credentials and what they permit")
    return LocalFault(f"{where}: the object store answers {code or 'nothing that is known'} to {operation}; {_AGAIN}")


def _unreached(error: Exception, where: str) -> CurateError:
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return UsageError(
            f"{where}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is given"
        )
    if kind in ("ProfileNotFound", "ConfigNotFound", "ConfigParseError", "InvalidEndpointURLError", "ParamValidationError"):
        return UsageError(f"{where}: {_line(error)}")
    return LocalFault(f"{where}: the object store cannot be reached ({kind}); {_AGAIN}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def persistent(what: Callable[[], Result], where: str) -> Result:
    """Does it again when a body breaks off; raises LocalFault in the end."""
    import botocore.exceptions as known

    broken = (
        known.IncompleteReadError,
        known.ReadTimeoutError,
        known.ResponseStreamingError,
        known.FlexibleChecksumError,
        OSError,
    )
    for attempt in range(TRIES):
        try:
            return what()
        except FileNotFoundError:
            raise
        except broken:
            pause(attempt)
    raise LocalFault(f"{where}: the object store broke off {TRIES} times; {_AGAIN}")


def pause(attempt: int) -> None:
    """Waits before the next try, twice as long each time."""
    time.sleep(min(5.0, 0.1 * 2**attempt))


# -- reading


def get(bucket: str, key: str, span: str = "", etag: str = "") -> Body:
    """An object's bytes, or a range of them (`span` as in HTTP); with `etag`, only of that version. Raises FileNotFoundError, Conflict."""
    asked: dict[str, str] = ({"Range": f"bytes={span}"} if span else {}) | ({"IfMatch": etag} if etag else {})

    def once() -> Body:
        answer = call("get_object", bucket, key, **asked)
        with contextlib.closing(answer["Body"]) as stream:
            data = stream.read()
        total = int(str(answer["ContentRange"]).rsplit("/", 1)[1]) if "ContentRange" in answer else len(data)
        return Body(data, str(answer["ETag"]), answer["LastModified"].timestamp(), _server_now(answer), total)

    return persistent(once, f"s3://{bucket}/{key}")


def download(bucket: str, key: str, target: Path) -> str:
    """Brings an object to a local file in one request; returns the sha256 of what came."""

    def once() -> str:
        digest = hashlib.sha256()
        with contextlib.closing(call("get_object", bucket, key)["Body"]) as stream, target.open("wb") as file:
            for chunk in stream.iter_chunks(4 << 20):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    return persistent(once, f"s3://{bucket}/{key}")


def head(bucket: str, key: str) -> Found:
    """Size and time of an object. Raises FileNotFoundError."""
    answer = call("head_object", bucket, key)
    return Found(key, int(answer["ContentLength"]), answer["LastModified"].timestamp())


def listing(bucket: str, prefix: str, deep: bool = False, most: int = 0) -> Iterator[Found]:
    """What lies below a prefix (empty, or ending in a slash): one level with its folders, or all objects; at most `most`."""
    asked: dict[str, Any] = {"Prefix": prefix} | ({} if deep else {"Delimiter": "/"}) | ({"MaxKeys": most} if most else {})
    while True:
        answer = call("list_objects_v2", bucket, **asked)
        yield from (Found(entry["Prefix"].rstrip("/"), is_folder=True) for entry in answer.get("CommonPrefixes", ()))
        for entry in answer.get("Contents", ()):
            if entry["Key"] != prefix:
                yield Found(entry["Key"], int(entry["Size"]), entry["LastModified"].timestamp())
        if most or not answer.get("IsTruncated"):
            return
        asked["ContinuationToken"] = answer["NextContinuationToken"]


def _server_now(answer: Mapping[str, Any]) -> float:
    """The server's clock: ages of leases are told by one clock only."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return email.utils.parsedate_to_datetime(said).timestamp() if said else time.time()


# -- writing


def put(bucket: str, key: str, data: bytes, *, new: bool = False, etag: str = "") -> str:
    """Writes a small object whole, and returns its ETag; `new`: only where none is, `etag`: only over that version.

    Raises Conflict when the condition does not hold. An answer that was lost counts as one that came.
    """
    conditions = {"IfNoneMatch": "*"} if new else {"IfMatch": etag} if etag else {}
    try:
        return str(call("put_object", bucket, key, Body=data, **conditions)["ETag"])
    except Conflict:
        found = get(bucket, key)  # perhaps our own first try, whose answer did not arrive
        if found.data != data:
            raise
        return found.etag
    except FileNotFoundError:  # If-Match on an object that is gone
        raise Conflict(f"s3://{bucket}/{key}") from None


def delete(bucket: str, key: str) -> None:
    """Deletes an object, if there is one."""
    call("delete_object", bucket, key)


def upload(source: Path, bucket: str, key: str, sha256: str) -> None:
    """Brings a local file up, in pieces where it is large, and makes sure that all of it arrived as it is.

    `sha256` is that of the file, as hex digits. Each piece's checksum is compared with what the server says of it, then the
    size of the whole; of a server that tells no checksum, the object is read back. Raises LocalFault.
    """
    size = source.stat().st_size
    step = max(PART_BYTES, -(-size // MOST_PARTS))
    with source.open("rb") as file:
        if size <= step:
            data = file.read()
            told = _is_arrived(data, _put_checked(bucket, key, data))
        else:
            told = _in_pieces(iter(lambda: file.read(step), b""), bucket, key)
    if head(bucket, key).size_bytes != size:
        raise LocalFault(f"s3://{bucket}/{key}: the object is not as long as the file that was sent; {_AGAIN}")
    if not told and hashlib.sha256(get(bucket, key).data).hexdigest() != sha256:
        raise LocalFault(f"s3://{bucket}/{key}: other bytes arrived than were sent; {_AGAIN}")


def _put_checked(bucket: str, key: str, data: bytes) -> dict[str, Any]:
    return call("put_object", bucket, key, Body=data, ChecksumSHA256=_base64_sha256(data))


def _in_pieces(pieces: Iterator[bytes], bucket: str, key: str) -> bool:
    """Whether the server said of every piece that it arrived whole; an upload that fails leaves nothing behind."""
    begun = call("create_multipart_upload", bucket, key, ChecksumAlgorithm="SHA256")["UploadId"]
    parts, told = list[dict[str, object]](), True
    try:
        for number, data in enumerate(pieces, 1):
            answer = call("upload_part", bucket, key, UploadId=begun, PartNumber=number, Body=data, ChecksumSHA256=_base64_sha256(data))
            told = _is_arrived(data, answer) and told
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": _base64_sha256(data)})
        _complete(bucket, key, begun, parts)
    except BaseException:
        _abort(bucket, key, begun)
        raise
    return told


def _complete(bucket: str, key: str, begun: str, parts: Sequence[Mapping[str, object]]) -> None:
    with contextlib.suppress(FileNotFoundError):  # no such upload: the first try's answer was lost; the object's size is checked next
        call("complete_multipart_upload", bucket, key, UploadId=begun, MultipartUpload={"Parts": parts})


def _abort(bucket: str, key: str, upload_id: str) -> None:
    try:
        call("abort_multipart_upload", bucket, key, UploadId=upload_id)
    except (CurateError, OSError):
        return  # it is swept later


def _is_arrived(data: bytes, answer: Mapping[str, Any]) -> bool:
    """True when the server's checksum is ours, False when it names none that we know; raises LocalFault when it is another."""
    said = answer.get("ChecksumSHA256")
    if said is not None and said != _base64_sha256(data):
        raise LocalFault(f"an upload arrived damaged; {_AGAIN}")
    return said is not None or str(answer.get("ETag", "")).strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()


def _base64_sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def abort_uploads(bucket: str, prefix: str, older_than_seconds: float = UPLOAD_SECONDS) -> int:
    """Throws away what unfinished uploads of dead workers hold (and cost); returns how many there were."""
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_seconds)
    swept, asked = 0, dict[str, Any](Prefix=prefix)
    while True:
        answer = call("list_multipart_uploads", bucket, **asked)
        for found in answer.get("Uploads", ()):
            if found["Initiated"] <= before:
                _abort(bucket, found["Key"], found["UploadId"])
                swept += 1
        if not answer.get("IsTruncated"):
            return swept
        asked |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}
