"""The steps that recipes are made of; each brings one kind of table up to date, or does nothing when it is."""

from __future__ import annotations

from curate.engines.base import EngineSettings
from curate.errors import UsageError
from curate.recipe import Job
from curate.run import PhaseReport, run_phase
from curate.stage import Phase


def plan(job: Job) -> None:
    """Input list → table `rows`."""
    from curate.plan.plan import plan as plan_list

    known = job.pool.snapshot("rows").schema
    if known is not None:
        job.run.add("rows", known)  # also a run that finds everything done must take this pool over, or be refused
    job.reports["plan"] = plan_list(job.pool, job.run, job.settings.input, job.settings.plan, job.progress)


def prefilter(job: Job) -> None:
    """`rows` → which of them may be requested; without a condition nothing is written."""
    from curate.plan.prefilter import TABLE
    from curate.plan.prefilter import prefilter as decide

    said = job.settings.prefilter
    if said.where is None and said.uid_file is None and job.pool.snapshot(TABLE).version < 0:
        return
    job.reports["prefilter"] = decide(job.pool, job.run, said.where, said.uid_file, job.progress)


def fetch(job: Job) -> None:
    """`rows` → bytes in part tars and table `fetched`: the only step that touches the network."""
    from curate.fetch.phase import FetchPhase

    _work(job, FetchPhase(job.settings.fetch, _workers(job.settings.engine)))


def fit(job: Job) -> None:
    """Trains the pool's own small CLIP on reserved rows, when the recipe asks for one."""
    from curate.fit import fit_clip

    if job.settings.fit.enabled:
        job.reports["fit"] = fit_clip(job)


def score(job: Job) -> None:
    """Images and captions → table `scores_<name>`; one decode per image feeds all scorers."""
    from curate.fit import with_own_clip
    from curate.score.phase import ScorePhase

    phase = ScorePhase(with_own_clip(job))
    phase.record(job.pool)
    _work(job, phase)


def dedupe(job: Job) -> None:
    """Hashes → tables `groups_<name>` and `pairs_<name>`."""
    from curate.dedupe import dedupe as find_groups

    job.reports["dedupe"] = find_groups(job.pool, job.run, job.settings.dedupe, job.progress)


def filter(job: Job) -> None:
    """A policy → table `decisions_<policy>` and a subset."""
    from curate.filter.decide import filter_pool

    job.reports["filter"] = filter_pool(job.pool, job.run, job.settings.filter, job.progress)


def pack(job: Job) -> None:
    """The current subset → shards."""
    from curate.catalog.verify import verify
    from curate.shards.pack import pack as pack_subset

    job.reports["pack"] = pack_subset(job.pool, job.run, None, job.settings.pack, job.progress)


def report(job: Job) -> None:
    """Everything → one page to look at."""
    from curate.catalog.report import report as write_report

    if job.settings.report.enabled:
        job.reports["report"] = write_report(job.pool, job.pool.path / "report" / "index.html", reveal=job.settings.report.reveal)


def _work(job: Job, phase: Phase) -> None:
    done: PhaseReport = run_phase(job.pool, job.run, phase, job.settings.engine, job.progress)
    job.reports[phase.name] = done
    job.counters.update(done.counters)


def _workers(engine: EngineSettings) -> int:
    import os

    return engine.workers or os.cpu_count() or 1
