"""img2dataset's `status` and `error_message` as our reasons.

Its messages are the texts of urllib, http.client and OpenCV; the first pattern that is found decides.
"""

from __future__ import annotations

import re

from curate.fetch.failures import status_reason

_HTTP_ERROR = re.compile(r"HTTP Error (\d{3})")

DOWNLOAD = (
    (r"^Use of image disallowed by X-Robots-Tag", "opt_out"),
    (r"^hash mismatch$", "hash_mismatch"),
    (r"returned a redirect error that would lead to an infinite loop", "too_many_redirects"),
    (r"Redirection to url .* is not allowed|unknown url type", "bad_scheme"),
    (r"no host given|Invalid IPv6 URL|URL can't contain|nonnumeric port|codec can't encode|codec failed|label (too long|empty)", "bad_url"),
    (r"\[Errno (12|23|24|99|105)\]", "local_fault"),
    (r"\[Errno -(2|5|9)\]|Name or service not known|No address associated|nodename nor servname", "dns_not_found"),
    (r"\[Errno -\d+\]|name resolution", "dns_timeout"),
    (r"urlopen error .*timed out", "connect_timeout"),
    (r"timed out", "timeout_total"),
    (r"SSL|_ssl\.c|certificate", "tls_failed"),
    (r"Connection reset|Remote end closed|Broken pipe|\[Errno (32|104)\]", "connection_reset"),
    (r"IncompleteRead", "truncated"),
    (r"urlopen error", "connect_failed"),
)
"""Texts of rows with status `failed_to_download`; what matches none is `bad_response`."""

RESIZE = (
    (r"^image too small$", "image_small"),
    (r"^image area too large$|CV_IO_MAX_IMAGE", "too_many_pixels"),
    (r"^aspect ratio too large$", "image_aspect"),
    (r"!buf\.empty\(\)", "empty_body"),
)
"""Texts of rows with status `failed_to_resize`; what matches none is `decode_failed`, also for bytes that are no image."""


def reason(status: str | None, message: str | None) -> str | None:
    """Our reason for a row of img2dataset; None for a success, `local_fault` for a row that it lost."""
    if status == "success":
        return None
    if status not in ("failed_to_download", "failed_to_resize"):
        return "local_fault"
    text = message or ""
    if status == "failed_to_resize":
        return _first(RESIZE, text) or "decode_failed"
    code = http_status(text)
    return _first(DOWNLOAD, text) or (status_reason(code) if code else None) or "bad_response"


def http_status(message: str | None) -> int | None:
    """The status that a message tells, None when it tells none."""
    found = _HTTP_ERROR.match(message or "")
    return int(found[1]) if found else None


def _first(table: tuple[tuple[str, str], ...], text: str) -> str | None:
    return next((name for pattern, name in table if re.search(pattern, text)), None)
