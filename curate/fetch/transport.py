"""GET requests over libcurl: many at once, few Python lines for each; the only user of pycurl.

Every socket is made by the caller's guard at the moment of connecting. Names are never resolved here: addresses come with
the request. No cookies, credentials or referer are sent, no redirect is followed, no proxy is used but a given one, and
what is not wanted (by the judge of the headers) is not read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pycurl

from curate.errors import LocalFault
from curate.fetch.buffer import ByteBudget
from curate.fetch.failures import status_reason
from curate.fetch.guard import AddressInfo, BlockedAddress
from curate.fetch.transfer import Head, Transfer, TransportSettings
from curate.fetch.watch import Watch

_KEEPALIVE_SECONDS = 2  # idle sockets cost descriptors: 300 rows/s for 2 s stay below the usual limit of 1,024
_READ_BYTES = 128 << 10  # also what libcurl holds of a body that waits for room
_MAX_HEADERS = 128
_EVENTS = 512
_WATCH_SECONDS = 0.25
_FRAMING_BYTES = 8 << 20  # more than any honest framing, and than what the kernel may hold of a body that is not read yet
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received of Linux's struct tcp_info
_PLENTY_BYTES = 2 << 20  # of bodies that wait for the decoder, or are about to
_RESET = ("reset", "broken pipe", "recv failure", "send failure", "empty reply", "closed abruptly", "unexpected eof")
_BROKEN = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING})
_TLS = frozenset({pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, 53, 54, 58, 59, 64, 66, 80, 82, 83, 90, 91})


class Transport:
    """libcurl's multi interface on an event loop: its sockets are in an epoll set of their own, which the loop watches."""

    def __init__(self, settings: TransportSettings, open_socket: Callable[[AddressInfo], socket.socket], budget: ByteBudget) -> None:
        self._settings, self._open_socket, self._budget = settings, open_socket, budget
        self._authorities = _authorities()
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._listening = Watch(self._loop, self._epoll.fileno(), self._turn, lambda: budget.used_bytes > _PLENTY_BYTES)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, max(1, settings.kept_connections))
        self._timer: asyncio.TimerHandle | None = None
        self._registered: dict[int, int] = {}
        self._descriptors: dict[int, int] = {}  # of connections, by their local port
        self._ports: dict[int, int] = {}  # the other way round
        self._active: dict[pycurl.Curl, Transfer] = {}
        self._idle: list[pycurl.Curl] = []
        self._paused: deque[pycurl.Curl] = deque()
        self._watch_seconds = min(_WATCH_SECONDS, settings.floor_seconds / 2)
        self._watch = self._loop.call_later(self._watch_seconds, self._judge_bodies)

    async def get(self, transfer: Transfer) -> Transfer:
        """Does one GET; what went wrong stands in the transfer. Cancelling gives it up."""
        curl = self._idle.pop() if self._idle else self._new_handle()
        try:
            self._prepare(curl, transfer)
        except (pycurl.error, ValueError):
            self._idle.append(curl)
            transfer.reason = "bad_url"
            return transfer
        transfer.future = self._loop.create_future()
        self._active[curl] = transfer
        self._multi.add_handle(curl)
        try:
            await transfer.future
            return transfer
        except asyncio.CancelledError:
            if self._active.get(curl) is transfer:
                self._end(curl, pycurl.E_ABORTED_BY_CALLBACK, "")
            self.release(transfer)
            raise
        finally:
            transfer.forget()

    def release(self, transfer: Transfer) -> None:
        """Gives back the body's share of the byte budget; may be called again."""
        size, transfer.held_bytes = transfer.held_bytes, 0
        if size:
            self._budget.release(transfer, size)
            if self._paused:
                self._loop.call_soon(self._resume)

    def close(self) -> None:
        """Ends all connections; nobody may be waiting."""
        self._listening.close()
        self._watch.cancel()
        if self._timer:
            self._timer.cancel()
        for curl in self._active:
            self._multi.remove_handle(curl)
        for curl in (*self._active, *self._idle):
            curl.close()
        self._multi.close()
        self._epoll.close()

    # -- between libcurl and the loop

    def _turn(self) -> None:
        for descriptor, events in self._epoll.poll(0, _EVENTS):
            self._multi.socket_action(descriptor, _flags(events))
        self._collect()

    def _on_due(self) -> None:
        self._timer = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _on_timer(self, milliseconds: int) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None if milliseconds < 0 else self._loop.call_later(milliseconds / 1000, self._on_due)

    def _on_socket(self, event: int, descriptor: int, multi: object, data: object) -> None:
        wanted = {pycurl.POLL_IN: select.EPOLLIN, pycurl.POLL_OUT: select.EPOLLOUT, pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT}
        mask = wanted.get(event, 0)
        if event == pycurl.POLL_REMOVE:
            if self._registered.pop(descriptor, None) is not None:
                with suppress(OSError):
                    self._epoll.unregister(descriptor)
        elif descriptor in self._registered:
            self._epoll.modify(descriptor, mask)
        else:
            self._registered[descriptor] = mask
            self._note_port(descriptor)
            try:
                self._epoll.register(descriptor, mask)
            except FileExistsError:  # closed and opened again under the same number
                self._epoll.modify(descriptor, mask)

    def _note_port(self, descriptor: int) -> None:
        """Where the connection is found again; what the descriptor led to before is gone."""
        port, before = _local_port(descriptor), self._ports.get(descriptor)
        if before is not None and self._descriptors.get(before) == descriptor:
            del self._descriptors[before]
        self._ports[descriptor], self._descriptors[port] = port, descriptor

    def _new_handle(self) -> pycurl.Curl:
        curl, said = pycurl.Curl(), self._settings
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.USERAGENT, said.user_agent)
        curl.setopt(pycurl.HTTPHEADER, [f"Accept: {said.accept}", "Accept-Encoding: identity"])
        curl.setopt(pycurl.BUFFERSIZE, _READ_BYTES)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(said.connect_seconds * 1000))
        curl.setopt(pycurl.DNS_CACHE_TIMEOUT, 1)  # addresses come with each request; a long list is searched by each
        curl.setopt(pycurl.MAXAGE_CONN, _KEEPALIVE_SECONDS)
        curl.setopt(pycurl.PROXY, said.proxy or "")  # an empty one also overrules the environment
        if self._authorities:
            curl.setopt(pycurl.CAINFO, self._authorities)
        if not said.kept_connections:
            curl.setopt(pycurl.FORBID_REUSE, 1)
        self._listen(curl)
        return curl

    def _listen(self, curl: pycurl.Curl) -> None:
        """What libcurl tells of a handle goes to the transfer that it is doing then; an idle one keeps no body alive."""
        active = self._active
        curl.setopt(pycurl.HEADERFUNCTION, lambda line: self._on_header(active[curl], line))
        curl.setopt(pycurl.WRITEFUNCTION, lambda data: self._on_body(curl, active[curl], data))
        curl.setopt(pycurl.OPENSOCKETFUNCTION, lambda purpose, address: self._socket(active[curl], address))
        curl.setopt(pycurl.PREREQFUNCTION, lambda theirs, ours, their_port, port: self._on_request(active[curl], port))

    def _prepare(self, curl: pycurl.Curl, transfer: Transfer) -> None:
        transfer._is_tunnelled = not (self._settings.proxy and transfer.url.startswith("https:"))
        curl.setopt(pycurl.URL, transfer.url)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(transfer.seconds * 1000)))
        curl.setopt(pycurl.RESOLVE, list(transfer.pins))
        curl.setopt(pycurl.FRESH_CONNECT, transfer._is_again)

    def _socket(self, transfer: Transfer, address: tuple[int, int, int, tuple[object, ...]]) -> object:
        family, kind, protocol, place = address
        transfer._is_dialled = True
        try:
            return self._open_socket((family, kind, protocol, "", place))
        except BlockedAddress:
            transfer._is_blocked = True
        except OSError as error:
            transfer.error = error
        except Exception as error:
            transfer._bug = error
        return pycurl.SOCKET_BAD

    def _on_request(self, transfer: Transfer, port: int) -> int:
        """A connection is ready for the request. One that was kept and says something unasked, be it goodbye, is not used:
        libcurl looks only at those that were idle for a second, and would take what lies there for the answer."""
        if not transfer._is_dialled and _is_readable(self._descriptors.get(port)):
            transfer._is_stale = True
            return int(pycurl.PREREQFUNC_ABORT)
        transfer._is_sent = True
        try:
            transfer.announce("sent")
        except Exception as error:
            transfer._bug = error
            return int(pycurl.PREREQFUNC_ABORT)
        return int(pycurl.PREREQFUNC_OK)

    def _on_header(self, transfer: Transfer, line: bytes) -> int | None:
        """One header line; the blank one ends the head. Returning 0 ends the transfer."""
        if transfer._is_judged:
            return None  # a trailer
        if line.startswith(b"HTTP/"):
            status = line.split(None, 2)[1:2]
            transfer.head = Head(int(status[0]) if status and status[0].isdigit() and len(status[0]) == 3 else 0)
            return None
        head, text = transfer.head, line.decode("latin-1").rstrip("\r\n")
        if head is None or len(line) > self._settings.max_header_bytes or head.lines >= _MAX_HEADERS:
            return self._stop(transfer, "bad_response")
        if text:
            return None if head.add(text) else self._stop(transfer, "bad_response")
        if 100 <= head.status < 200 and head.status != 101:
            return None
        return self._judge(transfer, head) if transfer._is_tunnelled else self._tunnel(transfer, head)

    def _tunnel(self, transfer: Transfer, head: Head) -> int | None:
        """The proxy's own answer to CONNECT."""
        transfer._is_tunnelled = True
        if 200 <= head.status < 300:
            return None
        return self._stop(transfer, status_reason(head.status) or "bad_response")

    def _judge(self, transfer: Transfer, head: Head) -> int | None:
        transfer._is_judged = True
        transfer._watched = (self._loop.time(), 0)
        try:
            transfer._told_bytes = head.length
        except ValueError:
            return self._stop(transfer, "bad_response")
        try:
            transfer.announce("began")
            transfer._most = transfer.judge(head)
        except Exception as error:  # raised again where somebody awaits the transfer; libcurl would only print it
            transfer._bug = error
        return 0 if transfer._most is None else None

    def _on_body(self, curl: pycurl.Curl, transfer: Transfer, data: bytes) -> int | None:
        """A piece of the body: kept, refused, or left with libcurl until there is room."""
        most, size = transfer._most or 0, transfer.size + len(data)
        if not self._has_room(transfer, size):
            transfer._wanted = size
            self._paused.append(curl)
            return int(pycurl.WRITEFUNC_PAUSE)
        transfer.size = size
        if size > most and not transfer.may_be_cut:
            return self._stop(transfer, "too_large")
        transfer._chunks.append(data)
        return 0 if size > most else None

    def _has_room(self, transfer: Transfer, size: int) -> bool:
        """Whether a body may grow to `size`; reserves what that takes."""
        most = transfer._most or 0
        if not transfer.held_bytes:
            transfer.held_bytes = self._budget.reserve(transfer._told_bytes, most)
        if transfer.held_bytes and transfer.held_bytes < size <= most and self._budget.grow(transfer, most - transfer.held_bytes):
            transfer.held_bytes = most
        return transfer.held_bytes >= min(size, most) > 0

    def _resume(self) -> None:
        """Lets those that wait for room go on: first who holds some already, else in their order."""
        waiting, self._paused = self._paused, deque()
        for curl in sorted(waiting, key=lambda one: not (one in self._active and self._active[one].held_bytes)):
            transfer = self._active.get(curl)
            if transfer is None or not transfer._wanted:
                continue
            if not self._has_room(transfer, transfer._wanted):
                self._paused.append(curl)
                continue
            transfer._wanted = 0
            transfer._watched = (self._loop.time(), transfer.size)
            with suppress(pycurl.error):  # what libcurl held back was too much: the transfer ends, and is collected
                curl.pause(pycurl.PAUSE_CONT)
        self._collect()

    def _stop(self, transfer: Transfer, reason: str) -> int:
        transfer.reason = reason
        return 0

    def _collect(self) -> None:
        """Takes what came to an end."""
        left = 1
        while left:
            left, done, failed = self._multi.info_read()
            for curl in done:
                self._end(curl, 0, "")
            for curl, code, text in failed:
                self._end(curl, code, text)

    def _judge_bodies(self) -> None:
        """Ends bodies that come slower than the floor, or hidden in more framing than there is to them."""
        self._watch = self._loop.call_later(self._watch_seconds, self._judge_bodies)
        for curl, transfer in list(self._active.items()):
            if transfer._most is None or transfer._wanted:
                continue
            reason = "bad_response" if self._is_framing(curl, transfer) else self._slowness(transfer)
            if reason:
                transfer.reason = transfer.reason or reason
                self._end(curl, 0, "")

    def _slowness(self, transfer: Transfer) -> str | None:
        """A server that has not begun to answer has until the deadline."""
        now, said = self._loop.time(), self._settings
        since, size = transfer._watched
        if now - since < said.floor_seconds:
            return None
        transfer._watched = (now, transfer.size)
        return "too_slow" if transfer.size - size < said.min_bytes_per_second * (now - since) else None

    def _is_framing(self, curl: pycurl.Curl, transfer: Transfer) -> bool:
        """Whether what came over the connection is mostly no body (chunk extensions without end): reading it is all our own cost."""
        received = _received_bytes(self._descriptors.get(curl.getinfo(pycurl.LOCAL_PORT)))
        if received is None:
            return False
        if transfer._wire_bytes is None:
            transfer._wire_bytes = received - transfer.size
        return received - transfer._wire_bytes > 2 * transfer.size + _FRAMING_BYTES

    def _end(self, curl: pycurl.Curl, code: int, text: str) -> None:
        transfer = self._active[curl]
        self._multi.remove_handle(curl)
        if code and self._may_try_again(curl, transfer, code):
            transfer.seconds -= curl.getinfo(pycurl.TOTAL_TIME)
            transfer._is_again, transfer._is_stale, transfer._is_sent = True, False, False
            self._prepare(curl, transfer)
            self._multi.add_handle(curl)
            return
        del self._active[curl]
        if transfer.reason is None and code:
            self._explain(curl, transfer, code, text.lower())
        self._idle.append(curl)
        if transfer.reason is None and transfer._most is not None:
            transfer.body = b"".join(transfer._chunks)
        transfer._chunks = []
        if transfer.body is None:
            self.release(transfer)
        if transfer.future is None or transfer.future.done():
            return
        if transfer._bug is not None:
            transfer.future.set_exception(transfer._bug)
        else:
            transfer.future.set_result(None)

    def _may_try_again(self, curl: pycurl.Curl, transfer: Transfer, code: int) -> bool:
        """Whether all that failed was a connection kept from an earlier request, which its server gave up meanwhile."""
        if transfer._is_again or transfer._is_judged or transfer.future is None or transfer.future.done():
            return False
        broke = code in _BROKEN and transfer.head is None and not curl.getinfo(pycurl.NUM_CONNECTS)
        return transfer._is_stale or broke

    def _explain(self, curl: pycurl.Curl, transfer: Transfer, code: int, text: str) -> None:
        """What libcurl's code means for the row."""
        is_ours = transfer._most is None or (transfer.may_be_cut and transfer.size > transfer._most)
        if code in (pycurl.E_WRITE_ERROR, pycurl.E_ABORTED_BY_CALLBACK) and transfer._is_judged and is_ours:
            return  # we ended it ourselves, and know why
        if code == pycurl.E_COULDNT_CONNECT and not transfer._is_blocked and transfer.error is None:
            number = int(curl.getinfo(pycurl.OS_ERRNO)) or errno.EMFILE  # pycurl's own copy of the socket could not be made
            transfer.error = OSError(number, os.strerror(number))
        transfer.reason = _reason(transfer, code, text)


def _reason(transfer: Transfer, code: int, text: str) -> str:
    if code in (pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY):
        return "blocked_address" if transfer._is_blocked else "connect_failed"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return "timeout_total" if transfer._is_sent else "connect_timeout"
    if any(words in text for words in _RESET):
        return "connection_reset"
    if code in _TLS:
        return "tls_failed"
    if code == pycurl.E_PARTIAL_FILE:
        return "truncated"
    if code == pycurl.E_GOT_NOTHING:
        return "connection_reset"
    if code == pycurl.E_URL_MALFORMAT:
        return "bad_url"
    if code == pycurl.E_COULDNT_RESOLVE_HOST:
        return "dns_not_found"
    if code == pycurl.E_OUT_OF_MEMORY:
        return "local_fault"
    return "bad_response"


def _local_port(descriptor: int) -> int:
    """Port of this end of a connection; 0 when it is gone."""
    with suppress(OSError), _borrowed(descriptor) as held:
        return int(held.getsockname()[1])
    return 0


def _received_bytes(descriptor: int | None) -> int | None:
    """What has come over a connection since it was made; None where the system does not tell."""
    if descriptor is None:
        return None
    with suppress(OSError, struct.error), _borrowed(descriptor) as held:
        return int(_RECEIVED.unpack(held.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED.size))[0])
    return None


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """One of libcurl's sockets, to be asked and left open."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
    try:
        yield held
    finally:
        held.detach()


def _is_readable(descriptor: int | None) -> bool:
    """Whether something lies there to be read, or the other end has hung up."""
    if descriptor is None:
        return False
    look = select.poll()
    look.register(descriptor, select.POLLIN)
    return bool(look.poll(0))


def _flags(events: int) -> int:
    flags = pycurl.CSELECT_IN if events & (select.EPOLLIN | select.EPOLLHUP) else 0
    if events & select.EPOLLOUT:
        flags |= pycurl.CSELECT_OUT
    return flags | (pycurl.CSELECT_ERR if events & select.EPOLLERR else 0)


def _authorities() -> str | None:
    """File of the certificate authorities that this machine trusts. Raises LocalFault when SSL_CERT_FILE names none."""
    named = os.environ.get("SSL_CERT_FILE")
    if named and not os.path.isfile(named):
        raise LocalFault(f"SSL_CERT_FILE names {named}, which is not there")
    return named or ssl.get_default_verify_paths().cafile
