"""The table of planted trouble: consistent with the closed list of reasons, and served as it says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from curate.demo.behaviours import BEHAVIOURS
from curate.demo.corpus import Corpus, write_list
from curate.demo.trouble import BODIES, BROKEN_LINES, HOPS, OK, PLANTED, Trouble, break_line, plant
from curate.errors import REASONS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return plant(tmp_path_factory.mktemp("trouble") / "corpus")


@pytest.mark.parametrize("trouble", PLANTED, ids=lambda trouble: trouble.kind)
def test_expectations_are_in_the_closed_list(trouble: Trouble) -> None:
    assert trouble.expected_reasons
    assert all(reason == OK or reason in REASONS for reason in trouble.expected_reasons)
    assert trouble.behaviour in BEHAVIOURS and trouble.body in BODIES


def test_kinds_are_planted_once_and_paths_are_shared_only_where_said() -> None:
    assert len({trouble.kind for trouble in PLANTED}) == len(PLANTED)
    own = [trouble.address for trouble in PLANTED if trouble.same_url_as is None]
    assert len(set(own)) == len(own)
    by_kind = {trouble.kind: trouble for trouble in PLANTED}
    shared = [trouble for trouble in PLANTED if trouble.same_url_as]
    assert shared and all(trouble.address == by_kind[trouble.same_url_as or ""].address for trouble in shared)


def test_repeated_row_repeats_url_and_caption() -> None:
    by_kind = {trouble.kind: trouble for trouble in PLANTED}
    repeated, second, original = by_kind["repeated_row"], by_kind["second_caption"], by_kind["original"]
    assert (repeated.address, repeated.caption) == (original.address, original.caption)
    assert second.address == original.address and second.caption != original.caption


def test_every_served_path_has_an_answer_and_hops_lead_somewhere(corpus: Corpus) -> None:
    answers = corpus.answers()
    assert {trouble.address for trouble in PLANTED if trouble.served} <= set(answers)
    targets = [dict(answer.headers)["X-Location"] for answer in answers.values() if answer.behaviour == "redirect"]
    assert all(target in answers for target in targets if target.startswith("/"))
    assert set(HOPS) <= set(answers)


def test_bodies_are_what_they_are_called(corpus: Corpus) -> None:
    assert Image.open(io.BytesIO(BODIES["picture"]())).size == (320, 256)
    assert BODIES["picture_d"]() != BODIES["picture_d_again"]()
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(BODIES["half_picture"]())).load()
    with pytest.raises(OSError):
        Image.open(io.BytesIO(BODIES["damaged_png"]())).load()
    assert corpus.read("/trouble/exact_copy.jpg")[1] == corpus.read("/trouble/original.jpg")[1]


@pytest.mark.parametrize("name", ["bomb_png", "bomb_jpeg", "bomb_gif"])
def test_bombs_are_small_files_with_huge_headers(name: str) -> None:
    data = BODIES[name]()
    assert len(data) < 100_000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_truth_tells_what_to_expect(corpus: Corpus) -> None:
    truth = {line["kind"]: line for line in corpus.truth().to_pylist()}
    assert truth["redirect_once"]["expected_reason"] is None and json.loads(truth["redirect_once"]["expected_reasons"]) == [OK]
    assert truth["file_url"]["expected_requests"] == 0 and truth["file_url"]["expected_reason"] == "bad_scheme"


@pytest.mark.parametrize("form", sorted(BROKEN_LINES))
def test_broken_line_cannot_be_read(corpus: Corpus, tmp_path: Path, form: str) -> None:
    written = write_list([corpus], tmp_path, lambda address: address, form)
    before = written.read_text()
    break_line(written)
    added = written.read_text().removeprefix(before)
    assert added.endswith("\n") and added.count("\n") == 1
    if form == "jsonl":
        assert len([json.loads(line) for line in before.splitlines()]) == len(PLANTED)
        with pytest.raises(json.JSONDecodeError):
            json.loads(added)
    else:
        assert added.count('"') == 1
