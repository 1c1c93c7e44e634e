"""The demo end to end: every row accounted for, every trouble told by its reason, duplicates found, nothing asked twice."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import unquote

import pytest
from deltalake import DeltaTable

import curate
from curate.catalog.subsets import read_subset
from curate.demo.scenes import DUPLICATE_KINDS
from curate.demo.trouble import HOPS, OK, PLANTED, Trouble
from curate.errors import REASONS
from curate.store import Pool
from tests.e2e.demo_pool import DemoPool, path_of
from tests.e2e.runs import HOST_FILES, ask, finish

BROKEN_LINES = 1
UNSEEN = {*HOPS, "/hop/last.jpg", "/hop/long/0", *HOST_FILES}
"""Paths that only redirects lead to, and the files of hosts themselves."""


# -- row accounting and reasons


def test_the_pool_verifies(demo: DemoPool) -> None:
    found = ask("verify", demo.path)
    assert found["ok"] and found["deep"]
    assert {check["name"]: check["checked"] for check in found["checks"] if not check["checked"]} == {"copies": 0}  # nobody compacted it


def test_every_input_row_ends_once(demo: DemoPool) -> None:
    listed = len((demo.path / "demo" / "list.jsonl").read_text().splitlines())
    assert listed == 1000 + len(PLANTED) + BROKEN_LINES
    ends = {line["outcome"]: line["rows"] for line in demo.sql("SELECT outcome, count(*) AS rows FROM samples GROUP BY outcome")}
    assert set(ends) == {"kept", "dropped", "failed"} and sum(ends.values()) == listed
    assert ask("funnel", demo.path)["rows"] == listed


def test_every_reason_is_in_the_list_and_has_its_end(demo: DemoPool) -> None:
    own = set(read_subset(Pool.open(demo.path), "demo").user_reasons)
    found = demo.sql("SELECT DISTINCT reason, outcome FROM samples WHERE reason IS NOT NULL")
    assert len(found) >= 20
    assert {line["reason"] for line in found} <= {*REASONS, *own}
    assert all(line["outcome"] == REASONS[line["reason"]].outcome for line in found if line["reason"] not in own)


@pytest.mark.parametrize("trouble", PLANTED, ids=lambda trouble: trouble.kind)
def test_planted_trouble_carries_its_reason(demo: DemoPool, trouble: Trouble) -> None:
    found = demo.troubles[trouble.kind]["found"]
    if trouble.expected_reasons == (OK,):
        assert found["tar_file"] is not None and (found["keep"] or found["phase"] == "filter"), found["reason"]
    else:
        assert found["reason"] in trouble.expected_reasons and found["keep"] is not True


def test_the_broken_line_is_a_row_that_failed(demo: DemoPool) -> None:
    assert demo.sql("SELECT reason, url FROM samples WHERE source_row >= 1000 AND reason = 'input_unparseable'") == [
        {"reason": "input_unparseable", "url": None}
    ]


@pytest.mark.parametrize(("kind", "reason"), [("dead", "http_not_found"), ("opted_out", "opt_out"), ("too_small", "image_small")])
def test_the_corpus_own_trouble_carries_its_reason(demo: DemoPool, kind: str, reason: str) -> None:
    lines = [line for line in demo.scenes if line["kind"] == kind]
    assert len(lines) == 20 and {line["expected_reason"] for line in lines} == {reason}
    assert Counter(line["found"]["reason"] for line in lines) == {reason: 20}


def test_opted_out_pictures_are_nowhere(demo: DemoPool) -> None:
    refused = [line["found"] for line in demo.lines if line["found"]["reason"] == "opt_out"]
    assert len(refused) == 20 + sum(trouble.kind.startswith("opt_out") for trouble in PLANTED)
    assert all(line["tar_file"] is None and line["signal"] and line["image_sha256"] is None for line in refused)


# -- requests


def test_requests_are_the_rows_that_passed_one_for_each_url(demo: DemoPool) -> None:
    asked = [line["found"] for line in demo.lines if line["found"]["phase"] not in ("plan", "prefilter")]
    urls = {line["url_id"]: line["url"] for line in asked}
    wanted = {unquote(path_of(url)) for url in urls.values() if demo.is_served(url)}
    assert set(demo.requests) - UNSEEN == wanted
    assert len(wanted) == 1000 + sum(trouble.served and trouble.same_url_as is None for trouble in PLANTED)


def test_nothing_is_requested_twice_but_what_failed_for_now(demo: DemoPool) -> None:
    retried = {trouble.address: trouble.expected_requests for trouble in PLANTED if trouble.expected_requests != 1}
    once = {path: count for path, count in demo.requests.items() if path not in retried and path not in UNSEEN}
    assert set(once.values()) == {1}
    assert all(demo.requests[path] == count for path, count in retried.items() if count)
    assert all(demo.requests[path] >= 1 for path, count in retried.items() if count is None)
    assert not [path for path, count in retried.items() if count == 0 and path != "/trouble/original.jpg" and demo.requests[path]]


# -- duplicates


def test_planted_copies_are_found(demo: DemoPool) -> None:
    group_of = {line["path"]: line["found"]["group_id"] for line in demo.scenes}
    found, planted = Counter[str](), Counter[str]()
    for line in demo.scenes:
        if line["kind"] in DUPLICATE_KINDS:
            planted[line["kind"]] += 1
            group = line["found"]["group_id"]
            found[line["kind"]] += group is not None and group == group_of[line["duplicate_of"]]
    assert planted == {kind: 50 for kind in DUPLICATE_KINDS}
    assert found["exact_copy"] == 50
    assert sum(found[kind] for kind in DUPLICATE_KINDS[1:]) >= 0.99 * 150


def test_distinct_pictures_stay_apart(demo: DemoPool) -> None:
    """The scene and its colours tell pictures apart: `hue_change` rows share a seed with the scene they recolour."""
    shown, groups = set(), defaultdict(set)
    for line in demo.scenes:
        if line["found"]["tar_file"]:
            picture = (line["scene_id"], line["objects"])
            shown.add(picture)
            groups[line["found"]["group_id"] or line["found"]["sample_id"]].add(picture)
    assert sum(line["kind"] == "hue_change" for line in demo.scenes) == 50
    assert sum(len(pictures) - 1 for pictures in groups.values()) <= len(shown) / 1000


def test_recoloured_pictures_are_not_in_the_group_of_what_they_recolour(demo: DemoPool) -> None:
    group_of = {line["path"]: line["found"]["group_id"] for line in demo.scenes}
    recoloured = [line for line in demo.scenes if line["kind"] == "hue_change"]
    assert len(recoloured) == 50
    together = [line["path"] for line in recoloured if line["found"]["group_id"] == (group_of[line["made_from"]] or "none")]
    assert together == []


def test_planted_copies_share_a_group_and_one_caption_of_it_is_kept_at_most(demo: DemoPool) -> None:
    found = [demo.troubles[kind]["found"] for kind in ("original", "exact_copy", "reencoded_copy", "second_caption")]
    assert len({line["group_id"] for line in found}) == 1 and found[0]["group_id"] is not None
    assert found[0]["tar_offset"] == found[3]["tar_offset"], "two captions of one address share its bytes"
    assert sum(line["keep"] for line in found) <= 1


def test_a_group_whose_best_member_is_filtered_keeps_its_next_best(demo: DemoPool) -> None:
    groups = defaultdict(list)
    for line in demo.sql("SELECT * FROM samples WHERE group_id IS NOT NULL"):
        groups[line["group_id"]].append(line)
    replaced = 0
    for members in groups.values():
        members.sort(key=lambda line: (-line["original_width"] * line["original_height"], -(line["clip_score"] or -2), line["sample_id"]))
        fit = [line for line in members if set(line["failed_rules"]) <= {"duplicate"}]
        assert [line["sample_id"] for line in members if line["keep"]] == [line["sample_id"] for line in fit[:1]]
        assert all(line["reason"] == "duplicate" for line in fit[1:])
        replaced += bool(fit) and fit[0] is not members[0]
    assert replaced, "no group whose best member failed a rule: the scores, fitted on this machine, decide how many there are"


# -- what it costs to do it again


def test_the_same_command_again_does_nothing(demo: DemoPool, tmp_path: Path) -> None:
    before, log = state(demo.path), demo.log.read_bytes()
    finish(demo.command, tmp_path / "said")
    assert state(demo.path) == before
    assert demo.log.read_bytes() == log
    work = json.loads((demo.path / "documents" / "last_run.json").read_text())
    assert set(work["seconds"]) >= {"plan", "fetch", "fit", "score", "dedupe", "filter", "pack", "train", "evaluate"}
    assert not any(work["counters"].values()), "requests, model calls or decodes"


def test_another_threshold_costs_no_request_and_no_model_call(demo: DemoPool, tmp_path: Path) -> None:
    """The web server is down, and neither the HTTP client nor torch is even loaded."""
    pool = Path(shutil.copytree(demo.path, tmp_path / "pool"))
    before, log = state(pool), (pool / "demo" / "server.log").read_bytes()
    without_network_or_model("filter", pool, "demo", "min_side=200")
    without_network_or_model("pack", pool)
    after = state(pool)
    assert {table for table in before if before[table] != after[table]} == {"decisions_demo", "shards"}
    assert (pool / "demo" / "server.log").read_bytes() == log
    sides = "SELECT min(least(original_width, original_height)) AS smallest, count(*) AS rows FROM samples WHERE keep"
    ((had,), (has,)) = (DemoPool(path).sql(sides) for path in (demo.path, pool))
    assert had["smallest"] < 200 <= has["smallest"] and 0 < has["rows"] < had["rows"]
    sizes = json.loads((pool / "shards" / "demo" / "sizes.json").read_text())
    assert sum(sizes.values()) == has["rows"] and ask("verify", pool)["ok"]


def state(pool: Path) -> dict[str, tuple[str, ...]]:
    """The files of each table; their names carry the hash of what is in them."""
    opened = Pool.open(pool)
    return {table: tuple(file.path for file in opened.snapshot(table).files) for table in opened.tables()}


def without_network_or_model(*arguments: object) -> None:
    """Runs a command that must end well and must have loaded neither the HTTP client nor torch."""
    code = (
        "import sys; from curate.cli.app import execute; code = execute(sys.argv[1:])\n"
        "loaded = {'pycurl', 'torch', 'open_clip'} & set(sys.modules); sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- read by others


def test_the_packed_shards_load_in_webdataset(demo: DemoPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_SECURE", "1")
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(str(path) for path in (demo.path / "shards" / "demo").glob("*.tar"))
    found = {s["__key__"]: s["txt"] for s in webdataset.WebDataset(shards, shardshuffle=False).decode("pil")}
    assert found == {line["sample_id"]: line["caption"] for line in demo.sql("SELECT sample_id, caption FROM samples WHERE keep")}


def test_the_packed_shards_load_in_open_clip(demo: DemoPool) -> None:
    """With the arguments of the line that `curate pack` prints, through open_clip's own loader and preprocessing."""
    params, data = pytest.importorskip("open_clip_train.params"), pytest.importorskip("open_clip_train.data")
    open_clip = pytest.importorskip("open_clip")
    kept = demo.sql("SELECT count(*) AS rows FROM samples WHERE keep")[0]["rows"]
    words = shlex.split(curate.open(str(demo.path)).pack().train_command)
    args = params.parse_args([*words[3:], "--workers", "0", "--batch-size", "16"])
    args.distributed, args.world_size, args.rank = False, 1, 0
    preprocess = open_clip.image_transform(64, is_train=True)
    info = data.get_data(args, (preprocess, preprocess), tokenizer=open_clip.get_tokenizer("ViT-B-32"))["train"]
    assert args.train_num_samples == kept and info.dataloader.num_batches == -(-kept // 16)
    images, texts = next(iter(info.dataloader))
    assert tuple(images.shape) == (16, 3, 64, 64) and tuple(texts.shape) == (16, 77) and len({tuple(t.tolist()) for t in texts}) > 1


def test_the_tables_open_in_a_plain_delta_reader(demo: DemoPool) -> None:
    tables = {path.name: DeltaTable(str(path)).to_pyarrow_table() for path in (demo.path / "tables").iterdir()}
    rows = 1000 + len(PLANTED) + BROKEN_LINES
    assert {name: tables[name].num_rows for name in ("rows", "fetched", "scores_base", "groups_pixels", "decisions_demo")} == {
        name: rows for name in ("rows", "fetched", "scores_base", "groups_pixels", "decisions_demo")
    }
    assert tables["evaluations"].num_rows > 0 and tables["shards"].num_rows == sum(tables["decisions_demo"]["keep"].to_pylist())
