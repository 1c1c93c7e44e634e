"""How close scoring comes to what this machine can do, beside clip-retrieval: `python -m tests.bench.score [LINE]`, LINE being

    feed     tar to normalised batch of 224 pixels with a model that does nothing, against bare decoding and cropping
    forward  ViT-B/32 against its bare forward pass at the same batch, captions of the same length, fp32
    peer     ViT-B/32 and a tower of 64 pixels against clip-retrieval's own inference, fp32 both
    bf16     ViT-B/32 in bf16 against fp32
    all      each of them (about ten minutes on two cores), which is also what no word means

Images per second, pictures of 256 pixels as `curate fetch` stores them, two workers with one thread each; clip-retrieval has two
loading processes and two threads. Starts are left out on both sides. Weights are random: rates do not depend on them. Ways take
turns in each round; a ratio is that of one round, and the median over rounds is told, as JSON in the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import score_inputs as inputs
from tests.bench import score_ours as ours
from tests.bench import score_peer as peer

BATCH = 64
Ways = dict[str, Callable[[], float]]


def in_turn(name: str, ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Images per second of each way, round by round; every other round the other way round."""
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 == 0 else -1]:
            found[way].append(ways[way]())
            print(f"{name}, round {number + 1}, {way}: {found[way][-1]:.1f} images/s", flush=True)
    return found


def line(name: str, ours_found: list[float], peer_found: list[float]) -> dict[str, object]:
    """One comparison."""
    ratios = [one / other for one, other in zip(ours_found, peer_found, strict=True)]
    middle = {"ratio": statistics.median(ratios), "ours": statistics.median(ours_found), "peer": statistics.median(peer_found)}
    rounded = {key: round(value, 3) for key, value in middle.items()}
    return {"name": name, **rounded, "unit": "images/s", "rounds": len(ratios), "ratios": [round(one, 3) for one in ratios]}


def feed_lines(home: Path, count: int, rounds: int) -> list[dict[str, object]]:
    """Tar to normalised batch."""
    chosen = inputs.rows(count, 150)
    pool, small = inputs.pool(home / "feed", chosen, 512), inputs.small(home / "feed_model")
    idle = ours.Idle(model="idle", weights=str(small.folder), batch_size=BATCH)
    found = in_turn("feed", {"ours": lambda: ours.rate(pool, idle), "limit": lambda: ours.decode_limit(chosen[:150], 4)}, rounds)
    return [line("score feed / decode and crop", found["ours"], found["limit"])]


def base_lines(home: Path, said: str, count: int, rounds: int) -> list[dict[str, object]]:
    """ViT-B/32: as much of it as was asked for."""
    chosen = inputs.rows(count, 40)
    pool, model = inputs.pool(home / "base", chosen, BATCH), inputs.base_32(home / "base_model")
    tars = inputs.webdataset(home / "base_tars", chosen)
    captions = [row.caption or "" for row in chosen]
    ways: Ways = {
        "ours": lambda: ours.rate(pool, ours.scorer(model, BATCH)),
        "forward": lambda: ours.forward_limit(model, captions, BATCH, 10),
        "peer": lambda: peer.rate(model, tars, BATCH),
        "bf16": lambda: ours.rate(pool, ours.scorer(model, BATCH, "bf16")),
    }
    wanted = {way: work for way, work in ways.items() if said in ("all", way) or way == "ours"}
    found = in_turn("ViT-B/32", wanted, rounds)
    for precision in ("fp32", "bf16"):
        print(f"ViT-B/32 {precision}: at most {ours.distance(model, chosen[:24], precision):.2g} from open_clip's embeddings (1 - cosine)")
    lines = [line(f"score ViT-B/32 / {way}", found["ours"], found[way]) for way in ("forward", "peer") if way in found]
    return [*lines, *([line("score ViT-B/32 bf16 / fp32", found["bf16"], found["ours"])] if "bf16" in found else [])]


def small_lines(home: Path, count: int, rounds: int) -> list[dict[str, object]]:
    """A tower that costs less than reading its pictures."""
    chosen = inputs.rows(count, 150)
    pool, model = inputs.pool(home / "small", chosen, 512), inputs.small(home / "small_model")
    tars = inputs.webdataset(home / "small_tars", chosen)
    ways: Ways = {"ours": lambda: ours.rate(pool, ours.scorer(model, BATCH)), "peer": lambda: peer.rate(model, tars, BATCH)}
    found = in_turn("small tower", ways, rounds)
    return [line("score small tower / clip-retrieval", found["ours"], found["peer"])]


def main() -> None:
    """Prints a line for each run, a JSON object for each comparison, and all of them in the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("line", nargs="?", default="all", choices=["feed", "forward", "peer", "bf16", "all"])
    parser.add_argument("--images", type=int, default=384, help="of ViT-B/32")
    parser.add_argument("--light-images", type=int, default=6144, help="of the small tower and the idle model")
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    lines: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="curate-bench-score-") as folder:
        home = Path(folder)
        if said.line in ("feed", "all"):
            lines += feed_lines(home, said.light_images, said.rounds)
        if said.line in ("peer", "all"):
            lines += small_lines(home, said.light_images, said.rounds)
        if said.line != "feed":
            lines += base_lines(home, said.line, said.images, said.rounds)
    for one in lines[:-1]:
        print(json.dumps(one))
    print(json.dumps({**lines[-1], "lines": {str(one["name"]): one["ratio"] for one in lines}}))


if __name__ == "__main__":
    main()
