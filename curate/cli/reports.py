"""What a step found, in sentences for people; each function returns lines for one kind of report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.compact import CompactReport
    from curate.dedupe.pictures import DedupeReport
    from curate.derive.counted import PhrasesReport
    from curate.filter.attach import AttachReport
    from curate.filter.decide import FilterReport
    from curate.later import GrowthReport, RetryReport
    from curate.learn import EvaluateReport
    from curate.plan.plan import PlanReport
    from curate.plan.prefilter import PrefilterReport
    from curate.removal.takedown import Outline, RemovalReport
    from curate.run import PhaseReport
    from curate.shards.croissant import CroissantReport
    from curate.shards.pack import PackReport
    from curate.train.loop import TrainReport
    from curate.work import CommitReport, WorkReport

SHOWN_REASONS = 4


def sentences(report: object) -> list[str] | None:
    """What a report says, in lines; None for a kind that nobody described here."""
    told = TOLD.get(type(report).__name__)
    return told(report) if told else None


def _plan(report: PlanReport) -> list[str]:
    sampled = f" of {report.listed:,} listed" if report.rows != report.listed else ""
    before = "" if report.is_new else " (as before)"
    refused = {reason: rows for reason, rows in report.reasons.items() if reason != "ok"}
    return [
        f"{counted(report.rows, 'row')}{sampled} in {counted(report.parts, 'part')}{before}; {report.mapping}",
        *([f"{sum(refused.values()):,} refused: {_by_reason(refused)}"] if refused else []),
    ]


def _prefilter(report: PrefilterReport) -> list[str]:
    refused = f"{report.refused:,} are not" if report.refused else "none is refused"
    return [f"{report.passed:,} rows may be requested, {refused}{'' if report.parts_changed else ' (as before)'}"]


def _phase(report: PhaseReport) -> list[str]:
    waiting = f"; {counted(report.waiting, 'part')} wait for the phase before" if report.waiting else ""
    if not report.parts:
        done = f"nothing new: {counted(report.skipped, 'part')} done before" if report.skipped else "nothing to do"
        return [f"{done}{waiting}"]
    good = report.reasons.get("ok", 0)
    others = {reason: rows for reason, rows in report.reasons.items() if reason != "ok" and rows}
    without = f", {sum(others.values()):,} without: {_by_reason(others)}" if others else ""
    skipped = f"; {counted(report.skipped, 'part')} had been done" if report.skipped else ""
    skipped += f"; in {report.passes} passes" if report.passes > 1 else ""
    looked = report.counters.get("decodes", 1)  # captions are scored without
    what = "an embedding" if "embeddings" in report.counters else "an image" if looked else "a score"
    return [f"{good:,} rows with {what}{without}{skipped}{waiting}", *_counted_work(report)]


def _counted_work(report: PhaseReport) -> list[str]:
    """Requests or model calls: what a phase costs, and how fast it went."""
    counts, seconds = report.counters, max(report.seconds, 1e-9)
    if "requests" in counts:
        from curate.catalog.status import human_bytes

        requests = int(counts["requests"])
        read = human_bytes(counts["bytes_read"])
        return [f"{counted(requests, 'request')} for {int(counts['urls']):,} URLs, {read} read, {requests / seconds:,.0f} a second"]
    if "images" in counts and counts.get("decodes", 1):
        return [f"{int(counts['images']):,} images decoded once each, {int(counts['images']) / seconds:,.0f} a second"]
    return []


def _retry(report: RetryReport) -> list[str]:
    """What was asked again, what became of it, and what is to be done next."""
    work = report.fetch
    if not work.parts:
        which = "row that was asked so long ago" if report.older_than_seconds else "row"
        named = " or ".join(report.reasons) if len(report.reasons) <= SHOWN_REASONS else "a failure that another try may mend"
        return [f"nothing to ask again: no {which} ended with {named}"]
    width = max(len(name) for name in report.before)
    asked = f"{int(work.counters['urls']):,} URLs asked again in {counted(work.parts, 'part')}"
    lines = [f"{asked} with {counted(int(work.counters['requests']), 'request')}; {counted(work.skipped, 'part')} untouched"]
    lines += [f"  {name:<{width}} {report.before[name]:>10,} → {report.after[name]:,}" for name in report.before]
    return [*lines, *_next(report.next)]


def _growth(report: GrowthReport) -> list[str]:
    """What a further list brought, and what was requested for it."""
    rows = report.rows
    refused = {reason: count for reason, count in rows.reasons.items() if reason != "ok"}
    known = (
        f"{rows.reasons.get('duplicate_row', 0):,} rows are there already, {rows.shared:,} show an image of the pool under another caption"
    )
    before = "" if rows.is_new else " (as before)"
    lines = [f"{counted(rows.rows, 'row')} in {counted(rows.parts, 'part')} from part {rows.first_part} on{before}; {rows.mapping}", known]
    lines += [f"{sum(refused.values()):,} refused: {_by_reason(refused)}"] if refused else []
    return [*lines, *_phase(report.fetch), *_next(report.next)]


def _next(commands: Sequence[str]) -> list[str]:
    return ["bring the rest up to date:", *(f"  {line}" for line in commands)] if commands else []


def _training(report: TrainReport) -> list[str]:
    """Where the model is and how it went; the history of losses is in its folder."""
    step_seconds = report.samples_seen / max(1, report.steps) / max(report.samples_per_second, 1e-9)
    each = f"{step_seconds:.2f} s" if step_seconds >= 1 else f"{1000 * step_seconds:.0f} ms"
    speed = f", {each} a step ({report.samples_per_second:,.0f} samples a second)" if report.samples_per_second else ""
    first, last = report.loss_history[0], report.loss_history[-1]
    return [f"{report.path}: {counted(report.steps, 'step')}, {report.samples_seen:,} samples seen, loss {first:.2f} → {last:.3f}{speed}"]


def _phrases(report: PhrasesReport) -> list[str]:
    if not report.recomputed:
        return [f"nothing new: {counted(report.parts, 'part')} done before"]
    return [f"{report.rows:,} rows with a caption in {counted(report.parts, 'part')}: table {report.table}"]


def _croissant(report: CroissantReport) -> list[str]:
    return [f"{report.file}: subset {report.subset}, {counted(report.files, 'file')}, {counted(report.fields, 'field')}"]


def _dedupe(report: DedupeReport) -> list[str]:
    what, groups, pairs = {
        "pictures": ("pictures", "of copies", f"{report.exact_pairs:,} pairs have equal bytes, {report.near_pairs:,} look alike"),
        "captions": ("captions", "of copies", f"{report.exact_pairs:,} pairs are equal, {report.near_pairs:,} are nearly so"),
        "embeddings": ("embeddings", "of near ones", f"{report.near_pairs:,} are near one that is preferred"),
    }[report.by]
    before = "" if report.recomputed else " (as before)"
    return [f"{report.grouped_rows:,} of {report.rows:,} {what} in {counted(report.groups, 'group')} {groups}{before}; {pairs}"]


def _filter(report: FilterReport) -> list[str]:
    """What a policy makes of a pool: its cuts, and rows dropped by each rule first, alone and only."""
    subset = report.subset
    how = " (preview: nothing was written)" if report.preview else " (as before)" if report.unchanged else ""
    lines = [f"{subset.name}: {subset.kept:,} of {subset.rows:,} rows kept{how}"]
    lines += [f"  {subset.refused:,} had a reason before, {subset.pending:,} are pending"]
    for cut in subset.cuts:
        lines.append(f"  {cut.parameter} = {cut.cut:.4f}: keeps {cut.kept:,} of {cut.of:,} {cut.denominator} ({cut.fraction:.1%})")
    width = max((len(name) for name in subset.rules), default=4)
    lines.append(f"  {'rule':<{width}} {'first':>10} {'alone':>10} {'only':>10}")
    for name, counts in subset.rules.items():
        lines.append(f"  {name:<{width}} {counts.first:>10,} {counts.alone:>10,} {counts.only:>10,}")
    return lines


def _pack(report: PackReport) -> list[str]:
    from curate.catalog.status import human_bytes

    before = " (as before)" if report.unchanged else ""
    what = f"{counted(report.samples, 'sample')} in {counted(report.shards, 'shard')}, {human_bytes(report.bytes)}{before}: {report.folder}"
    train = [f"with open_clip:  {report.train_command}"] if report.train_command else []
    return [what, *train]


def _page(page: Path) -> list[str]:
    return [f"open {page}"]


def _evaluation(report: EvaluateReport) -> list[str]:
    """What was measured, with the 95 % interval of each figure."""
    width = max((len(f"{found.task} {found.metric}") for found in report.measurements), default=0)
    lines = [f"{report.model}{' (measured before)' if report.unchanged else ''}"]
    for found in report.measurements:
        interval = f"95 % interval {found.low:.3f} to {found.high:.3f}, {found.samples:,} samples"
        lines.append(f"  {f'{found.task} {found.metric}':<{width}}  {found.value:.3f}  ({interval})")
    return lines


def _worked(report: WorkReport) -> list[str]:
    had = f"; {counted(report.skipped, 'part')} had been done or reported" if report.skipped else ""
    return [f"{report.phase}: {counted(report.done, 'part')} done and reported{had}; `curate commit` takes them in"]


def _committed(report: CommitReport) -> list[str]:
    """What became of the reports, table by table."""
    if not report.tables:
        return ["nothing to commit: no worker has left a report"]
    lines = []
    for told in report.tables:
        others = {
            "committed before": told.before,
            "second ones on a part": told.twins,
            "made from what has changed since": told.stale,
            "not readable, left where they are": told.unreadable,
        }
        said = "".join(f"; {number:,} {what}" for what, number in others.items() if number)
        lines.append(f"{told.table}: {counted(told.committed, 'part')} committed{said}; {told.left:,} still to be done")
    return lines


def _compacted(report: CompactReport) -> list[str]:
    from curate.catalog.status import human_bytes

    had = f"; {report.before:,} were there" if report.before else ""
    copies = f"{counted(report.written, 'copy', 'copies')} written, {human_bytes(report.bytes)}{had}"
    return [f"{copies}: {counted(report.written + report.before, 'file')} to read in place of {report.part_files:,}"]


def outline_lines(outline: Outline) -> list[str]:
    """What a removal takes, before it is done."""
    from curate.catalog.status import human_bytes

    verb = "to be withdrawn" if outline.kind == "takedown" else "whose bytes are to be deleted"
    images = f"{counted(outline.images, 'image')}, {human_bytes(outline.bytes)}"
    lines = [f"{counted(outline.rows, 'row')} {verb}, {outline.named:,} of them named; {images}, in {counted(outline.parts, 'part')}"]
    lines += [f"{counted(outline.shards, 'packed sample')} leave their shards"] if outline.shards else []
    lines += [f"{counted(outline.elsewhere, 'entry', 'entries')} of the list in no row: barred for later"] if outline.elsewhere else []
    lines += [f"{counted(outline.spared, 'row')} left out: another row uses the same image"] if outline.spared else []
    if outline.near_copies:
        lines += [f"{counted(outline.near_copies, 'row')} that look the same stay: --near-copies takes them too"]
    return lines


def _removal(report: RemovalReport) -> list[str]:
    """What went, what became of subsets and shards, and what the search found."""
    from curate.catalog.status import human_bytes

    before = [f"finished the {report.finished} that had been interrupted"] if report.finished else []
    if report.record is None:
        return [*before, *outline_lines(report.outline), "nothing was changed"]
    subsets = [f"subset {name}: {outcome}" for name, outcome in (report.subsets or {}).items()]
    shards = f"; {counted(report.shards, 'shard')} written anew" if report.shards else ""
    lines = [*before, *outline_lines(report.outline), f"done: {human_bytes(report.bytes_freed)} freed{shards}; record: {report.record}"]
    lines += [*subsets, "curate filter and curate pack bring groups, decisions and shards up to date; no request is made"]
    return [*lines, *(report.proof.text().splitlines() if report.proof else [])]


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 part`, `2 parts`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def _by_reason(reasons: Mapping[str, int]) -> str:
    """The most frequent reasons, for example `http_not_found 12, timeout_total 3, and 4 for others`."""
    ranked = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{reason} {rows:,}" for reason, rows in ranked[:SHOWN_REASONS]]
    rest = sum(rows for _, rows in ranked[SHOWN_REASONS:])
    return ", ".join([*named, *([f"{rest:,} for others"] if rest else [])])


def _attached(report: AttachReport) -> list[str]:
    left = (
        [f"{counted(report.unused, 'key')} of the table {'is' if report.unused == 1 else 'are'} not in the pool"] if report.unused else []
    )
    left += [f"{counted(report.without_key, 'line')} had no key"] if report.without_key else []
    matched = f"{report.matched:,} of {counted(report.rows, 'row')} matched by {report.key} ({report.matched / report.rows:.1%})"
    return [
        f"{', '.join(report.columns)} attached as {report.table}: {matched}",
        *(["; ".join(left)] if left else []),
    ]


TOLD: dict[str, Callable[[Any], list[str]]] = {
    "PlanReport": _plan,
    "RemovalReport": _removal,
    "PrefilterReport": _prefilter,
    "PhaseReport": _phase,
    "TrainReport": _training,
    "DedupeReport": _dedupe,
    "PhrasesReport": _phrases,
    "CroissantReport": _croissant,
    "FilterReport": _filter,
    "PackReport": _pack,
    "PosixPath": _page,
    "EvaluateReport": _evaluation,
    "RetryReport": _retry,
    "GrowthReport": _growth,
    "WorkReport": _worked,
    "CommitReport": _committed,
    "AttachReport": _attached,
    "CompactReport": _compacted,
}
