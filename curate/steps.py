"""The steps that recipes are made of; each brings one kind of table up to date, or does nothing when it is."""

from __future__ import annotations

from pathlib import Path

from curate.catalog.views import current_policy
from curate.errors import UsageError
from curate.recipe import Job
from curate.run import PhaseReport, crew, run_phase
from curate.score.settings import ScoreSettings
from curate.settings import build, compose
from curate.stage import Phase, fingerprint
from curate.train.settings import TrainSettings

PRETRAINED = "pretrained"  # folder below models/ of the pool


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
    from curate.fetch.blocklist import load
    from curate.later import fetch_phase

    load(job.settings.fetch.blocklists)  # a bad line stops the run here, and large lists are sorted once for all workers
    _work(job, fetch_phase(job.pool, job.settings.fetch))


def fit(job: Job) -> None:
    """Trains the pool's own small CLIP on the reserved rows, when the recipe asks for one."""
    from curate.learn import reserved_rows
    from curate.train.loop import train as run_training

    said, clip = job.settings.fit, job.settings.score.clip
    if not said.enabled:
        return
    job.pool.require_disk("a CLIP of the pool's own (fit.enabled)")
    if clip is None or clip.reserve is None:
        raise UsageError("fit.enabled needs score.clip.reserve: the rows to train on, which the model then does not score")
    length = [] if said.samples_seen is None else [f"train.samples_seen={said.samples_seen}"]
    how = build(TrainSettings, compose("ingest", [f"train={said.train}", *length])["train"])
    folder, document = _model(job, said.name), f"fitted_{said.name}"
    done = {"identity": fingerprint(how.identity(), clip.reserve.model_dump_json())}
    if job.pool.read_document(document) == done and folder.is_dir():
        return  # fitted once: rows that come later must not change the scores of those that are there
    job.reports["fit"] = run_training(reserved_rows(job.pool, clip.reserve, how.seed), how, folder, job.progress)
    job.pool.write_document(document, done)


def score(job: Job) -> None:
    """Images and captions → table `scores_<name>`; one decode per image feeds all scorers."""
    from curate.score.phase import ScorePhase

    phase = ScorePhase(_score_settings(job))
    phase.record(job.pool)
    _work(job, phase)


def dedupe(job: Job) -> None:
    """Hashes → tables `groups_<name>` and `pairs_<name>`."""
    from curate.dedupe import dedupe as find_groups
    from curate.dedupe import output_tables

    for table, schema in output_tables(job.settings.dedupe).items():
        job.run.add(table, schema)
    job.reports["dedupe"] = find_groups(job.pool, job.run, job.settings.dedupe, crew(job.settings.engine), job.progress)


def filter(job: Job) -> None:
    """A policy → table `decisions_<policy>` and a subset."""
    from curate.filter.decide import filter_pool

    said = job.settings.filter
    if said.where:  # a condition takes the place of the policy that the recipe's file names
        said = said.model_copy(update={"policy": ""})
    job.reports["filter"] = filter_pool(job.pool, job.run, said, job.progress)


def pack(job: Job) -> None:
    """The current subset → shards."""
    from curate.shards.pack import pack as pack_subset

    job.reports["pack"] = pack_subset(job.pool, job.run, current_policy(job.pool), job.settings.pack, job.progress)


def report(job: Job) -> None:
    """Everything → one page to look at."""
    from curate.catalog.report import report as write_report

    if job.settings.report.enabled:
        job.reports["report"] = write_report(job.pool, job.pool.path / "report" / "index.html", reveal=job.settings.report.reveal)


def train(job: Job) -> None:
    """The packed shards → a model of its own in models/pretrained."""
    from curate.shards.reader import ShardReader
    from curate.train.loop import train as run_training

    job.pool.require_disk("training")
    source = ShardReader(job.pool.path / "shards" / current_policy(job.pool), seed=job.settings.train.seed)
    job.reports["train"] = run_training(source, job.settings.train, _model(job, PRETRAINED), job.progress)


def evaluate(job: Job) -> None:
    """The trained model on held-out samples → table `evaluations`."""
    from curate.learn import evaluate_model

    job.pool.require_disk("evaluating")
    job.reports["evaluate"] = evaluate_model(job.pool, job.run, _model(job, PRETRAINED), job.settings.evaluate, job.progress)


def _model(job: Job, name: str) -> Path:
    return job.pool.path / "models" / name


def _score_settings(job: Job) -> ScoreSettings:
    """The recipe's settings, with the pool's own model as weights when the recipe fits one."""
    score, said = job.settings.score, job.settings.fit
    if not said.enabled or score.clip is None:
        return score
    clip = score.clip.model_copy(update={"model": said.name, "weights": f"local-dir:{_model(job, said.name)}"})
    return score.model_copy(update={"clip": clip})


def _work(job: Job, phase: Phase) -> None:
    done: PhaseReport = run_phase(job.pool, job.run, phase, job.settings.engine, job.progress)
    job.reports[phase.name] = done
    job.counters.update(done.counters)
