"""What a whole list will cost and yield, from a sample that is really fetched: `curate estimate`.

The sample is drawn by hash of the URL, so a larger one holds a smaller one. Shares have Wilson intervals (1927), sums
and times bootstrap intervals (Efron 1979), all of 95 %, narrowed by the part of the list that was seen.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate import steps
from curate.catalog.sql import query
from curate.catalog.status import human_bytes
from curate.engines.base import worker_count
from curate.errors import UsageError
from curate.evaluate.statistics import Interval, mean_interval
from curate.media.url import site
from curate.plan.hosts import count_hosts
from curate.plan.parts import part_count
from curate.plan.survey import Survey, survey
from curate.progress import Progress, Silent
from curate.recipe import Job, Recipe, RecipeSettings, recipe_settings, run_recipe
from curate.store import Pool

SAMPLE_ROWS = 1000
SHOWN_REASONS = 8
_Z = 1.959964  # of a 95 % interval
_STEADY = 0.9  # share of the sample after which the stragglers begin, which in a long run overlap with other rows
_SLICES = 18

_ROWS = """
SELECT reason, outcome, coalesce(t.bytes_read, 0) AS bytes_read, epoch(t.finished_at) AS finished,
    CASE WHEN row_number() OVER (PARTITION BY tar_file, tar_offset ORDER BY part, row) = 1 THEN coalesce(tar_size, 0) ELSE 0 END AS stored,
    tar_file IS NOT NULL AS fetched
FROM samples LEFT JOIN telemetry_fetch AS t USING (part, row)
"""


@dataclass(frozen=True)
class Estimate:
    """Figures for the whole list, each with its 95 % interval; shares are of all its rows."""

    list: str
    mapping: str
    rows: int
    sampled: int
    seconds: float  # that the sample took
    success: Interval
    bytes_fetched: Interval
    disk_bytes: Interval
    hours: Interval
    rows_per_second: float
    busiest_site: str | None
    busiest_rows: int
    busiest_hours: float  # that its budget alone takes; part of `hours`
    reasons: Mapping[str, Interval]
    policy: str | None = None
    kept_rows: Interval | None = None
    price: Interval | None = None
    pool: str | None = None  # of the sample, where it was kept
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; an end that nobody knows is null."""
        return {name: _finite(value) for name, value in asdict(self).items()}

    def text(self) -> str:
        """Lines for a terminal."""
        return "\n".join(_lines(self)) + "\n"


def estimate(
    path: str,
    overrides: Sequence[str] = (),
    *,
    rows: int = SAMPLE_ROWS,
    policy: str | None = None,
    price: float | None = None,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Fetches about `rows` rows of a list, as `curate run ingest` would with these overrides, and reckons up the rest.

    With `policy` (or a `filter.…` override) the sample is also scored and filtered. `price` is that of a machine hour, by
    default `engine.price_per_machine_hour`; hours are those of one machine such as this. The
    sample's pool is removed, or stays in the folder `keep`. Raises CurateError.
    """
    if rows < 1:
        raise UsageError(f"a sample needs at least one row, not {rows}")
    progress = progress or Silent()
    said = [f"input.path={path}", *overrides, *([f"filter.policy={policy}"] if policy else [])]
    decides = policy is not None or any(override.startswith("filter.") for override in overrides)
    recipe = Recipe("ingest", (*_FETCHING, *(_DECIDING if decides else ())))
    settings = recipe_settings(recipe, said)
    found = survey(settings.input, progress)
    folder = Path(keep) if keep else Path(tempfile.mkdtemp(prefix="curate-estimate-"))
    try:
        begun = time.monotonic()
        here = ["engine.name=local", *_sampling(settings, found, rows)]  # a sample needs no cluster
        job = run_recipe(recipe, folder, [*said, *here], progress=progress)
        seconds = time.monotonic() - begun
        hosts = _busiest(found, settings, progress)
        return _Reckoning(job, settings, found).estimate(
            path, seconds, hosts, decides, _price(price, settings), str(folder) if keep else None
        )
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


_FETCHING = (steps.plan, steps.prefilter, steps.fetch)
_DECIDING = (steps.score, steps.filter)  # a sample's duplicates say nothing about a list's


def _sampling(settings: RecipeSettings, found: Survey, rows: int) -> list[str]:
    """A share that gives about `rows` rows, in as many parts as there are workers: else one of them would do it all."""
    share = min(settings.input.sample, rows / found.rows)
    workers = worker_count(settings.engine)
    each = max(1, -(-round(found.rows * share) // workers))
    return [f"input.sample={share!r}", f"plan.rows_per_part={each}", "filter.groups=none"]


def _price(said: float | None, settings: RecipeSettings) -> float | None:
    """Of an hour of one machine such as this: as said, or the example in the engine's file in conf/engine."""
    return settings.engine.price_per_machine_hour if said is None else said


def _busiest(found: Survey, settings: RecipeSettings, progress: Progress) -> tuple[str | None, int]:
    """The site with most rows of the whole list."""
    sites: dict[str, int] = {}
    for host, count in count_hosts(found, settings.input, progress).items():
        sites[site(host)] = sites.get(site(host), 0) + count
    return max(sites.items(), key=lambda item: (item[1], item[0]), default=(None, 0))


class _Reckoning:
    """From the sample's rows to the list's."""

    def __init__(self, job: Job, settings: RecipeSettings, found: Survey) -> None:
        self.settings, self.found, self.pool = settings, found, job.pool
        self.sample = query(job.pool, _ROWS)
        self.rows = round(found.rows * settings.input.sample)
        self.seen = min(1.0, self.sample.num_rows / max(1, self.rows))

    def estimate(
        self, path: str, seconds: float, busiest: tuple[str | None, int], decides: bool, price: float | None, kept_in: str | None
    ) -> Estimate:
        """All figures."""
        hours, rate, busiest_hours = self._hours(busiest[1])
        kept = self._share([outcome == "kept" for outcome in self._column("outcome")]) if decides else None
        policy = self.settings.filter.where or self.settings.filter.policy
        notes = ["kept rows are counted before duplicates are dropped"] if decides else []
        if not self._rate_known():
            notes.append("too few rows were requested to tell how fast it goes")
        return Estimate(
            list=path,
            mapping=str(self.found.mapping),
            rows=self.rows,
            sampled=self.sample.num_rows,
            seconds=seconds,
            success=self._share(self._column("fetched")),
            bytes_fetched=self._sum(self._numbers("bytes_read")),
            disk_bytes=self._disk(),
            hours=hours,
            rows_per_second=rate,
            busiest_site=busiest[0],
            busiest_rows=busiest[1],
            busiest_hours=busiest_hours,
            reasons=self._reasons(),
            policy=policy if decides else None,
            kept_rows=scaled(kept, self.rows) if kept else None,
            price=scaled(hours, price) if price is not None else None,
            pool=kept_in,
            notes=tuple(notes),
        )

    def _column(self, name: str) -> list[Any]:
        values: list[Any] = self.sample[name].to_pylist()
        return values

    def _numbers(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self._column(name), np.float64)

    def _share(self, hits: Sequence[bool]) -> Interval:
        return wilson(sum(hits), len(hits), self.seen)

    def _sum(self, values: NDArray[np.float64], base: float = 0.0) -> Interval:
        """Of the whole list: mean of the sample's rows times all rows, plus what does not depend on rows."""
        mean = mean_interval(values)
        narrow = math.sqrt(1 - self.seen)
        low, high = (mean.value + (end - mean.value) * narrow for end in (mean.low, mean.high))
        return Interval(*(base + self.rows * figure for figure in (mean.value, low, high)))

    def _disk(self) -> Interval:
        """Tars (image, caption, their headers) and tables; tables by their compressed bytes, and a footer each part."""
        stored = self._numbers("stored")
        tars = sum(path.stat().st_size for path in (self.pool.path / "tars").rglob("*.tar"))
        of_rows, of_parts = table_bytes(self.pool)
        parts = part_count(self.found.rows, self.settings.input.sample, self.settings.plan)
        per_row = of_rows / self.sample.num_rows
        return self._sum(stored * (tars / stored.sum() if stored.any() else 0.0) + per_row, base=parts * of_parts)

    def _finished(self) -> NDArray[np.float64]:
        return np.sort(np.asarray([at for at in self._column("finished") if at is not None], np.float64))

    def _rate_known(self) -> bool:
        return len(self._finished()) > 2 * _SLICES

    def _hours(self, busiest_rows: int) -> tuple[Interval, float, float]:
        """Hours for all rows, rows a second, hours that the busiest site's budget alone takes."""
        finished = self._finished()
        asked = len(finished) / self.sample.num_rows
        busiest = busiest_rows * self.settings.input.sample * asked * self.settings.fetch.host_interval_seconds / 3600
        if not self._rate_known():
            return Interval(busiest, busiest, math.inf), 0.0, busiest
        steady = finished[: int(len(finished) * _STEADY)]
        ends = np.linspace(0, len(steady) - 1, _SLICES + 1).astype(int)
        each = mean_interval(np.diff(steady[ends]) / np.diff(ends))  # seconds a row, slice by slice
        all_rows = self.rows * asked / 3600
        hours = Interval(*(max(busiest, all_rows * figure) for figure in (each.value, each.low, each.high)))
        return hours, 1 / (each.value * asked) if each.value * asked else 0.0, busiest

    def _reasons(self) -> dict[str, Interval]:
        """Shares of the commonest reasons, most frequent first."""
        all_reasons = self._column("reason")
        counts = {reason: all_reasons.count(reason) for reason in set(all_reasons) if reason}
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_REASONS]
        return {reason: wilson(count, len(all_reasons), self.seen) for reason, count in ranked}


def wilson(hits: int, of: int, seen: float = 0.0) -> Interval:
    """A share and its Wilson interval; `seen` is the part of all rows that the sample is (finite population)."""
    share = hits / of
    if seen >= 1:
        return Interval(share, share, share)
    effective = of / (1 - seen)
    middle = (share + _Z**2 / (2 * effective)) / (1 + _Z**2 / effective)
    half = _Z / (1 + _Z**2 / effective) * math.sqrt(share * (1 - share) / effective + _Z**2 / (4 * effective**2))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


def scaled(interval: Interval, by: float) -> Interval:
    """All three figures times a number."""
    return Interval(interval.value * by, interval.low * by, interval.high * by)


def table_bytes(pool: Pool) -> tuple[float, float]:
    """Compressed bytes of all rows in all tables, and bytes of the files around them, a part."""
    data = around = parts = 0
    for name in pool.tables():
        found = pool.snapshot(name)
        for path in found.paths():
            footer = pq.read_metadata(path)
            groups = [footer.row_group(at) for at in range(footer.num_row_groups)]
            inside = sum(group.column(at).total_compressed_size for group in groups for at in range(group.num_columns))
            data, around = data + inside, around + Path(path).stat().st_size - inside
        parts = max(parts, len(found.by_part))
    return float(data), around / max(1, parts)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -- for a terminal


def _lines(said: Estimate) -> list[str]:
    percent = [f"{figure:.1%}" for figure in (said.success.value, said.success.low, said.success.high)]
    told = [
        ("with an image", percent, f"about {said.success.value * said.rows:,.0f} rows"),
        ("bytes fetched", _sizes(said.bytes_fetched), ""),
        ("disk", _sizes(said.disk_bytes), "tars and tables"),
        ("time", [_time(figure) for figure in _ends(said.hours)], _pace(said)),
    ]
    if said.kept_rows:
        told.append(("kept rows", [f"{figure:,.0f}" for figure in _ends(said.kept_rows)], f"by {said.policy}"))
    if said.price:
        told.append(
            ("price", [f"{figure:,.2f}" for figure in _ends(said.price)], "machine-hours at your price: an example until you set it")
        )
    width = max(len(value[0]) for _, value, _ in told)
    lines = [f"{said.list}: {said.rows:,} rows; {said.mapping}"]
    lines += [f"{said.sampled:,} of them, drawn by hash, were fetched in {said.seconds:.0f} s; in brackets 95 % intervals", ""]
    lines += [f"  {name:<14} {value[0]:>{width}}  ({value[1]} to {value[2]})  {more}".rstrip() for name, value, more in told]
    if said.reasons:
        lines += ["", "  not kept because of" if said.kept_rows else "  without an image because of"]
        shares = said.reasons.items()
        lines += [f"    {reason:<22} {share.value:>6.1%}  ({share.low:.1%} to {share.high:.1%})" for reason, share in shares]
    lines += ["", *(f"  {note}" for note in said.notes)] if said.notes else []
    return [*lines, "", f"  the sample's pool is in {said.pool}"] if said.pool else lines


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _sizes(interval: Interval) -> list[str]:
    return [human_bytes(figure) for figure in _ends(interval)]


def _time(hours: float) -> str:
    """In the unit that suits it, for example `40 s`, `12 min`, `9.1 h`, `3.2 days`."""
    if math.isinf(hours):
        return "nobody knows"
    for unit, size in (("days", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= 1.5 * size:
            return f"{hours / size:,.{1 if hours < 10 * size else 0}f} {unit}"
    return f"{hours * 3600:.0f} s"


def _pace(said: Estimate) -> str:
    site_told = f"{said.busiest_site}, the busiest site, alone takes {_time(said.busiest_hours)}" if said.busiest_site else ""
    rate = f"{said.rows_per_second:,.0f} rows a second" if said.rows_per_second else ""
    return "; ".join(filter(None, (rate, site_told)))
