"""Statuses and resolver errors become row reasons; errors of this machine become MachineFault."""

from __future__ import annotations

import errno
import socket

_STATUS_REASONS = {401: "http_forbidden", 403: "http_forbidden", 404: "http_not_found", 410: "http_not_found", 451: "http_forbidden"}
_RETRY_STATUSES = frozenset({408, 425, 429})
_RETRY_REASONS = frozenset({"dns_timeout", "connect_failed", "connect_timeout", "connection_reset", "truncated", "http_server_error"})
_LOCAL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_UNREACHABLE = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN})
_NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", -5), getattr(socket, "EAI_ADDRFAMILY", -9)})


class ResolverSilent(OSError):
    """The resolver did not answer in time, or not what was asked; `seconds` is how long it took over that."""

    seconds = 0.0


class MachineFault(Exception):
    """A connection failed for a cause that may be this machine's; `curate.fetch.breaker` finds out.

    `unreachable`: no way to the address, or no network at all. Else descriptors, buffers, memory or ports ran short.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error
        self.unreachable = error.errno in _UNREACHABLE


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
    """Raises MachineFault when a socket error may be this machine's."""
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno in _LOCAL | _UNREACHABLE:
        raise MachineFault(error) from None


def resolver_reason(error: object) -> str:
    """dns_not_found when the name does not exist, dns_timeout when nobody could say."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME:
        return "dns_not_found"
    return "dns_timeout"
