"""A policy's SQL runs over one pinned version of the pool; the verdicts lie in the temporary table `verdicts`.

The policy sees `samples` as `curate.catalog.views` offers it, with one difference: NaN is null, so that no comparison
with a number that is none ever decides (DuckDB would sort NaN above every number). Everything larger than memory is
spilled to the pool's tmp folder by DuckDB.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction as Ratio

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.catalog.aligned import in_parts
from curate.catalog.views import explain_error, quoted
from curate.errors import LocalFault, SettingsError
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


def prepare(connection: Connection, has_images: bool) -> None:
    """Puts a view over `samples` in which NaN is null. In a pool of which nothing was fetched, rows count as if they had an image."""
    names = [line[0] for line in connection.execute("DESCRIBE samples").fetchall() if line[1] in ("FLOAT", "DOUBLE")]
    replaced = [f"CASE WHEN isnan({quoted(name)}) THEN NULL ELSE {quoted(name)} END AS {quoted(name)}" for name in names]
    replaced += [] if has_images else ["'' AS tar_file"]
    rest = f" REPLACE ({', '.join(replaced)})" if replaced else ""
    connection.execute(f"CREATE TEMP VIEW samples AS SELECT *{rest} FROM memory.main.samples")


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
    column, left = quoted(fraction.column), _left(policy, fraction, values)
    of_sql = DENOMINATORS.get(fraction.denominator, left).format(column=column)
    with _errors(connection, policy):
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS tied (rule VARCHAR, part INTEGER, row INTEGER)")
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


def _left(policy: Policy, fraction: Fraction, values: Mapping[str, Value | None]) -> str:
    """Which rows the fractions before this one leave to it, as SQL."""
    before = next((one for one in policy.fractions if one.rule == fraction.after), None)
    if before is None:
        return "true"
    cut = f"CAST('{values[before.parameter]!r}' AS DOUBLE)"
    return f"{quoted(before.column)} >= {cut} AND NOT {_tied(before.rule)} AND {_left(policy, before, values)}"


def _cut(connection: Connection, kept: int) -> tuple[float, int]:
    """The lowest value that is kept, and how many are above it; for none at all the next number above the highest one."""

    def read() -> Iterator[NDArray[np.floating]]:
        for batch in connection.sql("SELECT value::DOUBLE AS value FROM ranked").to_arrow_reader(_BATCH_ROWS):
            yield batch.column(0).to_numpy()

    value, above = kth_largest(read, max(kept, 1))
    return (value, above) if kept else (math.nextafter(value, math.inf), 0)


def judge(
    connection: Connection, policy: Policy, rules: tuple[str, ...], values: Mapping[str, Value], groups: str | None, unscored: list[int]
) -> None:
    """Fills `verdicts` (part, row, refused, keep, reason, failed_rules); one line per row of the pool.

    Rows that have a reason already are kept out without a new one; rows without image, or in a part of `unscored`, stay
    undecided (keep null). Of the members of a group that pass all rules the first in the policy's order stays. A purged row
    fails the rules that its numbers fail, and `purged` when it fails none: it is never kept.
    """
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS tied (rule VARCHAR, part INTEGER, row INTEGER)")
    failing = ", ".join(f"CASE WHEN coalesce({quoted(rule)}, false) OR {_tied(rule)} THEN '{rule}' END" for rule in rules)
    body = policy.text.rstrip().rstrip(";")
    with _errors(connection, policy):
        connection.execute(
            f"CREATE TEMP TABLE answers AS WITH answers AS ({body}\n)"
            f" SELECT part, row, list_filter([{failing}], lambda name: name IS NOT NULL) AS failed FROM answers",
            dict(values),
        )
        _whole(connection, policy)
        connection.execute(_judged_sql(unscored))
        connection.execute("DROP TABLE answers")
    with _errors(connection, policy, "representative"):
        beaten = _beaten_sql(connection, policy.representative, groups)
        if len(connection.extract_statements(beaten)) != 1:  # a COPY smuggled in could write to the pool's own files
            raise SettingsError(f"{policy.origin}: representative is an ORDER BY list, not statements")
        connection.execute(beaten)
    with _errors(connection, policy):
        connection.execute(_VERDICTS)
        connection.execute("DROP TABLE judged; DROP TABLE beaten")


def _tied(rule: str) -> str:
    return f"(part, row) IN (SELECT (part, row) FROM tied WHERE rule = '{rule}')"


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


def _judged_sql(unscored: list[int]) -> str:
    """Every row with the rules that it fails, before groups are looked at."""
    scored = f"part NOT IN ({', '.join(map(str, unscored))})" if unscored else "true"
    return f"""
CREATE TEMP TABLE judged AS
SELECT part, row, {REFUSED} AND NOT {PURGED} AS refused, reason IS NULL AND tar_file IS NOT NULL AND {scored} AS ready, {PURGED} AS purged,
    CASE WHEN {PURGED} AND len(failed) = 0 THEN ['purged'] ELSE failed END AS failed
FROM samples JOIN answers USING (part, row)"""


def _beaten_sql(connection: Connection, representative: str, groups: str | None) -> str:
    """Rows that pass all rules and are not the first of their group; only such rows are ordered, most pools have few in groups."""
    grouped = quoted(groups) if groups else "(SELECT part, row, NULL AS group_id FROM judged WHERE false)"
    return f"""
CREATE TEMP TABLE beaten AS
SELECT part, row FROM (
    SELECT samples.part, samples.row, row_number() OVER (
        PARTITION BY "the group" ORDER BY {representative or _default_order(connection)}, samples.sample_id, samples.part, samples.row
    ) AS "the place"
    FROM samples JOIN (
        SELECT part, row, group_id AS "the group" FROM {grouped} JOIN judged USING (part, row)
        WHERE group_id IS NOT NULL AND ready AND len(failed) = 0
    ) AS "the rivals" USING (part, row)
) WHERE "the place" > 1"""


_VERDICTS = """
CREATE TEMP TABLE verdicts AS
SELECT part, row, refused,
    CASE WHEN refused OR purged THEN false WHEN ready THEN len(failed) = 0 AND NOT lost END AS keep,
    CASE WHEN NOT (ready OR purged) THEN NULL WHEN lost THEN 'duplicate' ELSE failed[1] END AS reason,
    CASE WHEN NOT (ready OR purged) THEN NULL WHEN lost THEN ['duplicate'] ELSE failed END AS failed_rules
FROM (SELECT judged.*, beaten.part IS NOT NULL AS lost FROM judged LEFT JOIN beaten USING (part, row))"""


def _default_order(connection: Connection) -> str:
    """The usual one, without a score where the pool has none."""
    known = {line[0] for line in connection.execute("DESCRIBE samples").fetchall()}
    return USUAL_ORDER if "clip_score" in known else USUAL_ORDER.rsplit(",", 1)[0]


def rule_counts(connection: Connection, rules: tuple[str, ...]) -> dict[str, RuleCounts]:
    """For each rule, and for `duplicate`: how many rows it drops first, alone, and as the only one."""
    sql = """
        SELECT name, count(*) FILTER (reason = name), count(*), count(*) FILTER (len(failed_rules) = 1)
        FROM (SELECT reason, failed_rules, unnest(failed_rules) AS name FROM verdicts) GROUP BY name"""
    found = {str(line[0]): RuleCounts(first=line[1], alone=line[2], only=line[3]) for line in connection.execute(sql).fetchall()}
    names = (*rules, "duplicate", *(["purged"] if "purged" in found else []))
    return {rule: found.get(rule, RuleCounts(first=0, alone=0, only=0)) for rule in names}


def totals(connection: Connection) -> dict[str, int]:
    """Rows, kept, refused and pending."""
    sql = """SELECT count(*), count(*) FILTER (keep), count(*) FILTER (refused), count(*) FILTER (keep IS NULL) FROM verdicts"""
    return dict(zip(("rows", "kept", "refused", "pending"), connection.execute(sql).fetchall()[0], strict=True))


def verdicts(connection: Connection, policy: Policy) -> Iterator[tuple[int, pa.Table]]:
    """(part, its rows) in order: part, row, sample_id, keep, reason, failed_rules; one part at a time is in memory."""
    sql = 'SELECT part, row, sample_id, keep, verdicts.reason, failed_rules FROM verdicts JOIN "rows" USING (part, row) ORDER BY part, row'
    with _errors(connection, policy):
        yield from in_parts(connection.sql(sql))


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
