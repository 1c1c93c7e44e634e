"""The engines that the conformance suite is run on, and a small planned pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from curate.engines.base import EngineSettings
from curate.settings import compose
from curate.store import Pool
from tests.e2e.kills import Undisturbed, undisturbed
from tests.e2e.runs import Site, site
from tests.engines import spark_nodes as spark
from tests.engines.fake_slurm import put_on_path
from tests.engines.pools import plan
from tests.engines.ray_nodes import Nodes, nodes


@dataclass(frozen=True)
class Kind:
    """An engine under test: its file in conf/engine, who starts its cluster, and what it cannot do for a reason upstream."""

    name: str
    cluster: str = ""  # a session fixture that gives the settings with which the engine reaches its cluster
    gaps: Mapping[str, str] = field(default_factory=dict)  # test function -> the upstream reason
    long: bool = False  # too slow for every day; test_slurm.py holds its short form

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """The engine's own mark, and `long`."""
        return [getattr(pytest.mark, self.name), *([pytest.mark.long] if self.long else [])] if self.name != "local" else []


KINDS = [
    Kind("local"),
    Kind("ray", cluster="ray_cluster"),
    Kind("slurm", cluster="one_machine_slurm", long=True),
    Kind("spark", cluster="spark_cluster"),
]


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[Nodes]:
    """A Ray cluster of three nodes, with the dashboard to which jobs are submitted."""
    with nodes(3, dashboard=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray_cluster(ray_nodes: Nodes) -> dict[str, object]:
    """How it is reached."""
    return {"address": ray_nodes.address}


@pytest.fixture(scope="session")
def spark_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[spark.Nodes]:
    """A Spark master and two workers."""
    if lacking := spark.lacks_java():
        pytest.skip(lacking)
    with spark.nodes(2, tmp_path_factory.mktemp("spark")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spark_cluster(spark_nodes: spark.Nodes) -> dict[str, object]:
    """How it is reached."""
    return {"master": spark_nodes.address}


@dataclass(frozen=True)
class Made:
    """Settings of the engine under test, as a test and as the command line say them."""

    name: str
    cluster: Mapping[str, object]

    def __call__(self, **changes: object) -> EngineSettings:
        """Two workers, parts committed as they come; and what the test wants otherwise."""
        said = {"workers": 2, "wave_parts": 2, **self.cluster, **changes}
        return EngineSettings(**{**compose("ingest", [f"engine={self.name}"])["engine"], **said})

    def words(self, **changes: object) -> list[str]:
        """The same for `curate run`."""
        said = {"workers": 2, "wave_parts": 1, **self.cluster, **changes}
        return ["--engine", self.name, *(f"engine.{key}={value}" for key, value in said.items())]


@pytest.fixture(params=[pytest.param(kind, id=kind.name, marks=kind.marks) for kind in KINDS])
def engine(request: pytest.FixtureRequest) -> Made:
    kind: Kind = request.param
    reason = kind.gaps.get(request.function.__name__)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return Made(kind.name, request.getfixturevalue(kind.cluster) if kind.cluster else {})


@pytest.fixture(scope="session")
def one_machine_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """Our `sbatch`, which runs array tasks as processes of this machine, on PATH."""
    with pytest.MonkeyPatch.context() as patch:
        put_on_path(tmp_path_factory.mktemp("slurm"), patch)
        yield {"machines": 1}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Five parts of three rows."""
    made = Pool.create(tmp_path / "pool")
    plan(made, {part: [f"{part}/{row}" for row in range(3)] for part in range(5)})
    return made


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A corpus for whole runs."""
    with site(tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="session")
def calm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `calm` leaves its pool."""
    return tmp_path_factory.mktemp("calm")


@pytest.fixture(scope="session")
def calm(served: Site, calm_folder: Path) -> Undisturbed:
    """What two local workers make of the corpus."""
    return undisturbed(served, calm_folder)
