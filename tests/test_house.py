"""The repository's own rules, held by measuring: what lies where, how long it is, who imports whom."""

from __future__ import annotations

import ast
import fnmatch
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from curate.errors import REASONS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "curate"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
ALL_FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]

TOP_LEVEL = {
    ".ci", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    "conf", "curate", "pipelines", "pyproject.toml", "requirements.lock", "schemas", "tests",
}  # fmt: skip

# One foreign package, one place. A trailing slash means the whole package.
PLACES = {
    "ray": ("engines/ray.py", "engines/ray_cluster.py"),
    "pyspark": ("engines/spark.py", "engines/spark_cluster.py", "engines/spark_worker.py"),
    "py4j": ("engines/spark_cluster.py",),
    "duckdb": ("schema.py", "plan/", "catalog/", "filter/", "decontaminate/report.py", "removal/targets.py"),
    "deltalake": ("store.py", "lease.py"),  # the reading and the writing half of the store
    "pycurl": ("fetch/transport.py",),
    "tensorboard": ("monitor/boards.py",),
    "wandb": ("monitor/boards.py",),
    "botocore": ("bucket.py",),
    "img2dataset": ("fetch/peer.py",),
    "protego": ("fetch/robots.py",),
    "aiodns": ("fetch/resolver.py",),
    "pycares": ("fetch/resolver.py",),
    "onnxruntime": ("score/onnx.py",),
    "torch": ("score/", "train/", "evaluate/", "derive/heads.py"),
}
IMPORT_NAMES = {
    "opencv_python_headless": "cv2",
    "pillow": "PIL",
    "pyahocorasick": "ahocorasick",
    "open_clip_torch": "open_clip",
    "hydra_core": "hydra",
}
# Parts of another distribution that the code names directly.
TRANSITIVE = {"yaml": "omegaconf", "markupsafe": "jinja2", "pycares": "aiodns", "py4j": "pyspark"}


def functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_the_top_level_holds_what_the_design_names_and_nothing_else() -> None:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    found = {path.name for path in ROOT.iterdir() if path.name != ".git"}
    left = {name for name in found if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)}
    assert left <= TOP_LEVEL
    assert TOP_LEVEL - {".github"} <= left


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_under_500_lines(path: Path) -> None:
    assert path.read_text().count("\n") <= 500


def test_functions_are_short() -> None:
    sizes = sorted(lines(node) for _, node in functions())
    long = [f"{place(path)}:{node.lineno} {node.name} {lines(node)}" for path, node in functions() if lines(node) > 60]
    assert not long
    assert statistics.median(sizes) <= 10
    assert sizes[int(len(sizes) * 0.9)] <= 35


def test_modules_have_telling_names() -> None:
    vague = {"utils", "util", "helpers", "common", "misc", "manager", "handler", "core", "base_utils"}
    assert not [place(path) for path in SOURCES if path.stem in vague]
    classes = [node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if re.search(r"(Manager|Handler|Core|Helper)$", name)]


def test_every_module_and_public_name_says_what_it_is() -> None:
    silent = [place(path) for path, tree in TREES.items() if not ast.get_docstring(tree)]
    for path, tree in TREES.items():
        owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))]
        for owner in owners:
            for node in owner.body:
                is_named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
                if is_named and not ast.get_docstring(node):
                    silent.append(f"{place(path)}:{node.lineno} {node.name}")
    assert not silent


def test_every_module_postpones_annotations() -> None:
    with_code = {path for path, tree in TREES.items() for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not [place(path) for path in sorted(with_code) if "from __future__ import annotations" not in path.read_text()]


@pytest.mark.parametrize("package", PLACES)
def test_a_foreign_package_stays_in_its_place(package: str) -> None:
    users = [place(path) for path, tree in TREES.items() if package in set(imports(tree))]
    strangers = [user for user in users if not any(user == ok or (ok.endswith("/") and user.startswith(ok)) for ok in PLACES[package])]
    assert not strangers


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    declared = {re.split(r"[\[<>=]", line)[0].lower().replace("-", "_") for line in requirements}
    known = {IMPORT_NAMES.get(name, name) for name in declared} | {name for name, owner in TRANSITIVE.items() if owner in declared}
    used = {name for tree in TREES.values() for name in imports(tree)} - set(sys.stdlib_module_names) - {"curate"}
    assert used <= known


def test_imports_go_one_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_importing_curate_is_light() -> None:
    heavy = "{'torch', 'ray', 'pyspark', 'open_clip', 'img2dataset', 'webdataset'}"
    code = f"import sys, curate, curate.api; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_help_loads_next_to_nothing() -> None:
    code = "import sys; from curate.cli.app import execute; assert execute(['--help']) == 0; print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr))
    assert not loaded & {"torch", "pyarrow", "duckdb", "deltalake", "numpy", "hydra", "pydantic", "rich", "pycurl", "scipy"}


def reasons_in(tree: ast.Module) -> Iterator[str]:
    """Texts that the code calls a reason: `reason="…"`, `reason = "…"`, `reason == "…"`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "reason":
            values: list[ast.expr] = [node.value]
        elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "reason" for target in node.targets):
            values = [node.value]
        elif isinstance(node, ast.Compare) and getattr(node.left, "attr", getattr(node.left, "id", "")) == "reason":
            values = node.comparators
        else:
            continue
        yield from (value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str))


def test_the_code_gives_no_reason_that_is_not_in_the_list() -> None:
    given = {reason for tree in TREES.values() for reason in reasons_in(tree)}
    assert given - {"ok"} <= set(REASONS)


def test_every_reason_has_a_name_and_one_line() -> None:
    for name, reason in REASONS.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]+", name)
        assert reason.text and "\n" not in reason.text
        assert reason.outcome in ("dropped", "failed")
        assert not (reason.retryable and reason.outcome == "dropped")


def test_the_lock_pins_everything_and_names_no_address() -> None:
    pins = (ROOT / "requirements.lock").read_text().split("\n")[:-1]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", pin) for pin in pins)
