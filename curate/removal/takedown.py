"""Takedown and purge: rows, or only their bytes, leave a pool for good.

In this order, each step repeatable: rows and intentions are written down (`journal`) · the suppression list is committed ·
parts are written anew and committed, some at a time, and what they replace is deleted at once · shards · subsets · pages
and leftovers · the record for downstream · the journal goes. A takedown ends with a search of every file of the pool.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from curate import schema as schemas
from curate.catalog.borrowed import Borrowed, part_of
from curate.errors import UsageError
from curate.lease import Run, claim
from curate.progress import Progress, Silent
from curate.removal import journal as journals
from curate.removal.evidence import with_marks
from curate.removal.journal import Journal, Subsetted, Written
from curate.removal.lists import Named
from curate.removal.packed import Repacking
from curate.removal.pairs import drop_pairs
from curate.removal.parts import PartRewrite
from curate.removal.proof import ProofReport, prove
from curate.removal.subsets import settle, standings
from curate.removal.sweep import delete_caches, delete_replaced, parts_with_strays
from curate.removal.targets import Targets, purge_targets, takedown_targets
from curate.removal.tars import Leaving, TarRewrite
from curate.shards.subset import read_subset, write_text
from curate.stage import PartFile
from curate.store import Pool
from curate.suppress import TABLE as SUPPRESSED

BATCH_PARTS = 32
"""Parts that are written before they are committed and their old files deleted: the most that a removal needs twice on disk."""


@dataclass(frozen=True)
class Outline:
    """What a removal is about to do."""

    kind: str
    rows: int
    named: int
    images: int
    bytes: int
    parts: int
    near_copies: int  # rows that stay although a groups table calls them the same picture
    elsewhere: int  # entries of the list that no row has; they are barred as well
    spared: int  # rows whose image stays for another row
    shards: int  # packed samples that go


@dataclass(frozen=True)
class RemovalReport:
    """What was done. `record` is the file for downstream, with `.json` beside it; `proof` what the search found."""

    outline: Outline
    record: Path | None = None
    bytes_freed: int = 0
    subsets: dict[str, str] | None = None  # what became of each that changed
    shards: int = 0  # files written anew
    proof: ProofReport | None = None
    finished: str = ""  # what had been left unfinished and was finished first


def takedown(
    pool: Pool,
    where: str | None = None,
    listed: Path | None = None,
    because: str = "",
    *,
    only_named: bool = False,
    near_copies: bool = False,
    keep_text: bool = False,
    proof: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> RemovalReport:
    """Withdraws rows: nothing of their images, embeddings and texts stays, and nothing of it comes back.

    With neither `where` nor `listed` an interrupted removal is finished. `only_named` leaves other rows with equal bytes,
    `near_copies` takes the members of their duplicate groups too, `keep_text` leaves captions and input columns. Raises
    UsageError for a request that names nothing that can be found or barred, PoolBusy while another run writes. The same
    request again changes nothing.
    """
    progress = progress or Silent()
    if dry_run:
        return RemovalReport(outline(pool, "takedown", takedown_targets(pool, where, listed, only_named, near_copies)))
    with claim(pool, {}, removes=True) as run:
        earlier = _finish_earlier(pool, run, progress)
        report = earlier
        if where is not None or listed is not None:
            targets = takedown_targets(pool, where, listed, only_named, near_copies)
            told = outline(pool, "takedown", targets)
            if told.rows or told.elsewhere:
                journal = _begin(pool, run, "takedown", targets, because, not keep_text)
                report = _finish(pool, run, journal, told, progress)
            elif not told.named and earlier is None:
                raise UsageError("no row of this pool is meant by that, and nothing new is to be barred")
            else:  # the same was taken down before, or just now when it was finished
                report = earlier or RemovalReport(told)
    if report is None:
        raise UsageError("say what to take down: --where CONDITION or --list FILE")
    found = prove(pool, progress) if proof else None
    return dataclasses.replace(report, proof=found, finished=earlier.outline.kind if earlier else "")


def purge(pool: Pool, where: str | None = None, *, dry_run: bool = False, progress: Progress | None = None) -> RemovalReport:
    """Deletes the stored bytes of dropped rows; reasons, hashes, sizes and scores stay.

    Raises UsageError when the condition names a row that a policy keeps, or that waits for a decision.
    """
    progress = progress or Silent()
    if dry_run:
        return RemovalReport(outline(pool, "purge", purge_targets(pool, where or "false")))
    with claim(pool, {}, removes=True) as run:
        earlier = _finish_earlier(pool, run, progress)
        finished = earlier.outline.kind if earlier else ""
        if where is None:
            if earlier is None:
                raise UsageError("say whose bytes to delete: --where CONDITION")
            return dataclasses.replace(earlier, finished=finished)
        targets = purge_targets(pool, where)
        told = outline(pool, "purge", targets)
        if not told.rows:
            return RemovalReport(told, finished=finished)
        journal = _begin(pool, run, "purge", targets, "", False)
        return dataclasses.replace(_finish(pool, run, journal, told, progress), finished=finished)


def outline(pool: Pool, kind: str, targets: Targets) -> Outline:
    """Counts what a removal takes, without changing anything."""
    going = targets.rows.filter(targets.rows["image_goes"])
    images = {
        (tar, at): size for tar, at, size in zip(*(going[name].to_pylist() for name in ("tar_file", "tar_offset", "tar_size")), strict=True)
    }
    images.pop((None, None), None)
    packed = pool.snapshot("shards")
    ids = set(targets.rows["sample_id"].to_pylist())
    samples = sum(name in ids for name in packed.read(["sample_id"])["sample_id"].to_pylist()) if packed.files and kind == "takedown" else 0
    elsewhere = len(targets.elsewhere) if targets.elsewhere else 0
    return Outline(
        kind, targets.rows.num_rows, targets.named, len(images), sum(images.values()), len(targets.parts),
        targets.near_copies, elsewhere, targets.spared, samples,
    )  # fmt: skip


# -- the steps


def _claim_all(pool: Pool, run: Run) -> None:
    """Every table that exists: no other run may write while rows leave."""
    for name in pool.tables():
        run.add(name, pool.snapshot(name).schema or schemas.table(name))


def _finish_earlier(pool: Pool, run: Run, progress: Progress) -> RemovalReport | None:
    _claim_all(pool, run)
    journal = journals.unfinished(pool)
    if journal is None:
        return None
    told = outline(pool, journal.kind, Targets(journals.record_of(pool, journal), 0))
    return _finish(pool, run, journal, told, progress)


def _begin(pool: Pool, run: Run, kind: journals.Kind, targets: Targets, because: str, erase_text: bool) -> Journal:
    record = with_marks(pool, targets.rows) if kind == "takedown" else targets.rows
    if kind == "takedown" and targets.elsewhere:
        record = pa.concat_tables([record, _barred(targets.elsewhere, record.schema)])
    hashes = set(record.filter(record["bytes_go"])["image_sha256"].drop_null().to_pylist()) if kind == "takedown" else set()
    owners = {part_of(name) for name in targets.rows["tar_file"].drop_null().unique().to_pylist()}  # rows may use images of other parts
    parts = sorted({*targets.parts, *owners, *parts_with_strays(pool, hashes)})
    journal = Journal(
        kind=kind, number=journals.new_number(pool, kind), when=datetime.datetime.now(datetime.UTC).isoformat(), because=because,
        erase_text=erase_text, waiting=tuple(parts), parts=tuple(parts),
        subsets={name: Subsetted(is_fresh=found.is_fresh, digest=found.digest) for name, found in standings(pool).items()},
    )  # fmt: skip
    journals.begin(pool, journal, record)
    _claim_all(pool, run)  # also what a run made that began in this very moment; it then finds the journal and stops
    return journal


def _barred(named: Named, schema: pa.Schema) -> pa.Table:
    """Lines for entries that the pool does not hold: no part, no row, nothing but what is to be barred."""
    lines = [{"sample_id": name, "url_id": name} for name in sorted(named.ids)]
    lines += [{"url_id": name} for name in sorted(named.url_ids)]
    lines += [{"sha256": name, "image_sha256": name} for name in sorted(named.hashes)]
    full = [{**dict.fromkeys(schema.names), **line, "image_goes": True, "bytes_go": False} for line in lines]
    return pa.Table.from_pylist(full, schema=schema)


def _finish(pool: Pool, run: Run, journal: Journal, told: Outline, progress: Progress) -> RemovalReport:
    """All that is left to do of a removal whose journal stands."""
    record = journals.record_of(pool, journal)
    if journal.kind == "takedown":
        run.add(SUPPRESSED, schemas.table(SUPPRESSED))
        run.commit(SUPPRESSED, [_suppression(pool, journal, record)])
    journal = _rewrite_parts(pool, run, journal, record, progress)
    removes_rows = journal.kind == "takedown"
    ids = frozenset(record["sample_id"].drop_null().to_pylist()) if removes_rows else frozenset[str]()
    if removes_rows:
        drop_pairs(pool, run, record)
    outcomes = settle(pool, journal.standings())
    digests = {name: (found.digest, _digest(pool, name)) for name, found in journal.subsets.items()}
    packed = Repacking(pool, run, ids, digests)
    packed.write()
    delete_replaced(pool, journal.parts, Borrowed.of(pool.snapshot("fetched")))
    if removes_rows:
        delete_caches(pool)
    freed = journal.bytes_freed + packed.bytes_freed
    _write_record(pool, journal, outcomes, packed.shards, told)
    journals.end(pool, journal)
    return RemovalReport(told, pool.path / f"{journal.stem}.parquet", freed, outcomes, len(packed.shards))


def _digest(pool: Pool, name: str) -> str:
    return read_subset(pool, name).digest


def _suppression(pool: Pool, journal: Journal, record: pa.Table) -> PartFile:
    """The takedown's lines of the suppression list, the same each time they are written."""
    lines = []
    for number, line in enumerate(record.to_pylist()):
        hashes = {name: line[name] for name in ("sha256", "image_sha256") if line["bytes_go"] or line["part"] is None}
        url = {"url_id": line["url_id"]} if line["image_goes"] else {}
        lines.append(
            {"row": number, "sample_id": line["sample_id"], **url, **hashes, "because": journal.because, "withdrawn_at": journal.at}
        )
    schema = schemas.table(SUPPRESSED)
    named = pa.schema([field for field in schema if field.name not in ("part", "basis")])
    return pool.write_part(SUPPRESSED, journal.number, pa.Table.from_pylist(lines, schema=named), journal.stem)


def _rewrite_parts(pool: Pool, run: Run, journal: Journal, record: pa.Table, progress: Progress) -> Journal:
    """Batch after batch: write beside the old files, note what is to be committed, commit, delete the old files.

    Parts that use images of a batch are written with it, so that no row points at a tar that is gone.
    """
    leaving = journals.leaving(journal, record.filter(record["part"].is_valid()))
    borrowed = Borrowed.of(pool.snapshot("fetched"))
    progress.start(journal.kind, len(journal.waiting), "parts")
    while journal.waiting:
        now = journal.writing or journal.waiting[:BATCH_PARTS]
        if not journal.writing:
            journal = _write_batch(pool, journal, leaving, now, borrowed)
        for table in sorted({file.table for file in journal.batch}):
            run.commit(table, [file.file() for file in journal.batch if file.table == table])
        delete_replaced(pool, {*now, *(file.part for file in journal.batch)}, borrowed)
        journal = journal.model_copy(update={"batch": (), "writing": (), "waiting": journal.waiting[len(now) :]})
        journals.keep(pool, journal)
        progress.advance(journal.kind, len(now))
    progress.finish(journal.kind)
    return journal


def _write_batch(pool: Pool, journal: Journal, leaving: Leaving, now: tuple[int, ...], borrowed: Borrowed) -> Journal:
    """Writes the tars of these parts, and all tables that point into them or lose a row; returns the journal that says so."""
    tables = {name: pool.snapshot(name) for name in pool.tables()}
    parts = sorted(borrowed.with_users(now))
    tars = TarRewrite(pool, leaving, set(now), parts, tables)
    if "fetched" in tables:
        tars.write()
    files = [file for part in parts for file in PartRewrite(pool, leaving, part, tables, tars.moved).write().values()]
    changes = {
        "writing": now,
        "batch": tuple(Written(**vars(file)) for file in files),
        "tars": {**journal.tars, **tars.tars},
        "bytes_freed": journal.bytes_freed + tars.bytes_freed,
    }
    journal = journal.model_copy(update=changes)
    journals.keep(pool, journal)
    return journal


def _write_record(pool: Pool, journal: Journal, subsets: dict[str, str], shards: dict[str, str], told: Outline) -> None:
    """What downstream needs to know; not the condition, which may quote what is to be forgotten."""
    content = {
        "kind": journal.kind, "number": journal.number, "when": journal.when, "because": journal.because,
        "rows": told.rows, "images": told.images, "parts": list(journal.parts), "text_erased": journal.erase_text,
        "tars": journal.tars, "shards": shards, "subsets": subsets,
    }  # fmt: skip
    write_text(pool, pool.path / f"{journal.stem}.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
