"""The runner above every engine: what is stale, what is refused, how often it commits, what a name means."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from curate.engines.base import PACKAGES, EngineSettings
from curate.errors import IdentityError, MissingExtra, SettingsError, UsageError
from curate.run import make_engine, stale_parts
from curate.settings import build
from curate.store import Pool
from tests.engines.phases import Groups
from tests.engines.pools import parts_of, plan, work

ENGINE = EngineSettings(workers=2, wave_parts=2)


def test_a_part_is_stale_when_what_it_was_computed_from_changed(pool: Pool) -> None:
    work(pool, Groups(), ENGINE)
    plan(pool, {2: ["w", "x", "y", "z"]}, basis="other list")
    tasks, done = stale_parts(pool, Groups())
    assert [task.part for task in tasks] == [2] and done == 4
    assert tasks[0].previous is not None and Path(tasks[0].previous).exists()
    work(pool, Groups(), ENGINE)
    assert pool.snapshot("groups_alone").read(["row"]).num_rows == 16


def test_other_settings_under_the_same_name_are_refused(pool: Pool) -> None:
    work(pool, Groups(), ENGINE)
    with pytest.raises(IdentityError, match="groups_alone.*other alone settings"):
        work(pool, Groups(settings="b"), ENGINE)


def test_a_phase_without_its_input_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'rows'.*run the phase before it first"):
        work(Pool.create(tmp_path / "empty"), Groups(), ENGINE)


def test_waves_keep_the_log_short(pool: Pool) -> None:
    work(pool, Groups(), EngineSettings(workers=1, wave_parts=2))
    assert pool.snapshot("groups_alone").version == 4  # made, claimed, then 5 parts in waves of 2, 2, 1
    assert parts_of(pool) == [0, 1, 2, 3, 4]


def test_an_engine_of_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"no engine is called 'locl'; there are .*; did you mean 'local'\?"):
        build(EngineSettings, {"name": "locl"})


@pytest.mark.parametrize("name", [name for name, package in PACKAGES.items() if package])
def test_an_engine_whose_package_is_missing_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PACKAGES[name]
    for module in [module for module in sys.modules if module.startswith(f"curate.engines.{name}")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # as good as not installed
    with pytest.raises(MissingExtra, match=rf"{package} is not installed: run  pip install 'curate-vlm\[{name}\]'"):
        make_engine(EngineSettings(name=name))
