"""A policy's SQL runs over one pinned version of the pool, stretch by stretch, and gives each row a code.

The policy sees `samples` as `curate.catalog.views` offers it, with one difference: NaN is null, so that no comparison
with a number that is none ever decides (DuckDB would sort NaN above every number). Everything larger than memory is
spilled to the pool's tmp folder by DuckDB.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction as Ratio

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.catalog.views import explain_error, quoted
from curate.errors import LocalFault, SettingsError
from curate.filter.condition import row_wise
from curate.filter.policy import DENOMINATORS, Fraction, Policy, Value, checked_rule
from curate.filter.quantile import kth_largest
from curate.schema import nearest
from curate.shards.subset import CutOutcome, RuleCounts

REFUSED = "reason IS NOT NULL"
PURGED = "coalesce(reason = 'purged', false)"
WITH_IMAGE = f"(reason IS NULL AND tar_file IS NOT NULL OR {PURGED})"
"""Rows that a share is taken of; purged ones were measured before their bytes went, and a cut must not move when they go."""
USUAL_ORDER = "group_rank, original_width::BIGINT * original_height DESC, clip_score DESC"
"""The first member of a group stays: the one that the method prefers, where it ranks them (by embeddings); else the largest, the best."""

_BATCH_ROWS = 1 << 20

Connection = duckdb.DuckDBPyConnection


def prepare(connection: Connection, has_images: bool, view: str = "samples") -> None:
    """Puts `samples` over a view of it, with NaN as null. In a pool of which nothing was fetched, rows count as if they had an image."""
    names = [line[0] for line in connection.execute("DESCRIBE samples").fetchall() if line[1] in ("FLOAT", "DOUBLE")]
    replaced = [f"CASE WHEN isnan({quoted(name)}) THEN NULL ELSE {quoted(name)} END AS {quoted(name)}" for name in names]
    replaced += [] if has_images else ["'' AS tar_file"]
    rest = f" REPLACE ({', '.join(replaced)})" if replaced else ""
    connection.execute("CREATE TABLE IF NOT EXISTS tied (rule VARCHAR, part INTEGER, row INTEGER)")
    connection.execute(f"CREATE TEMP VIEW samples AS SELECT *{rest} FROM memory.main.{view}")


def rules_of(connection: Connection, policy: Policy) -> tuple[str, ...]:
    """Names of the policy's rules in order. Raises SettingsError when the SQL is not what a policy is."""
    unbound = {name: 0.0 if value is None else value for name, value in policy.parameters.items()}
    with _errors(connection, policy):
        _one_select(connection, policy)
        columns = connection.execute(f"DESCRIBE {policy.text}", unbound).fetchall()
    names = [str(column[0]) for column in columns]
    if names[:2] != ["part", "row"] or len(names) < 3:
        raise SettingsError(f"{policy.origin}: the SELECT gives part, row and a column per rule, in this order; found {', '.join(names)}")
    if len({name.lower() for name in names}) < len(names):
        raise SettingsError(f"{policy.origin}: two columns of the SELECT have one name")
    for name, kind in ((str(column[0]), str(column[1])) for column in columns[2:]):
        if kind != "BOOLEAN":
            raise SettingsError(f"{policy.origin}: rule {name!r} is {kind}, not BOOLEAN (true where the row fails it)")
    rules = tuple(checked_rule(name, policy.origin) for name in names[2:])
    for fraction in policy.fractions:
        if fraction.rule not in rules:
            raise SettingsError(f"{policy.origin}: a fraction is in rule {fraction.rule!r}, not there{nearest(fraction.rule, list(rules))}")
    return rules


def _one_select(connection: Connection, policy: Policy) -> None:
    statements = connection.extract_statements(policy.text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SettingsError(f"{policy.origin}: a policy is exactly one SELECT")
    wanted, declared = set(statements[0].named_parameters), set(policy.parameters)
    for name in sorted(wanted - declared):
        raise SettingsError(f"{policy.origin}: ${name} has no `-- parameter:` line{nearest(name, sorted(declared))}")
    for name in sorted(declared - wanted):
        raise SettingsError(f"{policy.origin}: parameter {name!r} is declared and not used{nearest(name, sorted(wanted))}")


def choose_cut(connection: Connection, policy: Policy, fraction: Fraction, values: Mapping[str, Value | None]) -> CutOutcome:
    """The column's value that keeps exactly the declared share; which rows lie on it and are over the count goes into `tied`.

    The count is the share of the denominator, halves rounded up; rows without a value are never kept. Among equal values
    the smaller sample_id stays. `values` holds the cuts of the fractions before this one.
    """
    column, left = quoted(fraction.column), _left(connection, policy, fraction, values)
    of_sql = DENOMINATORS.get(fraction.denominator, left).format(column=column)
    with _errors(connection, policy):
        of = scalar(connection, f"SELECT count(*) FROM samples WHERE {WITH_IMAGE} AND ({of_sql})")
        connection.execute(  # read several times: a join of all tables each time would be most of the work
            "CREATE OR REPLACE TEMP TABLE ranked AS"
            f" SELECT part, row, {column} AS value FROM samples WHERE {WITH_IMAGE} AND {column} IS NOT NULL AND ({left})"
        )
        have = scalar(connection, "SELECT count(*) FROM ranked")
        kept = min(math.floor(Ratio(str(fraction.fraction)) * of + Ratio(1, 2)), have)
        cut, above = _cut(connection, kept) if have else (math.nextafter(0.0, math.inf), 0)
        connection.execute(
            'INSERT INTO tied SELECT $rule, part, row FROM ranked JOIN "rows" USING (part, row) WHERE value = $cut'
            " ORDER BY sample_id, part, row OFFSET $stay",
            {"rule": fraction.rule, "cut": cut, "stay": kept - above},
        )
        connection.execute("DROP TABLE ranked")
    tied = scalar(connection, "SELECT count(*) FROM tied WHERE rule = $rule", {"rule": fraction.rule})
    return CutOutcome(**vars(fraction), of=of, kept=kept, cut=cut, ties_dropped=tied)


def _left(connection: Connection, policy: Policy, fraction: Fraction, values: Mapping[str, Value | None]) -> str:
    """Which rows the fractions before this one leave to it, as SQL."""
    before = next((one for one in policy.fractions if one.rule == fraction.after), None)
    if before is None:
        return "true"
    cut = f"CAST('{values[before.parameter]!r}' AS DOUBLE)"
    return f"{quoted(before.column)} >= {cut} AND NOT {_tied(connection, before.rule)} AND {_left(connection, policy, before, values)}"


def _cut(connection: Connection, kept: int) -> tuple[float, int]:
    """The lowest value that is kept, and how many are above it; for none at all the next number above the highest one."""

    def read() -> Iterator[NDArray[np.floating]]:
        for batch in connection.sql("SELECT value::DOUBLE AS value FROM ranked").to_arrow_reader(_BATCH_ROWS):
            yield batch.column(0).to_numpy()

    value, above = kth_largest(read, max(kept, 1))
    return (value, above) if kept else (math.nextafter(value, math.inf), 0)


@dataclass(frozen=True)
class Question:
    """SQL that gives part, row, sample_id and code of each row of `samples`, whichever parts this is a view of.

    A code says what the policy makes of a row, before groups are looked at: `_STATES` in its lowest bits, above them a bit
    for each rule that the row fails.
    """

    sql: str
    rules: tuple[str, ...]


BEATEN = -1
"""Code of a row that passes all rules and is not the first of its group."""
_STATES = {
    "refused": f"{REFUSED} AND NOT {PURGED}",  # had a reason before
    "ready": "reason IS NULL AND tar_file IS NOT NULL AND {scored}",  # can be decided
    "purged": PURGED,
}
READY = 1 << list(_STATES).index("ready")
"""Code of a row that passes all rules."""
_MOST_RULES = 48


def judge(
    connection: Connection, policy: Policy, rules: tuple[str, ...], values: Mapping[str, Value], groups: str | None, unscored: list[int]
) -> Question:
    """How each row is judged, and a table `beaten` (part, row) of the rows that lose to one of their group.

    Rows that have a reason already are kept out without a new one; rows without image, or in a part of `unscored`, stay
    undecided (keep null). Of the members of a group that pass all rules the first in the policy's order stays. A purged row
    fails the rules that its numbers fail, and `purged` when it fails none: it is never kept.
    """
    question = _question(connection, policy, rules, values, unscored)
    with _errors(connection, policy, "representative"):
        beaten = _beaten_sql(connection, policy.representative, groups, question)
        if len(connection.extract_statements(beaten)) != 1:  # a COPY smuggled in could write to the pool's own files
            raise SettingsError(f"{policy.origin}: representative is an ORDER BY list, not statements")
        connection.execute(beaten)
    return question


def _question(connection: Connection, policy: Policy, rules: tuple[str, ...], values: Mapping[str, Value], unscored: list[int]) -> Question:
    """A policy that looks at each row by itself is asked wherever rows are read; of any other the answers are kept."""
    if len(rules) > _MOST_RULES:
        raise SettingsError(f"{policy.origin}: {len(rules)} rules, and at most {_MOST_RULES} can be told apart: join some with OR")
    scored = f"part NOT IN ({', '.join(map(str, unscored))})" if unscored else "true"
    states = [f'{sql.format(scored=scored)} AS "the {name}"' for name, sql in _STATES.items()]
    failed = [f"(coalesce({quoted(rule)}, false) OR {_tied(connection, rule)})" for rule in rules]
    more = ", ".join(['sample_id AS "the sample"', *states])
    body = row_wise(connection, policy.text, values, more)
    if body is None:
        _keep_answers(connection, policy, failed, values)
        body, failed = f"SELECT part, row, failed, {more} FROM samples JOIN answers USING (part, row)", []
    bits = [f"{sql}::BIGINT << {place}" for place, sql in enumerate([*(f'"the {name}"' for name in _STATES), *failed])]
    code = " | ".join([*(f"({bit})" for bit in bits), *([] if failed else [f"(failed << {len(_STATES)})"])])
    return Question(f'SELECT part, row, "the sample" AS sample_id, {code} AS code FROM ({body})', rules)


def _keep_answers(connection: Connection, policy: Policy, failed: list[str], values: Mapping[str, Value]) -> None:
    """The table `answers` (part, row, failed): a bit for each rule that the row fails."""
    bits = " | ".join(f"({sql}::BIGINT << {place})" for place, sql in enumerate(failed))
    body = policy.text.rstrip().rstrip(";")
    with _errors(connection, policy):
        connection.execute(
            f"CREATE TABLE answers AS WITH answers AS ({body}\n) SELECT part, row, {bits} AS failed FROM answers", dict(values)
        )
        _whole(connection, policy)


def _tied(connection: Connection, rule: str) -> str:
    """Whether a row lies on the rule's cut and is over the count; few do, and these stand in the SQL itself."""
    known = connection.execute("SELECT part, row FROM tied WHERE rule = ? LIMIT 17", [rule]).fetchall()
    if len(known) > 16:
        return f"(part::BIGINT << 32 | row) IN (SELECT part::BIGINT << 32 | row FROM tied WHERE rule = '{rule}')"
    return f"({' OR '.join(f'part = {part} AND row = {row}' for part, row in known) or 'false'})"


def _whole(connection: Connection, policy: Policy) -> None:
    """A policy answers for every row once: one that drops lines would lose rows without a reason."""
    rows = scalar(connection, 'SELECT count(*) FROM "rows"')
    found = scalar(connection, "SELECT count(*) FROM answers")
    matched = scalar(connection, 'SELECT count(*) FROM "rows" SEMI JOIN answers USING (part, row)')
    if not rows == found == matched:
        raise SettingsError(
            f"{policy.origin}: the SELECT answers {found:,} lines for {matched:,} of {rows:,} rows, not one for each:"
            " a condition belongs into a rule's column, not into WHERE"
        )


def _beaten_sql(connection: Connection, representative: str, groups: str | None, question: Question) -> str:
    """Rows that pass all rules and are not the first of their group; only such rows are ordered, most pools have few in groups."""
    if groups is None:
        return "CREATE TABLE beaten (part INTEGER, row INTEGER)"
    return f"""
CREATE TABLE beaten AS
SELECT part, row FROM (
    SELECT samples.part, samples.row, row_number() OVER (
        PARTITION BY "the group" ORDER BY {representative or _default_order(connection)}, samples.sample_id, samples.part, samples.row
    ) AS "the place"
    FROM samples JOIN (
        SELECT part, row, group_id AS "the group" FROM {quoted(groups)} JOIN ({question.sql}) USING (part, row)
        WHERE group_id IS NOT NULL AND code = {READY}
    ) AS "the rivals" USING (part, row)
) WHERE "the place" > 1"""


def _default_order(connection: Connection) -> str:
    """The usual one, without a score where the pool has none."""
    known = {line[0] for line in connection.execute("DESCRIBE samples").fetchall()}
    return USUAL_ORDER if "clip_score" in known else USUAL_ORDER.rsplit(",", 1)[0]


@dataclass(frozen=True)
class Verdict:
    """What a code means for a row: `keep` is None for one that stays undecided."""

    keep: bool | None
    failed: tuple[str, ...] | None
    refused: bool


def verdict(code: int, rules: tuple[str, ...]) -> Verdict:
    """What the code means."""
    if code == BEATEN:
        return Verdict(False, ("duplicate",), False)
    state = {name: bool(code >> place & 1) for place, name in enumerate(_STATES)}
    failed = tuple(rule for place, rule in enumerate(rules, len(_STATES)) if code >> place & 1)
    if state["purged"]:
        return Verdict(False, failed or ("purged",), False)
    if state["ready"]:
        return Verdict(not failed, failed, False)
    return Verdict(False if state["refused"] else None, None, state["refused"])


def decisions(codes: Sequence[int], rules: tuple[str, ...]) -> pa.Table:
    """keep, reason and failed_rules of rows with these codes."""
    meant = [verdict(code, rules) for code in codes]
    return pa.table(
        {
            "keep": pa.array([one.keep for one in meant], pa.bool_()),
            "reason": pa.array([one.failed[0] if one.failed else None for one in meant], pa.string()),
            "failed_rules": pa.array([one.failed for one in meant], pa.list_(pa.string())),
        }
    )


def counts(connection: Connection, policy: Policy, question: Question) -> Counter[int]:
    """How many rows of this connection's `samples` have each code, before groups are looked at."""
    with _errors(connection, policy):
        sql = f"SELECT code, count(*) FROM ({question.sql}) GROUP BY code"
        return Counter(dict(connection.execute(sql).fetchall()))


def coded(connection: Connection, policy: Policy, question: Question, first: int, last: int) -> pa.Table:
    """part, row, sample_id and code (int64) of all rows of this connection's `samples`, which are the parts `first` to `last`, in order."""
    with _errors(connection, policy):
        table = connection.sql(question.sql).to_arrow_table()
        lost = _keys(connection.sql(f"SELECT part, row FROM beaten WHERE part BETWEEN {first} AND {last}").to_arrow_table())
    keys = _keys(table)
    if not (keys[1:] > keys[:-1]).all():
        order = keys.argsort()
        table, keys = table.take(order), keys[order]
    if len(lost):
        code = table["code"].to_numpy().copy()
        code[keys.searchsorted(lost)] = BEATEN
        table = table.set_column(table.column_names.index("code"), "code", pa.array(code))
    return table


def _keys(table: pa.Table) -> NDArray[np.int64]:
    """One number for part and row, that orders as they do."""
    keys: NDArray[np.int64] = table["part"].to_numpy().astype(np.int64) << 32 | table["row"].to_numpy()
    return keys


def rule_counts(codes: Mapping[int, int], rules: tuple[str, ...]) -> dict[str, RuleCounts]:
    """For each rule, and for `duplicate`: how many rows it drops first, alone, and as the only one."""
    found = [(verdict(code, rules).failed or (), rows) for code, rows in codes.items()]
    names = (*rules, "duplicate", *(["purged"] if any("purged" in failed for failed, _ in found) else []))
    return {
        name: RuleCounts(
            first=sum(rows for failed, rows in found if failed[:1] == (name,)),
            alone=sum(rows for failed, rows in found if name in failed),
            only=sum(rows for failed, rows in found if failed == (name,)),
        )
        for name in names
    }


def totals(codes: Mapping[int, int], rules: tuple[str, ...]) -> dict[str, int]:
    """Rows, kept, refused and pending."""
    found = [(verdict(code, rules), rows) for code, rows in codes.items()]
    return {
        "rows": sum(codes.values()),
        "kept": sum(rows for one, rows in found if one.keep),
        "refused": sum(rows for one, rows in found if one.refused),
        "pending": sum(rows for one, rows in found if one.keep is None),
    }


# -- small things


def scalar(connection: Connection, sql: str, values: Mapping[str, Value] | None = None) -> int:
    """The one number that a query answers."""
    found: int = connection.execute(sql, dict(values or {})).fetchall()[0][0]
    return found


@contextmanager
def _errors(connection: Connection, policy: Policy, part: str = "") -> Iterator[None]:
    """DuckDB's complaints as one line with the policy's name, its line number and the nearest right name."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException, OSError) as error:  # OSError: while an answer is read batch by batch
        more = "; give more as  memory_bytes=…" if "memory" in str(error).lower() else ""
        raise LocalFault(f"{policy.origin}: this machine could not evaluate it: {str(error).splitlines()[0]}{more}") from None
    except duckdb.Error as error:
        line = re.search(r"^LINE (\d+):", str(error), re.MULTILINE)
        where = part or (f"line {line[1]}" if line and policy.origin != "where" else "")
        message = str(explain_error(connection, error)).removeprefix("SQL: ")
        raise SettingsError(f"{policy.origin}{', ' if where else ''}{where}: {message}") from None
