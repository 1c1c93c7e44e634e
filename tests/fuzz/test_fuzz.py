"""No file and no text from the web ends anything but its own row: nothing uncaught, nothing late, nothing that kills a process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fuzz import images, strings
from tests.fuzz.runner import Finding, hunt

IMAGE_SECONDS, TEXT_SECONDS = 10.0, 1.0


def hunt_all(name: str, first: int, last: int, seconds: float) -> list[Finding]:
    """Findings over all cores."""
    share = -(-(last - first) // (os.cpu_count() or 1))
    ranges = [(start, min(last, start + share)) for start in range(first, last, share)]
    with ThreadPoolExecutor(len(ranges)) as threads:
        found = threads.map(lambda ends: hunt(name, *ends, seconds), ranges)
        return [finding for findings in found for finding in findings]


def test_some_damaged_images() -> None:
    assert hunt_all("tests.fuzz.images:case", 0, 5_000, IMAGE_SECONDS) == []


def test_some_odd_texts() -> None:
    assert hunt_all("tests.fuzz.strings:case", 0, 10_000, TEXT_SECONDS) == []


def test_files_and_texts_that_once_were_findings() -> None:
    assert hunt("tests.fuzz.images:crasher", 0, len(images.crashers()), IMAGE_SECONDS * len(images.SETTINGS) * len(images.WISHES)) == []
    assert hunt("tests.fuzz.strings:crasher", 0, len(strings.crashers()), TEXT_SECONDS) == []


def test_the_hunt_finds_what_is_wrong() -> None:
    found = {finding.number: finding.what.split()[0] for finding in hunt("tests.fuzz.test_fuzz:planted", 0, 5, 0.2)}
    assert found == {1: "ValueError:", 2: "died", 3: "took"}


def planted(number: int) -> None:
    """Five cases: well, raises, kills its process, takes long, well."""
    if number == 1:
        raise ValueError("planted")
    if number == 2:
        os.abort()
    total = 0
    for step in range(30_000_000 if number == 3 else 10):
        total += step


def test_the_mutations_reach_every_ending() -> None:
    """Damage that only ever ended at the first byte would prove nothing."""
    images.prepare_process()
    endings = {images.outcome(images.mutated(number), images.EMPTY, images.SETTINGS[1])[0].get("reason", "ok") for number in range(600)}
    assert endings >= {"ok", "decode_failed", "decode_truncated", "not_an_image", "too_many_pixels", "format_not_allowed"}


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_a_hundred_thousand_damaged_images() -> None:
    assert hunt_all("tests.fuzz.images:case", 0, 100_000, IMAGE_SECONDS) == []


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_a_million_odd_texts() -> None:
    assert hunt_all("tests.fuzz.strings:case", 0, 1_000_000, TEXT_SECONDS) == []
