"""A policy is applied to a pool: decisions for every row, and a subset that says how they came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate import schema as schemas
from curate.catalog.views import NO_POLICY, connect, current_clip_column, masked_column, pin
from curate.errors import AccountingError, IdentityError, SettingsError, UsageError
from curate.filter import judge as judging
from curate.filter.condition import from_condition, names_read
from curate.filter.policy import Policy, Value, load, user_reasons
from curate.filter.settings import FilterSettings
from curate.lease import Run
from curate.progress import Progress, Silent
from curate.schema import nearest
from curate.shards.subset import CutOutcome, Subset, read_subset, subset_path, write_subset
from curate.stage import PartFile, fingerprint
from curate.store import CURRENT, Pool, Snapshot

VERSION = 1
NO_GROUPS = "none"


@dataclass(frozen=True)
class FilterReport:
    """What a policy makes of the pool; `unchanged` when it had been applied to exactly this before."""

    subset: Subset
    unchanged: bool = False
    preview: bool = False


@dataclass(frozen=True)
class _Question:
    """A policy and everything that its answer depends on."""

    policy: Policy
    mode: str
    clip_column: str | None
    groups: str | None  # table
    tables: Mapping[str, Snapshot]
    unscored: list[int]

    def basis(self) -> str:
        """Fingerprint of the question: an equal one has an equal answer."""
        policy = self.policy
        files = [f"{name}/{file.path}" for name in sorted(self.tables) for file in self.tables[name].files]
        values = json.dumps([policy.parameters, [vars(fraction) for fraction in policy.fractions]], sort_keys=True, default=str)
        choices = (self.mode, str(self.clip_column), str(self.groups), policy.representative)
        return fingerprint(str(VERSION), policy.name, policy.sha256, values, *choices, *files)


def filter_pool(pool: Pool, run: Run, settings: FilterSettings, progress: Progress | None = None) -> FilterReport:
    """Applies a policy: writes `decisions_<name>` and `subsets/<name>.json`, and makes the policy the pool's current one.

    Stored numbers only: no request, no model. The same question asked again changes nothing. With `settings.preview`
    rows are counted and nothing is written. Raises SettingsError for a policy that cannot be evaluated, IdentityError
    when its cuts are meant for another model's scores.
    """
    if settings.preview:
        return preview(pool, settings)
    question, progress = ask(pool, settings), progress or Silent()
    known = _known(pool, question)
    if known is not None:
        _make_current(pool, known.name)
        return FilterReport(known, unchanged=True)
    with _opened(pool, question, settings.memory_bytes) as connection:
        subset = _write(pool, run, connection, question, _evaluate(connection, question), progress)
    write_subset(pool, subset)
    _make_current(pool, subset.name)
    return FilterReport(subset)


def preview(pool: Pool, settings: FilterSettings) -> FilterReport:
    """Counts what a policy would keep and drop; needs no right to write."""
    question = ask(pool, settings)
    with _opened(pool, question, settings.memory_bytes) as connection:
        return FilterReport(_evaluate(connection, question), preview=True)


def _opened(pool: Pool, question: _Question, memory_bytes: int) -> judging.Connection:
    versions = {name: found.version for name, found in question.tables.items()}
    connection = connect(pool, NO_POLICY, versions, question.groups and question.groups.removeprefix("groups_"), memory_bytes)
    judging.prepare(connection, "fetched" in question.tables)
    return connection


def ask(pool: Pool, settings: FilterSettings) -> _Question:
    """The policy with its overrides, and the tables that it is to be asked about, pinned. Raises SettingsError, IdentityError."""
    policy = from_condition(settings) if settings.where else load(settings)
    if settings.mode == "quantile" and not policy.fractions:
        raise SettingsError(f"{policy.origin} declares no fraction, so mode=quantile has nothing to choose")
    found = {name: table for name, table in pin(pool).items() if _belongs(name) and table.files}
    if "rows" not in found:
        raise UsageError("the pool has no rows yet: plan a list first, then filter")
    groups = _groups(policy, found)
    tables = {name: table for name, table in found.items() if not name.startswith("groups_") or name == groups}
    clip = current_clip_column(pool, tables)
    _refuse_other_model(policy, settings, clip)
    names = _names(policy, groups)
    return _Question(policy, settings.mode, clip, groups, tables, _unscored(tables, names, clip))


def _belongs(table: str) -> bool:
    return table in ("rows", "fetched", "decisions_prefilter") or table.startswith(("scores_", "groups_"))


def _groups(policy: Policy, found: Mapping[str, Snapshot]) -> str | None:
    """The groups table whose members compete: the named one, or the only one."""
    present = [name.removeprefix("groups_") for name in found if name.startswith("groups_")]
    if policy.groups == NO_GROUPS:
        return None
    if policy.groups:
        if policy.groups not in present:
            offered = nearest(policy.groups, present) or f"; there are {', '.join(present) or 'none: run dedupe first'}"
            raise SettingsError(f"{policy.origin}: the pool has no duplicate groups {policy.groups!r}{offered}")
        return f"groups_{policy.groups}"
    if len(present) > 1:
        raise SettingsError(f"the pool has several duplicate groups: say groups= one of {', '.join(present)} or {NO_GROUPS}")
    return f"groups_{present[0]}" if present else None


def _refuse_other_model(policy: Policy, settings: FilterSettings, clip: str | None) -> None:
    """A cosine of one model means nothing to another: 0.3 is the median here and the top percent there."""
    own_cuts = all(fraction.parameter in settings.parameters for fraction in policy.fractions) and bool(policy.fractions)
    if policy.requires is None or policy.requires == clip or settings.mode == "quantile" or own_cuts:
        return
    has = f"clip_score of this pool is {clip}" if clip else "this pool has no clip_score of it"
    raise IdentityError(
        f"policy {policy.origin} has cuts for {policy.requires}, and {has}:"
        " score the pool with that model, or keep the same shares of this pool with  mode=quantile"
    )


def _names(policy: Policy, groups: str | None) -> set[str] | None:
    """What the policy reads, by name; None when that cannot be told."""
    read = names_read(policy.text)
    order = names_read(f"SELECT 1 FROM samples ORDER BY {policy.representative or judging.USUAL_ORDER}") if groups else set()
    return None if read is None or order is None else read | order | {fraction.column for fraction in policy.fractions}


def _unscored(tables: Mapping[str, Snapshot], names: set[str] | None, clip: str | None) -> list[int]:
    """Fetched parts, or planned ones where nothing is fetched, that a table which the policy reads lacks: their rows stay undecided."""
    stands_for = {"clip_score": clip, "clip_score_masked": masked_column(tables, clip)}
    read = names and names | {column.lower() for alias, column in stands_for.items() if alias in names and column}
    missing: set[int] = set()
    for name, table in tables.items():
        columns = {} if table.schema is None else {column.lower() for column in table.schema.names} - {*schemas.KEY, "reason", "basis"}
        used = name.startswith("groups_") or read is None or name in read or not read.isdisjoint(columns)
        if used and name.startswith(("scores_", "groups_")):
            missing |= tables.get("fetched", tables["rows"]).by_part.keys() - table.by_part.keys()
    return sorted(missing)


def _known(pool: Pool, question: _Question) -> Subset | None:
    """The subset when this very question was answered before and the decisions still stand."""
    name = question.policy.name
    if not subset_path(pool, name).exists():
        return None
    subset, basis = read_subset(pool, name), question.basis()
    files = pool.snapshot(f"decisions_{name}").files
    stand = len(files) == len(_filled(question)) and all(file.basis == basis for file in files)
    return subset if subset.basis == basis and stand else None


def _evaluate(connection: judging.Connection, question: _Question) -> Subset:
    """Runs the policy and counts; the verdicts are then in the connection's table `verdicts`."""
    policy = question.policy
    rules = judging.rules_of(connection, policy)
    cuts: list[CutOutcome] = []
    for fraction in policy.fractions:
        if _is_quantile(question, fraction.parameter):
            found = {**policy.parameters, **{cut.parameter: cut.cut for cut in cuts}}
            cuts.append(judging.choose_cut(connection, policy, fraction, found))
    values = _values(policy, cuts)
    judging.judge(connection, policy, rules, values, question.groups, question.unscored)
    counts, total = judging.rule_counts(connection, rules), judging.totals(connection)
    dropped = {name: count.first for name, count in counts.items() if count.first}
    if total["rows"] != total["kept"] + total["refused"] + total["pending"] + sum(dropped.values()):
        raise AccountingError(f"policy {policy.name}: {total} and {dropped} do not add up")
    return Subset(
        name=policy.name, digest="", basis=question.basis(), policy=policy.origin, policy_text=policy.text, policy_sha256=policy.sha256,
        mode=question.mode, parameters=values, cuts=tuple(cuts), rules=counts, user_reasons=tuple(user_reasons(rules)),
        groups=None if question.groups is None else question.groups.removeprefix("groups_"),
        representative=policy.representative or judging.USUAL_ORDER, clip_column=question.clip_column,
        tables={name: table.version for name, table in question.tables.items()}, decisions_version=-1, dropped=dropped, **total,
    )  # fmt: skip


def _is_quantile(question: _Question, parameter: str) -> bool:
    return question.mode == "quantile" or question.policy.parameters[parameter] is None


def _values(policy: Policy, cuts: Sequence[CutOutcome]) -> dict[str, Value]:
    values = {name: value for name, value in policy.parameters.items() if value is not None}
    values.update({cut.parameter: cut.cut for cut in cuts})
    for name in policy.parameters:
        if name not in values:
            raise SettingsError(f"{policy.origin}: parameter {name!r} has neither a value nor a fraction: give one as {name}=…")
    return values


# -- writing


def _write(pool: Pool, run: Run, connection: judging.Connection, question: _Question, subset: Subset, progress: Progress) -> Subset:
    table = f"decisions_{subset.name}"
    run.add(table, schemas.table(table))
    expected, digest, files = _filled(question), hashlib.sha256(), list[PartFile]()
    progress.start("filter", len(expected), "parts")
    for part, data in judging.verdicts(connection, question.policy):
        if data.num_rows != expected.pop(part, -1):
            raise AccountingError(f"policy {subset.name}: part {part} has {data.num_rows} verdicts, not one for each of its rows")
        digest.update(decided_lines(data))
        files.append(pool.write_part(table, part, data.drop_columns(["part", "sample_id"]), subset.basis))
        progress.advance("filter")
    if expected:
        raise AccountingError(f"policy {subset.name}: no verdicts for parts {sorted(expected)[:5]}")
    run.replace_all(table, files)
    progress.finish("filter")
    return subset.model_copy(update={"digest": digest.hexdigest(), "decisions_version": pool.snapshot(table).version})


def _filled(question: _Question) -> dict[int, int]:
    """Rows of each part that has any."""
    return {file.part: file.rows for file in question.tables["rows"].files if file.rows}


def decided_lines(data: pa.Table) -> bytes:
    """What a subset's digest is taken over: one line per row that the policy decided, with its reason."""
    decided = data.filter(pc.or_(pc.equal(data["keep"], True), pc.is_valid(data["reason"])))
    lines = pc.binary_join_element_wise(decided["sample_id"], pc.fill_null(decided["reason"], "kept"), "\t")
    return "".join(f"{line}\n" for line in lines.to_pylist()).encode()


def _make_current(pool: Pool, name: str) -> None:
    current = pool.read_document(CURRENT) or {}
    if current.get("policy") != name:
        pool.write_document(CURRENT, {**current, "policy": name})
