"""Who may write: leases, epochs, and the one way in which files enter a table.

A run takes an **epoch** on every table it will write by committing an empty Delta transaction under the application id
`curate`. Each later commit carries that epoch and a wave number. Delta refuses a commit when another transaction of
the same application came in between, so an older run can never commit after a newer one took over, whatever clocks
or sleeping processes do. The lease *file* only serves politeness: it tells a second run that the first still lives.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from curate import bucket
from curate.errors import Fenced, LocalFault, PoolBusy, RemovalUnfinished
from curate.objects import ObjectPath
from curate.stage import PartFile
from curate.store import Pool, add_statistics, sync_file, sync_folder
from curate.tenure import LeaseFile, lease_at

APPLICATION = "curate"
LEASE_SECONDS = 10.0
REMOVAL = "removal"
"""Name of the document that stands while a takedown or purge is under way; it outlives a crash."""
REMOVALS = "removals"
"""Name of the document that counts finished ones, so that a run notices one that happened behind its back."""
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


class Run:
    """One run's right to write some tables; made by `claim`."""

    def __init__(self, pool: Pool, owner: Mapping[str, object], removes: bool = False) -> None:
        self.pool = pool
        self.owner = owner
        self._removes = removes
        self._removals = pool.read_document(REMOVALS)
        self._tables: dict[str, _Claim] = {}

    def commit(self, table: str, files: Sequence[PartFile]) -> None:
        """Adds the files in one atomic transaction; a part's older file leaves in the same one.

        Files that are already there are skipped, so a wave committed twice changes nothing. Raises Fenced.
        """
        present = self._tables[table].present(self.pool)
        new = [file for file in files if file.path not in present.paths]
        self._write(table, new, [file for part in {file.part for file in new} for file in present.of(part)])

    def replace_all(self, table: str, files: Sequence[PartFile]) -> None:
        """Makes the table hold exactly these files, in one atomic transaction. Raises Fenced."""
        present = self._tables[table].present(self.pool).paths
        wanted = {file.path for file in files}
        new = [file for file in files if file.path not in present]
        self._write(table, new, [file for path, file in present.items() if path not in wanted])

    def size(self, table: str) -> int:
        """How many files the table has; 0 for one that this run does not hold."""
        return len(self._tables[table].present(self.pool).paths) if table in self._tables else 0

    def check(self) -> None:
        """Raises Fenced when a newer run has taken one of the tables over."""
        for claim in self._tables.values():
            claim.check()

    def add(self, table: str, schema: pa.Schema) -> None:
        """Claims one more table, making it when it does not exist. Raises PoolBusy, RemovalUnfinished, Fenced."""
        if table in self._tables:
            return
        self._tables[table] = _Claim.take(self.pool, table, schema, self.owner)
        if self._removes:
            return
        refuse_unfinished(self.pool)  # after the claim: a removal that begins now finds the table taken
        if self.pool.read_document(REMOVALS) != self._removals:
            raise Fenced("rows of this pool were taken down or purged meanwhile: give the same command again")

    def grow(self, table: str, schema: pa.Schema) -> None:
        """Gives a table that this run holds the columns of `schema` that it lacks, all nullable. Raises Fenced."""
        self._tables[table].grow(schema)

    def _write(self, table: str, adds: Sequence[PartFile], removes: Sequence[PartFile]) -> None:
        if adds or removes:
            self._tables[table].write(adds, removes)

    def epoch(self, table: str) -> int:
        """This run's epoch on a table that it holds: one more than that of the run before it."""
        return self._tables[table].epoch

    def release(self) -> None:
        """Gives all leases back; the epochs stay."""
        for claim in self._tables.values():
            claim.release()

    def beat(self) -> None:
        """Says that this run is still alive."""
        for claim in list(self._tables.values()):
            claim.beat()


def refuse_unfinished(pool: Pool) -> None:
    """Raises RemovalUnfinished while a takedown or purge of the pool waits to be finished."""
    found = pool.read_document(REMOVAL)
    if found is not None:
        kind = found["kind"]
        raise RemovalUnfinished(f"a {kind} of this pool is under way or was interrupted: finish it first with  curate {kind} {pool.path}")


@contextmanager
def claim(pool: Pool, tables: Mapping[str, pa.Schema], lease_seconds: float = LEASE_SECONDS, *, removes: bool = False) -> Iterator[Run]:
    """Takes the right to write `tables` for as long as the block runs.

    Raises PoolBusy when a live run holds one of them, RemovalUnfinished while rows are being taken down (`removes` is how
    a takedown itself asks). A run is dead when its process is gone (same host) or when its lease has not been renewed
    for `lease_seconds` (it was stopped, or its machine is gone).
    """
    if not removes:
        refuse_unfinished(pool)
    _remove_leftovers(pool)
    run = Run(pool, _me(lease_seconds), removes)
    stop = threading.Event()
    heart = threading.Thread(target=_beat_until, args=(run, stop, lease_seconds / 4), daemon=True)
    try:
        for table, schema in tables.items():
            run.add(table, schema)
        heart.start()
        yield run
    finally:
        stop.set()
        run.release()


class _Present:
    """The files of a table as its one writer knows them: kept up to date, since a listing of all of them a wave would be quadratic."""

    def __init__(self, files: Sequence[PartFile]) -> None:
        self.paths: dict[str, PartFile] = {}
        self._parts: dict[int, list[str]] = {}
        self.change(files, ())

    def of(self, part: int) -> list[PartFile]:
        """One part's files."""
        return [self.paths[path] for path in self._parts.get(part, ())]

    def change(self, adds: Sequence[PartFile], removes: Sequence[PartFile]) -> None:
        """What a commit did."""
        for file in removes:
            if self.paths.pop(file.path, None):
                self._parts[file.part].remove(file.path)
        for file in adds:
            self.paths[file.path] = file
            self._parts.setdefault(file.part, []).append(file.path)


class _Claim:
    """The epoch held on one table."""

    def __init__(self, pool: Pool, table: str, schema: pa.Schema, owner: Mapping[str, object]) -> None:
        self.pool, self.delta, self.schema, self.owner = pool, _table(pool, table, schema), schema, owner
        self.lease = _lease(pool, table)
        self.log = pool.table_folder(table) / "_delta_log"
        self.epoch = ((self.delta.transaction_version(APPLICATION) or 0) >> 32) + 1
        self.wave = 0
        self._present: _Present | None = None

    @classmethod
    def take(cls, pool: Pool, table: str, schema: pa.Schema, owner: Mapping[str, object]) -> _Claim:
        lease = _lease(pool, table)
        _refuse_when_live(lease)
        held = cls(pool, table, schema, owner)
        held.lease = lease
        try:
            held.write([], [])
        except Fenced:
            raise PoolBusy(f"another run took table {table!r} at this very moment: wait for it, or run the same command later") from None
        try:
            lease.write({**owner, "epoch": held.epoch})
        except bucket.Conflict:
            raise PoolBusy(f"another run took table {table!r} at this very moment: wait for it, or run the same command later") from None
        return held

    def present(self, pool: Pool) -> _Present:
        """The table's files; nobody else can have changed them unnoticed, since the next commit would be refused."""
        if self._present is None:
            self._present = _Present(pool.snapshot(self.lease.table).files)
        return self._present

    def write(self, adds: Sequence[PartFile], removes: Sequence[PartFile]) -> None:
        now = int(time.time() * 1000)
        actions = [AddAction(f.path, f.size_bytes, {}, now, True, add_statistics(f)) for f in adds]
        gone = [RemoveAction(f.path, True, now, f.size_bytes, {}) for f in removes]
        self._commit(
            lambda properties: self.delta.create_write_transaction(
                [*actions, *gone], "append", self.schema, commit_properties=properties, post_commithook_properties=_HOOKS
            )
        )
        if self._present is not None:
            self._present.change(adds, removes)

    def grow(self, schema: pa.Schema) -> None:
        have = {field.name for field in pa.schema(self.delta.schema().to_arrow())}
        new = [pa.field(field.name, field.type) for field in schema if field.name not in have]
        if new:
            fields = DeltaSchema.from_arrow(pa.schema(new)).fields
            self._commit(
                lambda properties: self.delta.alter.add_columns(fields, commit_properties=properties, post_commithook_properties=_HOOKS)
            )
        self.schema = schema

    def _commit(self, transact: Callable[[CommitProperties], None]) -> None:
        """One transaction under this epoch: it holds when this returns, or the run was fenced."""
        mark = Transaction(APPLICATION, (self.epoch << 32) + self.wave)
        named = {"epoch": str(self.epoch), "wave": str(self.wave), "commit": uuid.uuid4().hex}
        self._refresh()
        for attempt in range(bucket.TRIES):
            try:
                transact(CommitProperties(app_transactions=[mark], custom_metadata=named))
                break
            except CommitFailedError as error:
                if self._is_there(named["commit"]):
                    break
                raise Fenced(f"a newer run took over table {self._name}; this run stops and loses nothing") from error
            except (OSError, DeltaError):
                if not self._is_remote:
                    raise
                if self._is_there(named["commit"]):  # only the answer was lost
                    break
                bucket.pause(attempt)
        else:
            raise LocalFault(f"table {self._name}: the object store took no commit; nothing is lost, run the same command again")
        self.wave += 1
        self._update()
        if not self._is_remote:
            _sync_log(self.log, self.delta.version())

    @property
    def _is_remote(self) -> bool:
        return isinstance(self.pool.path, ObjectPath)

    def _is_there(self, commit: str) -> bool:
        """Whether a commit of this run is in the log although delta-rs said that it failed."""
        if not self._is_remote:
            return False
        self._update()
        return any(entry.get("commit") == commit for entry in self.pool.ask(lambda: self.delta.history(10)))

    def _update(self) -> None:
        self.pool.ask(self.delta.update_incremental)

    def check(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        self._update()
        if (self.delta.transaction_version(APPLICATION) or 0) >> 32 > (self.epoch if self.wave else self.epoch - 1):
            raise Fenced(f"a newer run took over table {self._name}; this run stops and loses nothing")

    @property
    def _name(self) -> str:
        return repr(self.lease.table)

    def beat(self) -> None:
        if self._is_mine():
            self.lease.renew()

    def release(self) -> None:
        if self._is_mine():
            self.lease.remove()

    def _is_mine(self) -> bool:
        found = self.lease.read()
        return found is not None and all(found.get(key) == value for key, value in self.owner.items())


def lease_holder(pool: Pool, table: str) -> dict[str, object] | None:
    """Who writes `table` right now (host, pid, since, heard: both seconds since 1970), or None."""
    lease = _lease(pool, table)
    found, age_seconds = lease.read(), lease.age_seconds()
    if found is None or age_seconds is None or not _is_live(found, age_seconds):
        return None
    return {**found, "heard": time.time() - age_seconds}


def _me(lease_seconds: float) -> dict[str, object]:
    me = os.getpid()
    return {"host": socket.gethostname(), "pid": me, "started": _started(me), "since": time.time(), "lease_seconds": lease_seconds}


def this_process() -> dict[str, object]:
    """Who this is, in a lease's words, for those that hold none (a training)."""
    return _me(LEASE_SECONDS)


def is_process_gone(owner: Mapping[str, object]) -> bool:
    """Whether the owner ran on this machine and does so no more; of other machines nobody knows."""
    return owner.get("host") == socket.gethostname() and _started(int(str(owner["pid"]))) != owner.get("started")


def _lease(pool: Pool, table: str) -> LeaseFile:
    return lease_at(pool.path / "leases" / f"{table}.json")


def _refuse_when_live(lease: LeaseFile) -> None:
    found, age_seconds = lease.read(), lease.age_seconds()
    if found and age_seconds is not None and _is_live(found, age_seconds):
        raise PoolBusy(f"process {found['pid']} on {found['host']} is writing table {lease.table!r} of this pool: wait for it, or stop it")


def _is_live(found: Mapping[str, object], age_seconds: float) -> bool:
    if found.get("host") == socket.gethostname() and _started(int(str(found["pid"]))) != found.get("started"):
        return False
    return age_seconds < float(str(found.get("lease_seconds", LEASE_SECONDS)))


def _started(pid: int) -> str:
    """When the process with this id began, in clock ticks since boot; empty when there is none (ids are reused)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def _beat_until(run: Run, stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        with suppress(LocalFault):  # an object store that does not answer now is asked again at the next beat
            run.beat()


def _table(pool: Pool, table: str, schema: pa.Schema) -> DeltaTable:
    folder, options = pool.table_folder(table), pool.storage_options
    found = pool.delta(table)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    plain = pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])
    pool.ask(lambda: DeltaTable.create(str(folder), schema=plain, mode="ignore", name=table, storage_options=options))
    if options is None:
        _sync_log(folder / "_delta_log", 0)
        for made in (folder, folder.parent, folder.parent.parent):
            sync_folder(made)
    made_table = pool.delta(table)
    assert made_table is not None
    return made_table


def _sync_log(log: Path, version: int) -> None:
    """delta-rs leaves its log to the page cache; a power cut must not take a commit back."""
    checkpoint = [*log.glob(f"{version:020d}.checkpoint*"), *log.glob("_last_checkpoint")]  # readers begin there: it must be whole
    for path in (log / f"{version:020d}.json", *checkpoint):
        sync_file(path)
    sync_folder(log)


def _remove_leftovers(pool: Pool) -> None:
    """Deletes unpublished files of processes of this host that are gone, and uploads that nobody finishes any more."""
    if isinstance(pool.path, ObjectPath):
        bucket.abort_uploads(pool.path.bucket, f"{pool.path.key}/")
    for path in pool.scratch.glob(f"{socket.gethostname()}.*"):
        pid = path.name.removeprefix(f"{socket.gethostname()}.").split(".", 1)[0]
        if pid.isdigit() and not _started(int(pid)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
