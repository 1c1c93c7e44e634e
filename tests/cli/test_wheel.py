"""The wheel, built and installed into an empty environment, carries its files and works."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

CHECK = """
import curate, curate.schema, curate.settings, sys
from pathlib import Path
assert "site-packages" in curate.__file__, curate.__file__
assert curate.schema.table("rows").field("part").metadata[b"class"] == b"content"
assert "ingest" in curate.settings.names("recipe")
assert (curate.schema.resources("conf") / "policy" / "laion400m.sql").is_file()
assert (curate.schema.resources("pipelines") / "ingest.py").is_file()
from curate.recipe import load_recipe, recipe_settings
print(recipe_settings(load_recipe("ingest"), ["input.path=list.csv"]).fetch.attempts)
assert not {"torch", "ray", "pyspark"} & set(sys.modules)
"""


def uv(*arguments: object) -> None:
    call = [sys.executable, "-m", "uv", "--quiet", *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, ROOT)
    (built,) = folder.glob("curate_vlm-*.whl")
    return built


def test_the_wheel_holds_the_package_with_its_files_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"curate"}
    for folder in ("schemas", "conf", "pipelines"):
        shipped = {
            path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in str(path)
        }
        assert {f"curate/{path}" for path in shipped} <= set(names)
    assert "curate/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or "tests" in name.split("/")]


def test_the_wheel_works_in_a_clean_environment_without_extras(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "clean"
    uv("venv", "--python", sys.executable, environment)
    uv("pip", "install", "--python", environment, "--constraint", ROOT / "requirements.lock", wheel)
    program = environment / "bin"
    helped = subprocess.run([program / "curate", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert helped.returncode == 0 and "curate run ingest" in helped.stdout, helped.stderr
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    checked = subprocess.run([program / "python", "-c", CHECK], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    missing = subprocess.run([program / "python", "-c", "import torch"], cwd=tmp_path, capture_output=True)
    assert missing.returncode != 0
