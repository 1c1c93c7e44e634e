"""The funnel: how many rows each phase and each rule takes out, from the input list to the subset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from curate.catalog.subsets import read_subset
from curate.catalog.views import connect, current_policy
from curate.errors import REASONS
from curate.store import Pool

PHASES = ("plan", "prefilter", "fetch", "score", "filter")
BAR_CHARACTERS = 24


@dataclass(frozen=True)
class ReasonCount:
    """Rows that one reason takes out.

    `first` counts rows whose first reason this is; these add up. For a rule of the policy, `alone` counts the rows
    it would take out if it were the only rule, and `only` those that no other rule takes out; None elsewhere, since
    an earlier phase gives a row one reason.
    """

    reason: str
    outcome: str  # dropped | failed
    first: int
    alone: int | None = None
    only: int | None = None
    text: str = ""


@dataclass(frozen=True)
class StageCount:
    """One phase: rows that came in, that went on, that still wait here, and the reasons for the rest."""

    name: str
    rows_in: int
    rows_out: int
    pending: int
    reasons: tuple[ReasonCount, ...]


@dataclass(frozen=True)
class Funnel:
    """All input rows, phase by phase; `rows == kept + dropped + failed + pending`."""

    policy: str
    rows: int
    kept: int
    dropped: int
    failed: int
    pending: int
    stages: tuple[StageCount, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """Lines for a terminal: a bar per phase, under it what it took out."""
        lines = [_bar_line("input", self.rows, self.rows)]
        for stage in self.stages:
            lines += [f"    {line}" for line in _reason_lines(stage)]
            lines.append(_bar_line(stage.name, stage.rows_out, self.rows))
        balance = f"kept {self.kept:,} + dropped {self.dropped:,} + failed {self.failed:,} + pending {self.pending:,}"
        return "\n".join([*lines, f"{self.rows:,} rows = {balance}"]) + "\n"


def funnel(pool: Pool, policy: str | None = None) -> Funnel:
    """Counts every row of the pool once, by the phase and reason that took it out under `policy`."""
    chosen = current_policy(pool) if policy is None else policy
    with connect(pool, chosen) as connection:
        counts = _rows(connection, "SELECT phase, reason, outcome, count(*) FROM samples GROUP BY ALL")
        rules = {str(rule): (int(alone), int(only)) for rule, alone, only in _rows(connection, _RULES)}
        pending = {str(phase): int(rows) for phase, rows in _rows(connection, _pending_sql(pool))}
    ends = {end: sum(int(n) for _, _, outcome, n in counts if outcome == end) for end in ("kept", "dropped", "failed", "pending")}
    order = (*REASONS, *read_subset(pool, chosen).rules) if chosen else tuple(REASONS)
    found = [(str(phase), _reason(str(reason), str(outcome), int(n), rules)) for phase, reason, outcome, n in counts if reason is not None]
    found += [("filter", _reason(rule, "dropped", 0, rules)) for rule in rules if rule not in {reason.reason for _, reason in found}]
    stages = _stages(_present(pool, chosen), sum(ends.values()), found, pending, order)
    return Funnel(chosen, sum(ends.values()), **ends, stages=tuple(stages))


_RULES = """
    SELECT rule, count(*), count(*) FILTER (len(failed_rules) = 1)
    FROM (SELECT failed_rules, unnest(failed_rules) AS rule FROM samples WHERE phase IS NULL OR phase = 'filter')
    GROUP BY rule
"""


def _rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()


def _pending_sql(pool: Pool) -> str:
    """Pending rows by the phase that they wait for: the first whose table lacks them."""
    scores = [name for name in pool.tables() if name.startswith("scores_")][:1]
    steps = [("fetch", "fetched"), *(("score", name) for name in scores)]
    cases = " ".join(f"WHEN NOT EXISTS (FROM \"{table}\" t WHERE t.part = s.part AND t.row = s.row) THEN '{name}'" for name, table in steps)
    return f"SELECT CASE {cases} ELSE 'filter' END AS waits_for, count(*) FROM samples s WHERE outcome = 'pending' GROUP BY waits_for"


def _reason(reason: str, outcome: str, first: int, rules: dict[str, tuple[int, int]]) -> ReasonCount:
    alone, only = rules.get(reason, (None, None))
    known = REASONS.get(reason)
    return ReasonCount(reason, outcome, first, alone, only, known.text if known else "a rule of the policy")


def _present(pool: Pool, policy: str) -> list[str]:
    tables = pool.tables()
    there = {
        "plan": True,
        "prefilter": "decisions_prefilter" in tables,
        "fetch": "fetched" in tables,
        "score": any(name.startswith("scores_") for name in tables),
        "filter": bool(policy),
    }
    return [phase for phase in PHASES if there[phase]]


def _stages(
    present: Sequence[str], rows: int, found: Sequence[tuple[str, ReasonCount]], pending: dict[str, int], order: Sequence[str]
) -> list[StageCount]:
    """`order` sorts the reasons of a phase; names later in it win, so that a policy's own order holds."""
    place = {reason: number for number, reason in enumerate(order)}
    stages = []
    for phase in present:
        reasons = sorted((reason for at, reason in found if at == phase), key=lambda reason: place.get(reason.reason, len(place)))
        waiting = pending.get(phase, 0)
        left = rows - waiting - sum(reason.first for reason in reasons)
        stages.append(StageCount(phase, rows, left, waiting, tuple(reasons)))
        rows = left
    return stages


def _bar_line(name: str, rows: int, total: int) -> str:
    share = rows / total if total else 0.0
    bar = "█" * round(share * BAR_CHARACTERS)
    return f"{name:<10} {bar:<{BAR_CHARACTERS}} {rows:>12,}  {share:>6.1%}"


def _reason_lines(stage: StageCount) -> list[str]:
    lines = []
    for reason in stage.reasons:
        more = f"   alone {reason.alone:,}, only this {reason.only:,}" if reason.alone is not None else ""
        lines.append(f"− {reason.reason:<24} {reason.first:>10,}{more}")
    return [*lines, *([f"… {'pending':<24} {stage.pending:>10,}"] if stage.pending else [])]
