"""The Python face of a pool: everything that the command line does, as methods.

import curate
pool = curate.open("demo-pool")
pool.sql("SELECT reason, count(*) FROM samples GROUP BY 1").df()
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.catalog.compare import Comparison, compare
from curate.catalog.digest import digest
from curate.catalog.findings import VerifyReport
from curate.catalog.funnel import Funnel, funnel
from curate.catalog.history import Event, history
from curate.catalog.report import report as write_report
from curate.catalog.sql import query, render
from curate.catalog.status import Status, shown_runs, status
from curate.catalog.verify import verify
from curate.catalog.views import NO_POLICY, current_policy
from curate.compact import CompactReport, compact
from curate.dedupe.pictures import DedupeReport, dedupe, output_tables
from curate.dedupe.settings import DedupeSettings
from curate.engines.base import EngineSettings
from curate.errors import SettingsError, UsageError
from curate.evaluate.settings import EvaluateSettings
from curate.fetch.settings import FetchSettings
from curate.filter.decide import FilterReport, filter_pool
from curate.filter.decide import preview as count
from curate.filter.policy import checked_name
from curate.filter.settings import FilterSettings
from curate.learn import EvaluateReport, evaluate_model
from curate.lease import LEASE_SECONDS, Run, claim, this_process
from curate.monitor.settings import LogSettings
from curate.monitor.watch import watched
from curate.objects import place
from curate.plan.settings import InputSettings
from curate.progress import Progress, Silent
from curate.removal.leftovers import DAY_SECONDS, SweepReport, sweep
from curate.removal.proof import ProofReport, prove
from curate.removal.takedown import RemovalReport, purge, takedown
from curate.run import PhaseReport, crew, run_phase
from curate.schema import nearest
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from curate.settings import AnySettings, build, merged
from curate.shards.pack import PackReport, pack
from curate.shards.reader import ShardReader
from curate.shards.selection import COLUMNS, Selection
from curate.shards.settings import PackSettings
from curate.store import Pool as Store
from curate.train.settings import TrainSettings

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from curate.ablate.result import Ablation
    from curate.decontaminate.report import DecontaminateReport
    from curate.derive.counted import PhrasesReport
    from curate.filter.attach import AttachReport
    from curate.later import GrowthReport, RetryReport
    from curate.monitor.documents import RunStatus
    from curate.shards.croissant import CroissantReport
    from curate.stage import Phase
    from curate.train.loop import TrainReport
    from curate.work import CommitReport, WorkReport


PRETRAINED = "pretrained"
_LENGTHS = {"epochs", "samples_seen"}  # one of them says how long a training is, so a new one replaces either


class Answer:
    """What SQL answered: `arrow()`, `df()`, `rows()`; printed, it is an aligned table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def arrow(self) -> pa.Table:
        """As an Arrow table."""
        return self._table

    def df(self) -> pandas.DataFrame:
        """As a pandas DataFrame."""
        frame: pandas.DataFrame = self._table.to_pandas()
        return frame

    def rows(self) -> list[dict[str, Any]]:
        """As one dict a line."""
        lines: list[dict[str, Any]] = self._table.to_pylist()
        return lines

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return render(self._table)


class Pool:
    """An opened pool. Methods that change it hold its lease while they work, as the commands do."""

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self._store = store
        self._progress = progress or Silent()

    @property
    def path(self) -> Path:
        """The pool's folder."""
        return self._store.path

    def sql(self, select: str, policy: str | None = None) -> Answer:
        """The answer to one SELECT over `samples` and the pool's tables; `policy` says whose decisions `samples` shows."""
        return Answer(query(self._store, select, policy))

    def funnel(self, policy: str | None = None) -> Funnel:
        """What each step and each rule took out."""
        return funnel(self._store, policy)

    def verify(self, deep: bool = True) -> VerifyReport:
        """What holds and what does not; `deep` also hashes every file. Finds, does not raise: `require()` does."""
        return verify(self._store, deep)

    def digest(self, policy: str | None = None) -> dict[str, str]:
        """Two lines that are equal for pools that hold equal values: `content` and `scores`."""
        return digest(self._store, policy)

    def status(self) -> Status:
        """Parts done, rows by reason, who is writing, sizes on disk."""
        return status(self._store)

    def runs(self) -> tuple[RunStatus, ...]:
        """What the pool's runs say of themselves: those under way, those that died, and the newest that is over."""
        return shown_runs(self._store)

    def history(self, url: str) -> list[Event]:
        """What became of one URL, sample_id or url_id, in the order in which it happened."""
        return history(self._store, url)

    def add(self, path: str | Path | Sequence[str], fetch: Mapping[str, Any] | None = None, **listed: Any) -> GrowthReport:
        """Adds a further list and fetches what the pool lacks of it; `listed` are settings of the list, `fetch` changes the pool's."""
        from curate.later import grow  # loads the HTTP client, which other calls do without

        said = [str(one) for one in path] if isinstance(path, list | tuple) else str(path)
        settings = build(InputSettings, merged(listed, {"path": said}))
        asking, engine = self._settings("fetch", FetchSettings, dict(fetch or {})), self._settings("engine", EngineSettings, {})
        had = self._stored("prefilter")
        with self._writing("add", lease_seconds=engine.lease_seconds) as (run, told):
            return grow(self._store, run, settings, (had.get("where"), had.get("uid_file")), asking, engine, told)

    def retry(self, reasons: str | Sequence[str] = (), older_than: datetime.timedelta | str | None = None, **changes: Any) -> RetryReport:
        """Asks failed rows once more: those of the reasons, by default all that another try may mend; `older_than` like "7d"."""
        from curate.later import age, retry, retry_reasons  # loads the HTTP client, which other calls do without

        chosen = retry_reasons([reasons] if isinstance(reasons, str) else list(reasons))
        spared = age(older_than) if isinstance(older_than, str) else older_than
        asking, engine = self._settings("fetch", FetchSettings, changes), self._settings("engine", EngineSettings, {})
        with self._writing("retry", lease_seconds=engine.lease_seconds) as (run, told):
            return retry(self._store, run, asking, engine, chosen, spared, told)

    def attach(
        self, table: str | Path, on: str, name: str, columns: Sequence[str] = (), key_column: str | None = None,
        images: str | None = None, texts: str | None = None,
    ) -> AttachReport:  # fmt: skip
        """Scores from elsewhere as table `scores_<name>`: Parquet, matched by `on` (uid, url, url_id, sample_id or sha256).

        `images` and `texts` bring embeddings along: each an array of the .npz beside each file, or a glob of .npy files.
        """
        from curate.filter.attach import KEYS, attach

        if on not in KEYS:
            raise SettingsError(f"on={on!r}: a table is matched by {', '.join(KEYS)}{nearest(on, list(KEYS))}")
        if bool(images) != bool(texts):
            raise SettingsError("embeddings come in pairs: say images and texts, or neither")
        embeddings = (images, texts) if images and texts else None
        with self._writing("attach") as (run, told):
            return attach(self._store, run, str(table), on, checked_name(name), columns, key_column, told, embeddings)

    def score(self, model: str | None = None, weights: str | None = None, **changes: Any) -> PhaseReport:
        """Computes a table of scores; with `model` or `weights`, its CLIP scorer is that one. No request is made."""
        log = changes.pop("log", None)
        settings = build(ScoreSettings, merged(self._scorers(changes.get("name"), model, weights), changes))
        phase, engine = ScorePhase(settings), self._settings("engine", EngineSettings, {})
        phase.record(self._store)
        with self._writing("score", lease_seconds=engine.lease_seconds, log=log) as (run, told):
            return run_phase(self._store, run, phase, engine, told)

    def derive(self, name: str, of: str = "", **changes: Any) -> PhaseReport | PhrasesReport:
        """Computes table `scores_<name>`: of the embeddings of table `scores_<of>`, or with `phrases` of the pool's captions."""
        from curate.derive.counted import count_phrases
        from curate.derive.fit import fitted_phase
        from curate.derive.settings import DeriveSettings

        settings, engine = build(DeriveSettings, {**changes, "name": name, "of": of}), self._settings("engine", EngineSettings, {})
        if settings.phrases is not None:
            with self._writing("derive", lease_seconds=engine.lease_seconds) as (run, told):
                return count_phrases(self._store, run, settings.name, settings.phrases, crew(engine), told)
        with (
            self._writing("derive", lease_seconds=engine.lease_seconds) as (run, told),
            fitted_phase(self._store, settings, told) as phase,
        ):
            return run_phase(self._store, run, phase, engine, told)

    def decontaminate(
        self, against: str | Path | Sequence[str | Path], clear: str | Path | None = None, output: str | Path | None = None,
        reveal: bool = False, **changes: Any,
    ) -> DecontaminateReport:  # fmt: skip
        """Which rows show or say what items of evaluation sets do: column `contaminated`, with the evidence in `contamination`.

        `against` are folders of images, tars, or folders of tars; `clear` is a file of what a person looked at and cleared.
        """
        from curate.decontaminate.run import prepared
        from curate.decontaminate.settings import DecontaminateSettings

        settings, engine = build(DecontaminateSettings, changes), self._settings("engine", EngineSettings, {})
        said = tuple(map(str, against if isinstance(against, list | tuple) else (against,)))
        with (
            self._writing("decontaminate", lease_seconds=engine.lease_seconds) as (run, told),
            prepared(self._store, said, None if clear is None else str(clear), settings, told) as found,
        ):
            found.supersede()
            run_phase(self._store, run, found.phase, engine, told)
            return found.report(None if output is None else place(output), reveal)

    def work(self, phase: str, parts: Iterable[int] | None = None, workers: int = 0, **changes: Any) -> WorkReport:
        """Does open parts of `fetch` or `score` on this machine and leaves reports; `parts` defaults to a Slurm task's share."""
        from curate.work import work  # brings the engines

        engine = self._settings("engine", EngineSettings, {"name": "local", "workers": workers})
        return work(self._store, self._phase(phase, changes), engine, parts, self._progress)

    def commit(self) -> CommitReport:
        """Takes what workers reported into the tables."""
        from curate.work import commit

        engine = self._settings("engine", EngineSettings, {})
        with self._writing("commit", lease_seconds=engine.lease_seconds) as (run, told):
            return commit(self._store, run, engine, told)

    def _phase(self, name: str, changes: dict[str, Any]) -> Phase:
        if name == "fetch":
            from curate.later import fetch_phase  # loads the HTTP client

            return fetch_phase(self._store, self._settings("fetch", FetchSettings, changes))
        if name != "score":
            raise UsageError(f"no phase is called {name!r}; there are fetch and score")
        scoring = ScorePhase(build(ScoreSettings, merged(self._scorers(changes.get("name"), None, None), changes)))
        scoring.record(self._store)
        return scoring

    def dedupe(self, **changes: Any) -> DedupeReport:
        """Finds rows that show the same picture."""
        settings, engine = self._settings("dedupe", DedupeSettings, changes), self._settings("engine", EngineSettings, {})
        with self._writing("dedupe", output_tables(settings), engine.lease_seconds) as (run, told):
            return dedupe(self._store, run, settings, crew(engine), told)

    def filter(self, policy: str = "", where: str = "", preview: bool = False, **changes: Any) -> FilterReport:
        """Applies a policy, or a condition; what is no setting in `changes` is one of the policy's parameters."""
        known = {name: value for name, value in changes.items() if name in FilterSettings.model_fields}
        parameters = {name: value for name, value in changes.items() if name not in known}
        said = merged(known, {"policy": policy, "where": where, "preview": preview, **({"parameters": parameters} if parameters else {})})
        settings = build(FilterSettings, said)
        if preview:
            return count(self._store, settings)
        with self._writing("filter") as (run, told):
            return filter_pool(self._store, run, settings, told)

    def pack(self, subset: str | None = None, **changes: Any) -> PackReport:
        """Writes a subset as shards; default the one applied last."""
        settings = self._settings("pack", PackSettings, changes)
        with self._writing("pack") as (run, told):
            return pack(self._store, run, subset or self._current(), settings, told)

    def croissant(
        self, subset: str | None = None, output: str | Path | None = None, tables: Sequence[str | Path] = (), **card: Any
    ) -> CroissantReport:
        """Describes a packed subset (default the one applied last), or Parquet tables taken from it, in Croissant.

        `card`: name, description, license, cite_as, url, creators, version, date_published, base_url.
        """
        from curate.shards.croissant import Card, describe

        said = build(Card, {key: value for key, value in card.items() if value})
        return describe(self._store, subset or self._current(), Path(output) if output else None, said, [Path(table) for table in tables])

    def compact(self, **engine: Any) -> CompactReport:
        """Copies the tables' many small files into few large ones, for SQL; `engine` changes who does it, as `workers=8`."""
        settings = self._settings("engine", EngineSettings, engine)
        with self._writing("compact", lease_seconds=settings.lease_seconds) as (run, told):
            return compact(self._store, run, crew(settings), told)

    def dataset(self, where: str = "keep", policy: str | None = None, seed: int = 0) -> Selection:
        """The rows of `samples` that a condition selects, as training samples without packing; see `Selection.epoch`."""
        columns = ", ".join([*COLUMNS.names, "image_sha256"])
        select = f"SELECT {columns} FROM samples WHERE tar_file IS NOT NULL AND ({where}) ORDER BY part, row"
        return Selection(self.path, self.sql(select, policy).arrow(), seed=seed)

    def report(self, output: str | Path | None = None, reveal: bool = False, policy: str | None = None) -> Path:
        """Writes the page to look at, by default POOL/report/index.html; returns its path."""
        page = output or self.path / "report"
        return write_report(self._store, page if isinstance(page, Path) else place(page), policy, reveal, self._progress)

    def compare(self, a: str, b: str, fraction: float = 0.3, output: str | Path | None = None, reveal: bool = False) -> Comparison:
        """What two policies, or the highest `fraction` of two columns, keep of the same rows; `output` gets a page with pictures."""
        return compare(self._store, a, b, fraction, None if output is None else place(output), reveal)

    def takedown(
        self, where: str | None = None, listed: str | Path | None = None, because: str = "", *, only_named: bool = False,
        near_copies: bool = False, keep_text: bool = False, proof: bool = True, dry_run: bool = False,
    ) -> RemovalReport:  # fmt: skip
        """Withdraws rows for good and bars them from coming back; see `curate.removal.takedown.takedown`."""
        self._store.require_disk("curate takedown")
        path = None if listed is None else Path(listed)
        return takedown(
            self._store, where, path, because, only_named=only_named, near_copies=near_copies, keep_text=keep_text, proof=proof,
            dry_run=dry_run, progress=self._progress,
        )  # fmt: skip

    def purge(self, where: str | None = None, *, dry_run: bool = False) -> RemovalReport:
        """Deletes the stored bytes of dropped rows; what was measured of them stays."""
        self._store.require_disk("curate purge")
        return purge(self._store, where, dry_run=dry_run, progress=self._progress)

    def sweep(self, older_than_seconds: float = DAY_SECONDS, *, dry_run: bool = False) -> SweepReport:
        """Deletes files that no version of a table names and that no run or report needs."""
        self._store.require_disk("curate sweep")
        return sweep(self._store, older_than_seconds, dry_run, self._progress)

    def prove(self) -> ProofReport:
        """Searches every file for what was ever taken down."""
        self._store.require_disk("curate takedown --prove")
        return prove(self._store, self._progress)

    def train(self, name: str | None = None, subset: str | None = None, where: str | None = None, **changes: Any) -> TrainReport:
        """Trains a model into POOL/models/<name>, on packed shards or on the rows that `where` selects; resumes."""
        self._store.require_disk("curate train")
        log = changes.pop("log", None)
        stored = {key: value for key, value in self._stored("train").items() if not (key in _LENGTHS and _LENGTHS & changes.keys())}
        settings = build(TrainSettings, merged(stored, changes))
        source = self.dataset(where, seed=settings.seed) if where else ShardReader(self._shards(subset), seed=settings.seed)
        from curate.train.loop import train  # loads torch, which a wrong call need not wait for

        out, words = self.path / "models" / (name or PRETRAINED), f"train {name or PRETRAINED}"
        if os.environ.get("RANK", "0") != "0":  # of torchrun's processes one tells how it goes
            return train(source, settings, out, self._progress)
        with watched(self._store, this_process(), words, self._log(log), self._progress, settings.model_dump(mode="json")) as told:
            return train(source, settings, out, told)

    def evaluate(self, model: str | Path | None = None, data: str | Path | None = None, **changes: Any) -> EvaluateReport:
        """Measures a model (name of a run of this pool, or a folder) on WebDataset tars of held-out samples."""
        self._store.require_disk("curate eval")
        folder = self._model(model)
        settings = self._settings("evaluate", EvaluateSettings, {**changes, **({"data": str(data)} if data else {})})
        with self._writing("eval") as (run, told):
            return evaluate_model(self._store, run, folder, settings, told)

    def ablate(self, conf: str | Path, *overrides: str) -> Ablation:
        """Trains on what policies keep, beside random rows, over seeds, and compares; `conf` is a name in conf/ablate or a YAML file."""
        from curate.ablate.settings import load

        self._store.require_disk("curate ablate")
        settings = load(conf, overrides, self._stored("evaluate"))
        from curate.ablate.ablation import ablate  # loads torch, which a wrong call need not wait for

        with self._writing("ablate") as (_, told):
            return ablate(self._store, settings, Path(conf).stem, told)

    @contextmanager
    def _writing(
        self, what: str, tables: Mapping[str, pa.Schema] | None = None, lease_seconds: float = LEASE_SECONDS, log: object = None
    ) -> Iterator[tuple[Run, Progress]]:
        """The lease of some tables, and a progress that others hear of as well."""
        with (
            claim(self._store, tables or {}, lease_seconds) as run,
            watched(self._store, run.owner, what, self._log(log), self._progress) as told,
        ):
            yield run, told

    def _log(self, said: object) -> LogSettings:
        """Where figures go: as in the pool's last run, or as said for this call."""
        stored = self._stored("log")
        return build(
            LogSettings, merged(stored, {"to": said} if isinstance(said, str) else dict(said) if isinstance(said, Mapping) else {})
        )

    def _scorers(self, name: object, model: str | None, weights: str | None) -> dict[str, Any]:
        """Score settings of the last run; another model was not fitted on this pool, so it spares no row of it."""
        stored, fit = self._stored("score"), self._stored("fit")
        if model or weights:
            said = {"model": model or Path(str(weights)).name, "weights": weights}
            stored["clip"] = {key: value for key, value in said.items() if value}
            if name not in (None, stored.get("name", "base")):
                stored |= {"image": None, "caption": None}  # another table already holds what they compute
        elif fit.get("enabled") and stored.get("clip"):
            stored["clip"] |= {"model": fit["name"], "weights": f"local-dir:{self.path / 'models' / fit['name']}"}
        return stored

    def _model(self, name: str | Path | None) -> Path:
        """The folder of a run of this pool, or a folder anywhere."""
        named = self.path / "models" / str(name or PRETRAINED)
        folder = named if named.is_dir() else Path(name or named)
        if not folder.is_dir():
            known = sorted(found.name for found in (self.path / "models").glob("*") if found.is_dir())
            there = f"there are {', '.join(known)}" if known else f"train one with  curate train {self.path}"
            raise UsageError(f"{name or PRETRAINED} is neither a model of this pool nor a folder; {there}")
        return folder

    def _shards(self, subset: str | None) -> Path:
        folder = self.path / "shards" / (subset or self._current())
        if not folder.is_dir():
            raise UsageError(f"{folder} does not exist: run  curate pack {self.path} {folder.name}  first, or select rows with --where")
        return folder

    def _current(self) -> str:
        name = current_policy(self._store)
        if name == NO_POLICY:
            raise UsageError("no policy was applied to this pool yet: run  curate filter POOL POLICY  first")
        return name

    def _stored(self, section: str) -> dict[str, Any]:
        """A section of the settings of the pool's last run; empty when there is none."""
        last = (self._store.read_document("settings") or {}).get("settings")
        found = last.get(section) if isinstance(last, dict) else None
        return dict(found) if isinstance(found, dict) else {}

    def _settings(self, section: str, model: type[AnySettings], changes: dict[str, Any]) -> AnySettings:
        """A section of the settings of the pool's last run, with changes."""
        return build(model, merged(self._stored(section), changes))
