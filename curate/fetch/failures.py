"""Statuses and resolver errors become row reasons; errors of this machine become LocalFault."""

from __future__ import annotations

import errno
import socket

from curate.errors import LocalFault

_STATUS_REASONS = {401: "http_forbidden", 403: "http_forbidden", 404: "http_not_found", 410: "http_not_found", 451: "http_forbidden"}
_RETRY_STATUSES = frozenset({408, 425, 429})
_RETRY_REASONS = frozenset({"dns_timeout", "connect_failed", "connect_timeout", "connection_reset", "truncated", "http_server_error"})
_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5), getattr(socket, "EAI_ADDRFAMILY", -9)})


class ResolverSilent(OSError):
    """The resolver did not answer in time."""


def status_reason(status: int) -> str | None:
    """Reason for an HTTP status that is no redirect; None for 200."""
    if status == 200:
        return None
    if status == 429:
        return "http_rate_limited"
    if 500 <= status <= 599:
        return "http_server_error"
    return _STATUS_REASONS.get(status, "http_status")


def retryable(reason: str | None, status: int | None) -> bool:
    """Whether the same URL is asked again within this run: {408, 425, 429, 5xx, DNS, connect, reset, truncated}."""
    return reason in _RETRY_REASONS or (reason in ("http_rate_limited", "http_status") and status in _RETRY_STATUSES)


def check_local(error: object) -> None:
    """Raises LocalFault when a socket error is this machine's: descriptors, buffers, memory, ports."""
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno in _LOCAL:
        raise LocalFault(f"cannot open a connection: {error.strerror}; raise the limit (ulimit -n) or lower fetch.in_flight") from None


def resolver_reason(error: object) -> str:
    """dns_not_found when the name does not exist, dns_timeout when nobody could say."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME:
        return "dns_not_found"
    return "dns_timeout"
