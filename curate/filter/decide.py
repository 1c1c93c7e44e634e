"""A policy is applied to a pool: decisions for every row, and a subset that says how they came about."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema as schemas
from curate.catalog.aligned import runs
from curate.catalog.digest import joined
from curate.catalog.stretches import Stretch
from curate.catalog.views import connect_stretches, current_clip_column, masked_column, pin
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
_MOST_AT_ONCE = 8  # stretches in memory, on machines of many cores
_WRITERS = 4  # of a stretch: one writes while others wait for the disk


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
    subset = _write(pool, run, question, settings.memory_bytes, progress)
    write_subset(pool, subset)
    _make_current(pool, subset.name)
    return FilterReport(subset)


def preview(pool: Pool, settings: FilterSettings) -> FilterReport:
    """Counts what a policy would keep and drop; needs no right to write."""
    question = ask(pool, settings)
    with _opened(pool, question, settings.memory_bytes) as judged:
        codes = sum(judged.each(lambda one, view: judging.counts(view, question.policy, judged.question)), Counter[int]())
        beaten = judging.scalar(judged.connection, "SELECT count(*) FROM beaten")
        codes += Counter({judging.READY: -beaten, judging.BEATEN: beaten})
        return FilterReport(_subset(question, judged, codes), preview=True)


def kept_rows(pool: Pool, settings: FilterSettings) -> pa.Table:
    """`part` and `row` of each row that a policy would keep, in order; writes nothing."""
    question = ask(pool, settings)
    with _opened(pool, question, settings.memory_bytes) as judged:

        def kept(one: Stretch, view: judging.Connection) -> pa.Table:
            data = judging.coded(view, question.policy, judged.question, one.first, one.last)
            return data.filter(pc.equal(data["code"], judging.READY)).select(["part", "row"])

        return pa.concat_tables(judged.each(kept))


Found = TypeVar("Found")


@dataclass(frozen=True)
class _Judged:
    """A pool with the policy's cuts chosen: what is left is to read its rows."""

    connection: judging.Connection
    stretches: Sequence[Stretch]
    cuts: Sequence[CutOutcome]
    question: judging.Question
    has_images: bool

    def each(self, ask: Callable[[Stretch, judging.Connection], Found]) -> Iterator[Found]:
        """The answers of all stretches in order; as many at once as DuckDB has threads, each on a connection that sees only its own."""
        at_once = min(judging.scalar(self.connection, "SELECT current_setting('threads')"), _MOST_AT_ONCE)

        def answer(one: Stretch) -> Found:
            with self.connection.cursor() as view:
                judging.prepare(view, self.has_images, one.view)
                return ask(one, view)

        with ThreadPoolExecutor(at_once) as pool:
            waiting = deque[Future[Found]]()
            for one in self.stretches:
                waiting.append(pool.submit(answer, one))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@contextmanager
def _opened(pool: Pool, question: _Question, memory_bytes: int) -> Iterator[_Judged]:
    versions = {name: found.version for name, found in question.tables.items()}
    groups = question.groups and question.groups.removeprefix("groups_")
    connection, stretches = connect_stretches(pool, versions, groups, memory_bytes)
    with connection:
        judging.prepare(connection, "fetched" in question.tables)
        rules, cuts = judging.rules_of(connection, question.policy), list[CutOutcome]()
        for fraction in question.policy.fractions:
            if _is_quantile(question, fraction.parameter):
                found = {**question.policy.parameters, **{cut.parameter: cut.cut for cut in cuts}}
                cuts.append(judging.choose_cut(connection, question.policy, fraction, found))
        values = _values(question.policy, cuts)
        asked = judging.judge(connection, question.policy, rules, values, question.groups, question.unscored)
        yield _Judged(connection, stretches, cuts, asked, "fetched" in question.tables)


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


def _subset(question: _Question, judged: _Judged, codes: Mapping[int, int]) -> Subset:
    """What became of the rows, counted by their codes."""
    policy, rules = question.policy, judged.question.rules
    counts, total = judging.rule_counts(codes, rules), judging.totals(codes, rules)
    dropped = {name: count.first for name, count in counts.items() if count.first}
    if not sum(_filled(question).values()) == total["rows"] == total["kept"] + total["refused"] + total["pending"] + sum(dropped.values()):
        raise AccountingError(f"policy {policy.name}: {total} and {dropped} do not add up")
    return Subset(
        name=policy.name, digest="", basis=question.basis(), policy=policy.origin, policy_text=policy.text, policy_sha256=policy.sha256,
        mode=question.mode, parameters=_values(policy, judged.cuts), cuts=tuple(judged.cuts), rules=counts,
        user_reasons=tuple(user_reasons(rules)), groups=None if question.groups is None else question.groups.removeprefix("groups_"),
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


def _write(pool: Pool, run: Run, question: _Question, memory_bytes: int, progress: Progress) -> Subset:
    """The decisions of all rows, in files as a part each; the digest is taken in the order of parts."""
    name, basis = question.policy.name, question.basis()
    table, expected, digest = f"decisions_{name}", _filled(question), hashlib.sha256()
    codes, files = Counter[int](), list[PartFile]()
    if table in pool.tables():
        run.add(table, schemas.table(table))  # a new table is made once its rows are there
    progress.start("filter", len(expected), "parts")
    with _opened(pool, question, memory_bytes) as judged:
        for found, parts in judged.each(lambda one, view: _decided(pool, table, basis, question, judged, one, view)):
            codes += found
            for lines, file in parts:
                if file.rows != expected.pop(file.part, -1):
                    raise AccountingError(f"policy {name}: part {file.part} has {file.rows} verdicts, not one for each of its rows")
                digest.update(lines)
                files.append(file)
                progress.advance("filter")
        if expected:
            raise AccountingError(f"policy {name}: no verdicts for parts {sorted(expected)[:5]}")
        subset = _subset(question, judged, codes)
    run.add(table, schemas.table(table))
    run.replace_all(table, files)
    progress.finish("filter")
    return subset.model_copy(update={"digest": digest.hexdigest(), "decisions_version": pool.snapshot(table).version})


_Part = tuple[bytes, PartFile]  # what the digest is taken over, and the file


def _decided(
    pool: Pool, table: str, basis: str, question: _Question, judged: _Judged, one: Stretch, view: judging.Connection
) -> tuple[Counter[int], list[_Part]]:
    """How many rows of a stretch have each code, and its parts written."""
    data = judging.coded(view, question.policy, judged.question, one.first, one.last)
    code = data["code"].combine_chunks().dictionary_encode()
    known = judging.decisions(code.dictionary.to_pylist(), judged.question.rules)
    ends, ids = line_ends(known), data["sample_id"].combine_chunks()
    rows = np.bincount(code.indices.to_numpy(), minlength=len(known)).tolist()

    def write(low: int, high: int) -> _Part:
        some = code.indices[low:high]
        file = pool.write_part(table, data["part"][low].as_py(), known.take(some).add_column(0, "row", data["row"][low:high]), basis)
        return decided_lines(ids[low:high], ends.take(some)), file

    with ThreadPoolExecutor(_WRITERS) as writers:
        written = list(writers.map(write, *zip(*runs(data["part"].to_numpy()), strict=True)))
    return Counter(dict(zip(code.dictionary.to_pylist(), rows, strict=True))), written


def _filled(question: _Question) -> dict[int, int]:
    """Rows of each part that has any."""
    return {file.part: file.rows for file in question.tables["rows"].files if file.rows}


def line_ends(decisions: pa.Table) -> pa.Array:
    """What ends a row's line of a subset's digest: its reason, or that it is kept; null for a row that the policy did not decide."""
    pairs = zip(decisions["keep"].to_pylist(), decisions["reason"].to_pylist(), strict=True)
    return pa.array([f"\t{reason or 'kept'}\n" if keep or reason is not None else None for keep, reason in pairs], pa.string())


def decided_lines(sample_id: pa.Array, ends: pa.Array) -> bytes:
    """What a subset's digest is taken over: one line per row that the policy decided."""
    return joined(pc.binary_join_element_wise(sample_id, ends, ""))


def _make_current(pool: Pool, name: str) -> None:
    current = pool.read_document(CURRENT) or {}
    if current.get("policy") != name:
        pool.write_document(CURRENT, {**current, "policy": name})
