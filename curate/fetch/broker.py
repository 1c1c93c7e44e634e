"""The broker: one small process per user and machine that says when which site may be asked, and keeps what hosts say.

Every fetch worker on the machine is connected to it over a Unix socket, so that all of them together keep a site's
budget, and so that a host's robots.txt is asked for once a day. It is started by whoever finds none and ends by itself.
It runs by path in a bare interpreter and uses the standard library only: it is there within some ten milliseconds.

Messages are lines of words; an id is the client's own number. From a client:

    a ID SITE IN_FLIGHT GAP PATIENCE   may I start a request?   -> g ID: go, or n ID SECONDS: not that soon
    b ID                               the site has the request: from now on counts the gap to the next start
    r ID                               the request is over, or no longer wanted
    h ID SITE IN_FLIGHT GAP            an open request, told to a new broker
    l ID KEY                           what is known of KEY?    -> d ID TEXT: this, or f ID: nothing, find it out and tell
    p ID EXPIRES TEXT                  found out; whoever asked gets it, and whoever asks until EXPIRES
    x ID TEXT                          found out, but only for those who asked by now
    q ID                               no longer wanted; somebody else who asked finds it out
    k ID KEY                           I am finding KEY out, told to a new broker
    s KEY EXPIRES TEXT                 known from elsewhere

The gap runs from the moment at which the site has a request, as far as its sender can tell: two starts never come closer
at the site than they were granted. A client that dies gives back what it held, one gap later. A broker that finds
the socket of one that was killed first waits until clients have told what they hold.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import selectors
import socket
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable

SOCKET, LOCK, STORE = "broker-1.sock", "broker-1.lock", "broker-1.sqlite"
LINGER_SECONDS = 5.0  # without clients
QUIET_SECONDS = 1.0  # after a broker that was killed: time for clients to come back
SWEEP_SECONDS = 0.5
_RECEIVE_BYTES = 1 << 18
_NEVER = float("-inf")
_WAITING, _STARTING, _OPEN, _GONE = range(4)


class Site:
    """Budget and queue of one site; `last` is when a request last reached it, as far as is known."""

    __slots__ = ("due", "gap", "last", "name", "open", "queue", "starting")

    def __init__(self, name: str, last: float) -> None:
        self.name, self.last = name, last
        self.queue: deque[Ask] = deque()
        self.open = self.starting = 0
        self.gap = 0.0  # longest that anybody asked for
        self.due = _NEVER  # time of the next timer


class Ask:
    """One request: waiting in its site's queue, or open."""

    __slots__ = ("deadline", "gap", "in_flight", "number", "peer", "site", "state")

    def __init__(self, peer: Peer, number: str, site: Site, in_flight: int, gap: float, deadline: float) -> None:
        self.peer, self.number, self.site = peer, number, site
        self.in_flight, self.gap, self.deadline = in_flight, gap, deadline
        self.state = _WAITING


class Peer:
    """One client: what it asked for, and what is still to be sent to it."""

    __slots__ = ("asks", "blocked", "out", "rest", "searches", "sock", "writing")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.out: list[str] = []
        self.asks: dict[str, Ask] = {}
        self.searches: dict[str, str] = {}  # id -> key
        self.writing = b""
        self.blocked = False  # the socket takes no more for now


class Budgets:
    """Who may start when; every method takes the time."""

    def __init__(self, quiet_until: float, last: float) -> None:
        self.sites: dict[str, Site] = {}
        self._quiet_until, self._last = quiet_until, last
        self._timers: list[tuple[float, int, Site]] = []
        self._turn = itertools.count()

    def ask(self, peer: Peer, words: list[str], now: float) -> None:
        """Grants a start, queues it, or says that it would take longer than `patience` (negative: no matter how long)."""
        _, number, name, in_flight, gap, patience = words
        site = self._site(name)
        ask = Ask(peer, number, site, int(in_flight), float(gap), float("inf"))
        if float(patience) >= 0:
            ask.deadline = now + float(patience)
            wait = max(0.0, site.last + ask.gap - now) + len(site.queue) * ask.gap
            if site.queue and wait > float(patience):  # the head of a queue is never sent away: every pass gets on
                peer.out.append(f"n {number} {wait:.3f}")
                return
        peer.asks[number] = ask
        site.gap = max(site.gap, ask.gap)
        site.queue.append(ask)
        self._advance(site, now)

    def hold(self, peer: Peer, words: list[str], now: float) -> None:
        """Counts a request that an earlier broker granted."""
        _, number, name, in_flight, gap = words
        site = self._site(name)
        ask = peer.asks[number] = Ask(peer, number, site, int(in_flight), float(gap), 0.0)
        ask.state = _OPEN
        site.open += 1
        site.gap, site.last = max(site.gap, ask.gap), now

    def began(self, peer: Peer, number: str, now: float) -> None:
        """The site has the request."""
        ask = peer.asks.get(number)
        if ask is not None and ask.state == _STARTING:
            self._started(ask, now)
            self._advance(ask.site, now)

    def over(self, peer: Peer, number: str, now: float) -> None:
        """A request ended or was given up."""
        ask = peer.asks.pop(number, None)
        if ask is None:
            return
        if ask.state == _WAITING:
            ask.site.queue.remove(ask)
        else:
            if ask.state == _STARTING:
                self._started(ask, now)
            ask.site.open -= 1
        ask.state = _GONE
        self._advance(ask.site, now)

    def lost(self, peer: Peer, now: float) -> None:
        """A client died: its site learns of it at about the same time, so the next start keeps its distance."""
        for number, ask in list(peer.asks.items()):
            if ask.state != _WAITING:
                ask.site.last = now
            self.over(peer, number, now)

    def tick(self, now: float) -> None:
        """Grants what has become due."""
        while self._timers and self._timers[0][0] <= now:
            site = heapq.heappop(self._timers)[2]
            site.due = _NEVER
            self._advance(site, now)

    def sweep(self, now: float) -> None:
        """Sends away who waited too long behind a slow site, and forgets sites that are idle."""
        for name, site in list(self.sites.items()):
            for ask in [ask for ask in itertools.islice(site.queue, 1, None) if ask.deadline < now]:
                site.queue.remove(ask)
                del ask.peer.asks[ask.number]
                ask.peer.out.append(f"n {ask.number} {len(site.queue) * ask.gap:.3f}")
            if not site.open and not site.queue and now >= max(site.last + site.gap, self._quiet_until):
                del self.sites[name]

    def next_due(self) -> float:
        """Time of the next grant that only waits for time; infinite when there is none."""
        return self._timers[0][0] if self._timers else float("inf")

    def _site(self, name: str) -> Site:
        site = self.sites.get(name)
        if site is None:
            site = self.sites[name] = Site(name, self._last)
        return site

    def _started(self, ask: Ask, now: float) -> None:
        ask.state, ask.site.last = _OPEN, now
        ask.site.starting -= 1

    def _advance(self, site: Site, now: float) -> None:
        """Grants from the head of the queue for as long as the budget allows; sets a timer where only time is missing."""
        queue = site.queue
        while queue:
            head = queue[0]
            if (site.starting and head.gap) or site.open >= head.in_flight:
                return
            due = max(site.last + head.gap, self._quiet_until)
            if due > now:
                if site.due < now or due < site.due:
                    site.due = due
                    heapq.heappush(self._timers, (due, next(self._turn), site))
                return
            queue.popleft()
            head.state = _STARTING
            site.starting += 1
            site.open += 1
            site.last = now
            head.peer.out.append(f"g {head.number}")


class Knowledge:
    """What is known of keys, on disk until it expires; who asks for something unknown finds it out for all."""

    def __init__(self, path: str, quiet_until: float) -> None:
        self._path, self._quiet_until = path, quiet_until
        self._store: sqlite3.Connection | None = None
        self._finders: dict[str, tuple[Peer, str]] = {}
        self._waiting: dict[str, list[tuple[Peer, str]]] = {}
        self._early: list[tuple[Peer, str]] = []
        self._unsaved: dict[str, tuple[float, str]] = {}  # what a full disk did not take

    def look(self, peer: Peer, number: str, key: str, now: float) -> None:
        """Answers at once, or when it is found out; the first who asks is told to find out."""
        peer.searches[number] = key
        known = self._known(key)
        if known is not None:
            del peer.searches[number]
            peer.out.append(f"d {number} {known}")
        elif now < self._quiet_until and key not in self._finders:
            self._early.append((peer, number))
        elif key in self._finders:
            self._waiting[key].append((peer, number))
        else:
            self._appoint(peer, number, key)

    def claim(self, peer: Peer, number: str, key: str) -> None:
        """A finder that an earlier broker appointed."""
        if key in self._finders:
            self._waiting[key].append((peer, number))
        else:
            self._finders[key] = (peer, number)
            self._waiting.setdefault(key, [])
        peer.searches[number] = key

    def publish(self, peer: Peer, number: str, text: str, expires: float | None) -> None:
        """Hands what was found out to all who wait for it, and keeps it until `expires` if that is given."""
        key = peer.searches.pop(number, None)
        if key is None:
            return
        if expires is not None:
            self.keep(key, expires, text)
        if self._finders.get(key) == (peer, number):
            del self._finders[key]
            for other, asked in self._waiting.pop(key, []):
                if other.searches.pop(asked, None) is not None:
                    other.out.append(f"{'x' if expires is None else 'd'} {asked} {text}")

    def drop(self, peer: Peer, number: str) -> None:
        """A client no longer wants it; when it was the finder, the next who waits takes over."""
        key = peer.searches.pop(number, None)
        if key is None or self._finders.get(key) != (peer, number):
            return
        del self._finders[key]
        waiting = self._waiting.pop(key, [])
        while waiting:
            other, asked = waiting.pop(0)
            if asked in other.searches:
                self._appoint(other, asked, key)
                self._waiting[key] = waiting
                return

    def lost(self, peer: Peer) -> None:
        """A client died."""
        for number in list(peer.searches):
            self.drop(peer, number)

    def tick(self, now: float) -> None:
        """Takes up what was asked while earlier finders had time to come back."""
        if self._early and now >= self._quiet_until:
            early, self._early = self._early, []
            for peer, number in early:
                if number in peer.searches:
                    self.look(peer, number, peer.searches[number], now)

    def keep(self, key: str, expires: float, text: str) -> None:
        """Keeps `text` until `expires` (seconds since 1970), unless what is known lasts longer."""
        try:
            sql = "INSERT INTO known VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET expires = excluded.expires, text = excluded.text"
            self._opened().execute(f"{sql} WHERE excluded.expires > known.expires", (key, expires, text))
        except sqlite3.Error:
            self._unsaved[key] = (expires, text)

    def forget_expired(self) -> None:
        """Frees what nobody will be told any more."""
        try:
            self._opened().execute("DELETE FROM known WHERE expires <= ?", (time.time(),))
        except sqlite3.Error:
            self._unsaved = {key: found for key, found in self._unsaved.items() if found[0] > time.time()}

    def _known(self, key: str) -> str | None:
        found = self._unsaved.get(key)
        if found is not None and found[0] > time.time():
            return found[1]
        try:
            row = self._opened().execute("SELECT text FROM known WHERE key = ? AND expires > ?", (key, time.time())).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else str(row[0])

    def _appoint(self, peer: Peer, number: str, key: str) -> None:
        self._finders[key] = (peer, number)
        self._waiting[key] = []
        peer.out.append(f"f {number}")

    def _opened(self) -> sqlite3.Connection:
        """The store, opened when it is first needed; one that cannot be read is begun anew."""
        if self._store is None:
            try:
                self._store = _open_store(self._path)
            except sqlite3.Error:
                for path in (self._path, f"{self._path}-wal", f"{self._path}-shm"):
                    if os.path.exists(path):
                        os.unlink(path)
                self._store = _open_store(self._path)
        return self._store


def _open_store(path: str) -> sqlite3.Connection:
    store = sqlite3.connect(path, isolation_level=None)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("PRAGMA synchronous = OFF")  # survives the death of the process, which is all it needs to
    store.execute("CREATE TABLE IF NOT EXISTS known (key TEXT PRIMARY KEY, expires REAL, text TEXT) WITHOUT ROWID")
    store.execute("DELETE FROM known WHERE expires <= ?", (time.time(),))
    return store


class Broker:
    """Reads what clients say, answers, and ends when nobody is left."""

    def __init__(self, listener: socket.socket, store: str, recovers: bool) -> None:
        now = time.monotonic()
        quiet_until = now + QUIET_SECONDS if recovers else _NEVER
        self._budgets = Budgets(quiet_until, now if recovers else _NEVER)
        self._knowledge = Knowledge(store, quiet_until)
        self._listener, self._quiet_until = listener, quiet_until
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._peers: set[Peer] = set()
        self._alone_since = self._swept = self._cleaned = now
        self._verbs: dict[str, Callable[[Peer, list[str], float], None]] = {
            "a": self._budgets.ask,
            "b": lambda peer, words, now: self._budgets.began(peer, words[1], now),
            "r": lambda peer, words, now: self._budgets.over(peer, words[1], now),
            "h": self._budgets.hold,
            "l": lambda peer, words, now: self._knowledge.look(peer, words[1], words[2], now),
            "p": lambda peer, words, now: self._knowledge.publish(peer, words[1], words[3], float(words[2])),
            "x": lambda peer, words, now: self._knowledge.publish(peer, words[1], words[2], None),
            "q": lambda peer, words, now: self._knowledge.drop(peer, words[1]),
            "k": lambda peer, words, now: self._knowledge.claim(peer, words[1], words[2]),
            "s": lambda peer, words, now: self._knowledge.keep(words[1], float(words[2]), words[3]),
        }

    def run(self) -> None:
        """Serves until no client was there for a while and no site is owed a distance."""
        while True:
            now = time.monotonic()
            if not self._peers and not self._budgets.sites and now - self._alone_since > LINGER_SECONDS:
                return
            for key, events in self._selector.select(self._timeout(now)):
                if key.data is None:
                    self._accept()
                else:
                    self._serve(key.data, events)
            self._upkeep(time.monotonic())
            for peer in [peer for peer in self._peers if peer.out]:
                self._send(peer)

    def _timeout(self, now: float) -> float:
        return max(0.0, min(self._budgets.next_due(), self._swept + SWEEP_SECONDS, now + SWEEP_SECONDS) - now)

    def _upkeep(self, now: float) -> None:
        self._budgets.tick(now)
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            self._budgets.sweep(now)
            self._knowledge.tick(now)
        if now - self._cleaned >= 3600:
            self._cleaned = now
            self._knowledge.forget_expired()
        if self._peers:
            self._alone_since = now

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        peer = Peer(sock)
        self._peers.add(peer)
        self._selector.register(sock, selectors.EVENT_READ, peer)

    def _serve(self, peer: Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(peer)
        if not events & selectors.EVENT_READ or peer not in self._peers:
            return
        try:
            data = peer.sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(peer)
            return
        *lines, peer.rest = (peer.rest + data).split(b"\n")
        now = time.monotonic()
        try:
            for line in lines:
                words = line.decode().split(" ")
                self._verbs[words[0]](peer, words, now)
        except (KeyError, IndexError, ValueError):  # not one of ours: the others go on
            self._lose(peer)

    def _send(self, peer: Peer) -> None:
        if peer.out:
            peer.writing += ("\n".join(peer.out) + "\n").encode()
            peer.out = []
        try:
            sent = peer.sock.send(peer.writing)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lose(peer)
            return
        peer.writing = peer.writing[sent:]
        if bool(peer.writing) != peer.blocked:
            peer.blocked = bool(peer.writing)
            self._selector.modify(peer.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.blocked else 0), peer)

    def _lose(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._selector.unregister(peer.sock)
        peer.sock.close()
        self._budgets.lost(peer, time.monotonic())
        self._knowledge.lost(peer)


def listen(folder: str) -> tuple[socket.socket, int, bool] | None:
    """The listening socket, the lock, and whether an earlier broker was killed; None when a broker lives already.

    The lock is held for as long as its descriptor is open.
    """
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    path = os.path.join(folder, SOCKET)
    recovers = os.path.exists(path)
    if recovers:
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(256)
    listener.setblocking(False)
    return listener, lock, recovers


def main(folder: str) -> None:
    """Listens in `folder` and goes on in the background; returns at once, also when there is a broker already."""
    found = listen(folder)
    if found is None or os.fork():
        os._exit(0)
    os.setsid()
    listener, lock, recovers = found
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())  # for whoever looks for it
    Broker(listener, os.path.join(folder, STORE), recovers).run()
    os.unlink(os.path.join(folder, SOCKET))


if __name__ == "__main__":
    main(sys.argv[1])
