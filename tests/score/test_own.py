"""A scorer of the user's own: its column stands in the table as any other, on other workers too, and what is wrong is one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curate.errors import SettingsError
from curate.score.own import OwnScorer
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase

OWN = '''
import contextlib
import pyarrow as pa

from curate.score.scorer import ROW_COLUMNS, Opened, Scored
from curate.settings import Settings
from curate.stage import identity_of


class Brightness(Settings):
    """Mean of all pixels, and how many of some letter the caption has."""

    letter: str = "a"
    version: int = 1

    @property
    def needs(self):
        return pa.schema([ROW_COLUMNS.field("caption")])

    @property
    def adds(self):
        return pa.schema([("brightness", pa.float32()), ("letters", pa.int32())])

    def identity(self):
        return identity_of("Brightness", self.version, self.model_dump())

    @contextlib.contextmanager
    def open(self):
        yield Opened(lambda pixels: float(pixels.mean()), self.score)

    def score(self, batch):
        means = [batch.observed[image] for image in batch.image.tolist()]
        counts = [(caption or "").count(self.letter) for caption in batch.rows["caption"].to_pylist()]
        return Scored(pa.RecordBatch.from_arrays([pa.array(means, pa.float32()), pa.array(counts, pa.int32())], schema=self.adds))


class Short(Brightness):
    """Returns less than it said."""

    def score(self, batch):
        return Scored(super().score(batch).columns.slice(1))


class NoScorer:
    pass
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the folder where one is; each test has its own."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def phase(use: str, **settings: object) -> ScorePhase:
    return ScorePhase(ScoreSettings.model_validate({"name": "mine", "own": {"mine": {"use": use, "settings": settings}}}))


def test_its_columns_stand_in_the_table(tmp_path: Path, module: str, curate: Callable) -> None:
    rows = [Row("banana", jpeg(np.full((40, 40, 3), 200, np.uint8))), Row("gone", None), Row(None, jpeg(noise(1)))]
    pool = make_pool(tmp_path / "pool", [rows, [Row("a cat and a hat", jpeg(noise(2)))]])
    own = [f"own.mine.use={module}:Brightness", "own.mine.settings.letter=n"]
    said = curate("score", pool.path, "--name", "mine", *own, "image=null", "caption=null", "clip=null")
    assert said.code == 0, said.err
    found = pool.snapshot("scores_mine").read(["part", "row", "brightness", "letters"]).to_pylist()
    assert [line["letters"] for line in found] == [2, None, 0, 1]
    assert found[0]["brightness"] == pytest.approx(200, abs=1) and found[1]["brightness"] is None


def test_its_settings_and_version_are_part_of_the_identity(module: str) -> None:
    use = f"{module}:Brightness"
    identities = {phase(use, **said).identity() for said in ({}, {"letter": "b"}, {"version": 2})}
    assert len(identities) == 3 and phase(use).identity() in identities


@pytest.mark.parametrize(
    ("use", "settings", "words"),
    [
        ("nowhere_at_all:Brightness", {}, "No module named 'nowhere_at_all'"),
        ("MODULE:Brightnes", {}, "no class 'Brightnes'.*Brightness"),
        ("MODULE:NoScorer", {}, "is no scorer: it has no version"),
        ("MODULE:NoScorer", {"x": 1}, "NoScorer"),
        ("MODULE:Brightness", {"lettr": "n"}, "settings.lettr"),
    ],
)
def test_what_is_no_scorer_is_one_line(module: str, use: str, settings: dict[str, object], words: str) -> None:
    scorer = OwnScorer(use=use.replace("MODULE", module), settings=settings)
    with pytest.raises(SettingsError, match=words) as said:
        scorer.identity()
    assert "\n" not in str(said.value)


def test_less_than_was_said_stops_the_part(tmp_path: Path, module: str) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("a", jpeg(noise(1))), Row("b", jpeg(noise(2)))]])
    short = phase(f"{module}:Short")
    with pytest.raises(SettingsError, match="returned 1 lines of brightness float, letters int32, not 2"):
        run_phase(pool, short, short.schema)


def test_a_column_cannot_be_there_twice(module: str) -> None:
    own = {"a": {"use": f"{module}:Brightness"}, "b": {"use": f"{module}:Brightness", "settings": {"letter": "b"}}}
    with pytest.raises(ValueError, match="would be there twice"):
        ScoreSettings.model_validate({"own": own})
