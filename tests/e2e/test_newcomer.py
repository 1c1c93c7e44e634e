"""Seven things that someone new wants to do, each with at most three commands, taken from the README as they stand there."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import curate
from curate.demo.scenes import build
from curate.demo.server import Server
from curate.demo.settings import ScenesSettings, ServerSettings
from tests.e2e.newcomer_pool import LOCAL, ROWS, Web, laion_parquet, odd_csv
from tests.e2e.newcomer_readme import Said, commands, give, python

OWN_LIST = "input.url_column=bild"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    corpus = build(folder / "corpus", ScenesSettings(rows=ROWS, seed=11))
    with Server(corpus, folder / "server.log", ServerSettings(hosts=200)) as server:
        yield Web(corpus, server)


@dataclass(frozen=True)
class Ingested:
    """A pool made from the list with odd columns, and what the commands said."""

    path: Path
    run: Said
    funnel: Said
    report: Said
    requests: int  # of the server so far


@pytest.fixture(scope="module")
def ingested(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    folder = tmp_path_factory.mktemp("newcomer")
    (run,) = commands(OWN_LIST, 1, {"POOL": folder / "my pool", "list.csv": "'list of mine.csv'"})
    funnel, report = commands("curate funnel POOL", 2, {"POOL": folder / "my pool"})
    odd_csv(web, folder / "list of mine.csv")
    quoted = [line.replace(str(folder / "my pool"), f"'{folder / 'my pool'}'") for line in (run, funnel, report)]
    said = [give(quoted[0], LOCAL, folder=folder, apart=True), give(quoted[1]), give(quoted[2], apart=True)]
    return Ingested(folder / "my pool", *said, requests=len(web.requested()))


@pytest.fixture(scope="module")
def scored(ingested: Ingested, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool with CLIP scores; a folder named `openai` stands for the weights that are downloaded elsewhere."""
    from tests.score.pools import tiny_clip

    weights = tiny_clip(tmp_path_factory.mktemp("weights") / "openai", seed=1)
    (line,) = commands("curate score POOL --name clip", 1, {"POOL": f"'{ingested.path}'", "openai": weights})
    give(line, apart=True)
    return ingested.path


def answer(pool: Path, select: str) -> list[dict[str, object]]:
    return curate.open(str(pool)).sql(select).rows()


# -- 1. an own CSV with odd columns


def test_an_own_list_with_odd_columns(ingested: Ingested, web: Web) -> None:
    assert "bild → url" in ingested.run.out and "titel → caption" in ingested.run.out
    assert f"{ROWS:,} rows = kept" in ingested.funnel.out and "http_not_found" in ingested.funnel.out
    assert "image_small" in ingested.run.out, "the summary shows the funnel"
    page = Path(ingested.report.out.strip().removeprefix("open "))
    assert page.is_file() and page.is_relative_to(ingested.path)
    numbers = answer(ingested.path, "SELECT nr, caption FROM samples ORDER BY nr")
    assert [line["nr"] for line in numbers] == list(range(ROWS))
    assert [line["caption"] for line in numbers] == [line["caption"] for line in web.lines()]


def test_its_summary_is_made_for_people(ingested: Ingested) -> None:
    lines = ingested.run.out.splitlines()
    steps = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert steps[:2] == ["plan", "fetch"] and {"dedupe", "filter", "pack", "report", "input"} <= set(steps)
    assert not re.search(r"\x1b|Report\(|Counter\(|\{'", ingested.run.out), "no colours in a file, no Python in a summary"
    assert re.search(r"^fetch: 1 of 1 parts, \d+ s  ok \d+  not ok \d+", ingested.run.err, re.MULTILINE)


def test_every_url_was_asked_for_once(ingested: Ingested, web: Web) -> None:
    asked = Counter(web.requested()[: ingested.requests])
    assert set(asked) == {line["address"] for line in web.lines()}
    assert set(asked.values()) == {1}


# -- 2. prefilter


def test_a_prefilter_saves_requests_and_can_be_loosened(web: Web, tmp_path: Path) -> None:
    rows = 40
    laion_parquet(web, tmp_path / "laion.parquet", rows)
    (line,) = commands("prefilter.where=", 1, {"POOL": "pool"})
    quiet = ("report.enabled=false", "engine.workers=1", "fetch.host_interval_seconds=0.02")
    before = len(web.requested())
    give(line, LOCAL, *quiet, folder=tmp_path)
    strict = web.requested()[before:]
    addresses = [one["address"] for one in web.lines()[:rows]]
    assert sorted(strict) == sorted(addresses[number] for number in range(rows) if number % 2 and number / rows > 0.3)
    give(line.replace("> 0.3", "> 0.1"), LOCAL, *quiet, folder=tmp_path)
    loosened = web.requested()[before + len(strict) :]
    assert sorted(loosened) == sorted(addresses[number] for number in range(rows) if number % 2 and 0.1 < number / rows <= 0.3)
    (refused,) = answer(tmp_path / "pool", "SELECT count(*) AS n FROM samples WHERE reason = 'prefilter'")
    assert refused["n"] == rows - len(strict) - len(loosened)


# -- 3. change a cut and look


def test_a_cut_is_changed_and_looked_at(ingested: Ingested, web: Web) -> None:
    before, kept = len(web.requested()), _kept(ingested.path)
    preview, apply, report = commands("min_side=256 --preview", 3, {"POOL": f"'{ingested.path}'"})
    told = give(preview).out
    assert "preview: nothing was written" in told and _kept(ingested.path) == kept
    assert give(apply).out.splitlines()[0] == told.splitlines()[0].replace(" (preview: nothing was written)", "")
    assert 0 < _kept(ingested.path) < kept
    page = Path(give(report).out.strip().removeprefix("open "))
    assert "256" in page.read_text(encoding="utf-8") and len(web.requested()) == before


def _kept(pool: Path) -> int:
    return len(answer(pool, "SELECT sample_id FROM samples WHERE keep"))


# -- 4. a second CLIP model


def test_a_second_clip_model_fetches_nothing(scored: Path, web: Web, tmp_path: Path) -> None:
    from tests.score.pools import tiny_clip

    tiny_clip(tmp_path / "models" / "own", seed=2)
    before = len(web.requested())
    score, correlate = commands("--weights models/own", 2, {"POOL": f"'{scored}'"})
    give(score, folder=tmp_path)
    said = give(correlate).out.splitlines()[-1]
    assert -1 <= float(said) < 0.999, "two models, two opinions"
    assert len(web.requested()) == before
    (line,) = answer(scored, "SELECT count(clip_own) AS own, count(clip_vit_b_32_openai) AS first, count(tar_file) AS images FROM samples")
    assert line["own"] == line["first"] == line["images"] > 100


def test_a_cut_on_clip_scores(scored: Path) -> None:
    (median,) = answer(scored, "SELECT median(clip_vit_b_32_openai) AS cut FROM samples")
    (line,) = commands("laion400m clip_cut=", 1, {"POOL": f"'{scored}'", "0.28": median["cut"]})
    told = give(line, "name=laion").out
    rules = {words[0]: int(words[2]) for words in map(str.split, told.splitlines()) if len(words) == 4 and words[0] == "clip_score_low"}
    (below,) = answer(scored, f"SELECT count(*) AS n FROM samples WHERE clip_vit_b_32_openai < {median['cut']}")
    assert rules["clip_score_low"] == below["n"] > 20


# -- 5. the result in Python


def test_the_result_in_python(ingested: Ingested) -> None:
    script = python("pool.dataset(", {"POOL": ingested.path, "512": 300})
    found: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(script, "README.md", "exec"), found)
    reasons, outcome = found["reasons"], found["outcome"]
    assert type(reasons).__name__ == "DataFrame" and int(reasons["n"].sum()) == ROWS  # type: ignore[index, attr-defined]
    assert printed.getvalue() == f"{_kept(ingested.path)} of {ROWS} rows kept\n" and outcome is not None
    assert isinstance(found["image"], bytes) and found["image"].startswith(b"\xff\xd8")
    stored = answer(ingested.path, f"SELECT caption, original_width, keep FROM samples WHERE sample_id = '{found['sample_id']}'")
    assert stored[0]["caption"] == found["caption"] and stored[0]["keep"] and int(str(stored[0]["original_width"])) >= 300


# -- 6. open_clip's own trainer


def test_open_clips_own_trainer_reads_the_shards(ingested: Ingested, tmp_path: Path) -> None:
    from tests.score.pools import tiny_clip

    (pack,) = commands("curate pack POOL", 1, {"POOL": f"'{ingested.path}'"})
    told = give(pack, "shard_samples=20").out
    (line,) = re.findall(r"(python -m open_clip_train\.main --.*)", told)
    folder = tiny_clip(tmp_path / "tiny")
    small = ["--model", f"local-dir:{folder}", "--precision", "fp32", "--logs", str(tmp_path / "logs"), "--name", "run", "--warmup", "1"]
    said = give(line, *small, "--batch-size", "8", "--log-every-n-steps", "1")
    (checkpoint,) = (tmp_path / "logs" / "run" / "checkpoints").glob("epoch_1.pt")
    assert checkpoint.stat().st_size > 100_000
    steps = re.findall(r"Train Epoch: 0 \[.*?Loss: ([0-9.]+)", said.out + said.err)
    assert len(steps) >= 2 and all(0 < float(loss) < 20 for loss in steps)


# -- 7. one URL's history


def test_one_urls_history(ingested: Ingested, web: Web) -> None:
    (lost,) = answer(ingested.path, "SELECT min(url) AS url FROM samples WHERE reason = 'http_not_found'")
    (line,) = commands("curate history POOL", 1, {"POOL": f"'{ingested.path}'", "https://example.org/cat.jpg": lost["url"]})
    told = give(line).out
    assert str(lost["url"]) in told and "http_not_found" in told and "list of mine.csv, row" in told
    assert re.search(r"status 4(04|10), no image", told) and "1 request," in told
    (kept,) = answer(ingested.path, "SELECT min(url) AS url FROM samples WHERE keep")
    other = give(line.replace(str(lost["url"]), str(kept["url"]))).out
    assert re.search(r"^  filter +datacomp_basic: ", other, re.MULTILINE) and "b'" not in other
    assert re.search(r"^  filter +(datacomp_basic|laion): kept", other, re.MULTILINE)
