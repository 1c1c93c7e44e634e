"""A pool after its first run: failed rows are asked once more, further lists are added."""

from __future__ import annotations

import collections
import datetime
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from curate.engines.base import EngineSettings
from curate.errors import REASONS, UsageError
from curate.fetch.peer import WARNING, require
from curate.fetch.phase import FetchPhase
from curate.fetch.settings import FetchSettings
from curate.lease import Run
from curate.parquet import read_table
from curate.plan.add import AddReport, add
from curate.plan.prefilter import TABLE as PREFILTER
from curate.plan.prefilter import prefilter
from curate.plan.settings import InputSettings
from curate.progress import Progress
from curate.run import PhaseReport, redo, run_phase
from curate.schema import nearest, resources
from curate.stage import Again
from curate.store import Pool

DOCUMENT = "retry"
CONSENT = "consent"  # document of the pool: on which day it was asked
_AT_PLAN = ("input_unparseable", "bad_url", "bad_scheme")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class RetryReport:
    """What a retry did: URLs asked again and the phase's work; rows by outcome before and after, where that changed."""

    reasons: tuple[str, ...]
    older_than_seconds: float | None
    fetch: PhaseReport
    before: Mapping[str, int]  # reason, or ok -> rows of the pool
    after: Mapping[str, int]
    next: tuple[str, ...]  # commands that bring the rest of the pool up to date


@dataclass(frozen=True)
class GrowthReport:
    """What `add` did: the list's rows, and how they were fetched."""

    rows: AddReport
    fetch: PhaseReport
    next: tuple[str, ...]


# -- retry


def retry(
    pool: Pool,
    run: Run,
    fetch: FetchSettings,
    engine: EngineSettings,
    reasons: tuple[str, ...],
    older_than: datetime.timedelta | None,
    progress: Progress,
) -> RetryReport:
    """Asks rows that ended with one of the reasons once more; every other row stays as it is.

    Reasons must have passed `retry_reasons`; `older_than` spares rows that were asked since. A retry that was killed goes
    on where it stopped: what it asked already is not asked a second time. Raises PartsFailed, IdentityError, and
    UsageError when nothing was fetched yet.
    """
    if not pool.snapshot("fetched").files:
        raise UsageError("nothing has been fetched into this pool yet: run  curate run ingest  first")
    phase, seconds = fetch_phase(pool, fetch), older_than.total_seconds() if older_than is not None else None
    run.add(phase.table, phase.schema)
    before = _outcomes(pool)
    done = redo(pool, run, phase, engine, _resumed(pool, run, Again(reasons), seconds), progress)
    pool.write_document(DOCUMENT, {**(pool.read_document(DOCUMENT) or {}), "finished": True})
    after = _outcomes(pool)
    there = before.keys() | after.keys()
    changed = sorted(name for name in there if before[name] != after[name] or name in reasons)
    told = {name: before[name] for name in changed}, {name: after[name] for name in changed}
    return RetryReport(reasons, seconds, done, *told, _following(pool))


def retry_reasons(names: Sequence[str]) -> tuple[str, ...]:
    """The reasons to retry, checked: those named, or all that another try may mend. Raises UsageError.

    What was dropped on purpose, an opt-out above all, is never asked again; what failed at plan has no address to ask.
    """
    failed = [name for name, reason in REASONS.items() if reason.outcome == "failed" and name not in _AT_PLAN]
    for name in names:
        if name not in REASONS:
            raise UsageError(f"no reason is called {name!r}{nearest(name, failed) or '; see the table `reasons` with  curate sql'}")
        if REASONS[name].outcome == "dropped":
            raise UsageError(f"rows that ended as {name} are not asked again: {REASONS[name].text}")
        if name not in failed:
            raise UsageError(f"rows that ended as {name} have no address to ask: {REASONS[name].text}")
    return tuple(dict.fromkeys(names)) or tuple(name for name in failed if REASONS[name].retryable)


def age(text: str) -> datetime.timedelta:
    """`7d`, `12h`, `30m`, `45s` or `2w` as a span of time. Raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    if not found:
        raise UsageError(f"{text!r} is no age: write a number and s, m, h, d or w, for example  7d")
    return datetime.timedelta(seconds=float(found.group(1)) * _UNITS[found.group(2)])


def _resumed(pool: Pool, run: Run, again: Again, older_than_seconds: float | None) -> Again:
    """The choice with its moment: now, or that of an unfinished call with the same words after which nobody else fetched."""
    epoch = run.epoch("fetched")
    said = {"reasons": list(again.reasons), "older_than_seconds": older_than_seconds, "finished": False}
    found = pool.read_document(DOCUMENT) or {}
    if said == {key: found.get(key) for key in said} and found.get("epoch") == epoch - 1:
        before = datetime.datetime.fromisoformat(str(found["before"]))
    else:
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=older_than_seconds or 0)
    pool.write_document(DOCUMENT, {**said, "before": before.isoformat(), "epoch": epoch})
    return Again(again.reasons, before)


def _outcomes(pool: Pool) -> collections.Counter[str]:
    """Rows of table `fetched` by reason, or `ok`."""
    counts: collections.Counter[str] = collections.Counter()
    for path in pool.snapshot("fetched").paths():
        found = pc.value_counts(read_table(path, ["reason"])["reason"])
        counts.update({pair["values"] or "ok": pair["counts"] for pair in found.to_pylist()})
    return counts


# -- add


def grow(
    pool: Pool,
    run: Run,
    listed: InputSettings,
    condition: tuple[str | None, str | None],
    fetch: FetchSettings,
    engine: EngineSettings,
    progress: Progress,
) -> GrowthReport:
    """Adds a list and fetches what the pool lacks of it; `condition` is the prefilter's `where` and `uid_file`.

    The same call goes on where it stopped, and does nothing when all is there. Raises what `add` and the fetch raise.
    """
    rows = add(pool, run, listed, progress)
    if any(condition) or pool.snapshot(PREFILTER).files:
        prefilter(pool, run, *condition, progress)
    done = run_phase(pool, run, fetch_phase(pool, fetch), engine, progress)
    return GrowthReport(rows, done, _following(pool))


def fetch_phase(pool: Pool, fetch: FetchSettings) -> FetchPhase:
    """The fetch phase, as every command that fetches makes it.

    Opt-outs with a date are judged on the day of the pool's first fetch, so that a resume judges alike. Raises UsageError
    where the backend that was asked for cannot run; another than ours says on stderr what it does not have.
    """
    if fetch.backend == "img2dataset":
        require(fetch)
        print(WARNING, file=sys.stderr)
    known = pool.read_document(CONSENT)
    if known is None:
        known = {"opt_out_date": (fetch.opt_out_date or datetime.datetime.now(datetime.UTC).date()).isoformat()}
        pool.write_document(CONSENT, known)
    return FetchPhase(fetch, datetime.date.fromisoformat(str(known["opt_out_date"])))


def _following(pool: Pool) -> tuple[str, ...]:
    """Commands for what the pool has beyond its images; each does only what is no longer up to date."""
    last = pool.read_document("settings") or {}
    settings, tables = last.get("settings"), pool.tables()
    lines = [f"run {last['recipe']} --pool POOL …  (all of it: with the settings of the last run)"] if "recipe" in last else []
    for command, family, default in (("score", "scores_", "base"), ("dedupe", "groups_", "pixels")):
        section = settings.get(command) if isinstance(settings, dict) else None
        name = f"{family}{section.get('name', default) if isinstance(section, dict) else default}"
        lines += [f"{command} POOL"] if name in tables else []
    policies = [name.removeprefix("decisions_") for name in tables if name.startswith("decisions_") and name != PREFILTER]
    shipped = {path.stem for path in (resources("conf") / "policy").glob("*.sql")}
    lines += [f"filter POOL {name}" if name in shipped else f"filter POOL …  ({name}, as before)" for name in policies]
    lines += ["pack POOL"] if "shards" in tables else []
    return tuple(f"curate {line}".replace("POOL", shlex.quote(str(pool.path))) for line in lines)
