"""`curate doctor` measures the resolver, and says in one line when there is none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curate.cli.doctor import _opencv
from curate.fetch.probe import NAMES, probe
from tests.web.dns import NO_SUCH_NAME, NameServer, Reply, serve_names


def zone(name: str, kind: str, before: int) -> Reply:
    return Reply(("93.184.215.14",), delay_seconds=0.0 if before else 0.05)


def dns_line(curate: Callable, names: NameServer) -> dict[str, object]:
    lines = json.loads(curate("doctor", "--resolver", names.address, "--format", "json").out)
    (found,) = [line for line in lines if line["name"] == "dns"]
    return dict(found)


def test_it_tells_first_answers_from_cached_ones_and_counts_them() -> None:
    with serve_names(zone) as names:
        seen = probe((names.address,), burst_seconds=0.3)
        assert all(len(names.questions(name)) >= 2 for name in NAMES)
    assert (seen.servers, seen.asked, seen.found, seen.silent) == ((names.address,), len(NAMES), len(NAMES), 0)
    assert seen.first_seconds >= 0.05 and seen.again_seconds > 0 and seen.per_second > 0


def test_a_resolver_that_can_do_little_is_told_to_get_a_cache(curate: Callable) -> None:
    with serve_names(zone, per_second=100) as names:
        line = dns_line(curate, names)
    assert line["ok"] is False and "unbound" in str(line["advice"]) and "fetch.resolvers" in str(line["advice"])
    assert names.address in str(line["found"]) and "answers a second" in str(line["found"])


@pytest.mark.parametrize("state", ["dead", "absent", "walled"])
def test_no_internet_is_one_line_and_soon_said(curate: Callable, state: str) -> None:
    with serve_names(lambda name, kind, before: Reply(code=NO_SUCH_NAME)) as names:
        names.dead = state == "dead"
        if state != "absent":
            begun = time.monotonic()
            line = dns_line(curate, names)
    if state == "absent":
        begun = time.monotonic()
        line = dns_line(curate, names)
    assert line["ok"] is False and "no internet from here" in str(line["found"])
    assert time.monotonic() - begun < 30  # it does not wait for what never comes


def test_a_resolver_that_is_no_address_is_refused(curate: Callable) -> None:
    said = curate("doctor", "--resolver", "dns.example")
    assert said.code == 2 and "name server" in said.err and said.err.count("\n") == 1


def test_two_distributions_of_opencv_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _opencv().ok and "opencv-python-headless" in _opencv().found
    other = tmp_path / "opencv_python-4.11.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.11.0\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    found = _opencv()
    assert not found.ok and "opencv-python 4.11.0" in found.found and "pip uninstall -y opencv-python &&" in found.advice
