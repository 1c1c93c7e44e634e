"""Small pools written by hand through the store: two parts, one row of almost every end."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curate import schema as schemas
from curate.lease import claim
from curate.shards import subset as subsets
from curate.shards.pack import pack
from curate.shards.settings import PackSettings
from curate.shards.subset import RuleCounts, Subset
from curate.store import Pool

SOURCE = [pa.field("source.similarity", pa.float64()), pa.field("source.URL", pa.string())]
CLIP = pa.field("clip_tiny", pa.float32())
ROWS_SCHEMA = pa.schema([*schemas.table("rows"), *SOURCE])
SCORES_SCHEMA = pa.schema([*schemas.table("scores_base"), CLIP])


@dataclass
class Row:
    """One input row and everything that happens to it."""

    caption: str
    plan: str | None = None
    prefilter: str | None = None
    fetch: str | None = None
    score: str | None = None
    clip: float | None = None
    failed_rules: list[str] = field(default_factory=list)
    group: str | None = None
    group_size: int = 1
    colour: tuple[int, int, int] = (200, 30, 30)
    host: str = "a.example"
    url: str = ""
    language: str = "en"
    image: bytes = b""  # in place of one of its colour

    @property
    def body(self) -> bytes:
        """The stored JPEG."""
        return self.image or jpeg(self.colour)

    def identify(self, part: int, row: int) -> dict[str, Any]:
        url = self.url or f"http://{self.host}/{part}/{row}.jpg"
        key = hashlib.sha256(f"{url}\n{self.caption}".encode()).hexdigest()[:32]
        return {"row": row, "sample_id": key, "url_id": hashlib.sha256(url.encode()).hexdigest()[:32], "url": url}

    @property
    def has_image(self) -> bool:
        return not (self.plan or self.prefilter or self.fetch)

    @property
    def reason(self) -> str | None:
        earlier = self.plan or self.prefilter or self.fetch or self.score
        return earlier or (self.failed_rules[0] if self.failed_rules else None)


def usual_parts() -> list[list[Row]]:
    """Twelve rows: 4 kept, 5 dropped, 2 failed, and one dropped by the prefilter."""
    return [
        [
            Row("a red square", clip=0.40),
            Row("a red square again", clip=0.31, group="g", group_size=2, failed_rules=["duplicate"]),
            Row("a <b>bold</b> claim", clip=0.35, group="g", group_size=2, colour=(10, 200, 10)),
            Row("gone", fetch="http_not_found"),
            Row("short", clip=0.10, failed_rules=["caption_short", "clip_score_low"]),
            Row("late", clip=0.29, failed_rules=["clip_score_low"]),
        ],
        [
            Row("ein blaues Quadrat", clip=0.45, colour=(20, 20, 220), host="b.example", language="de"),
            Row("twice", plan="duplicate_row"),
            Row("unwanted", prefilter="prefilter", host="b.example"),
            Row("asked not to", fetch="opt_out", host="c.example"),
            Row("damaged", score="decode_failed"),
            Row("another square", clip=0.33, colour=(220, 220, 20), host="b.example"),
        ],
    ]


RULES = ["caption_short", "clip_score_low", "duplicate"]


def jpeg(colour: tuple[int, int, int], side: int = 48) -> bytes:
    """A real JPEG of one colour with a gradient, so that no two colours compress alike."""
    ramp = np.linspace(0.4, 1.0, side)[None, :, None] * np.array(colour)[None, None, :]
    stream = io.BytesIO()
    Image.fromarray(np.repeat(ramp, side, axis=0).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> list[int]:
    """A plain ustar file; returns where each member's bytes begin."""
    offsets = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            offsets.append(tar.offset - -(-len(content) // 512) * 512)
    return offsets


def build(folder: Path, parts: Sequence[Sequence[Row]] | None = None, policy: str | None = "usual") -> Pool:
    """A pool that holds these parts, all phases done, the kept rows packed."""
    pool = Pool.create(folder)
    tables = _tables(policy)
    with claim(pool, tables) as run:
        for part, rows in enumerate(parts or usual_parts()):
            for name, data in part_tables(pool, part, rows, policy).items():
                run.commit(name, [pool.write_part(name, part, data, f"basis-{part}", tables[name])])
    pool.write_document("settings", {"recipe": "ingest", "score": {"model": "tiny"}})
    if policy:
        write_subset(pool, policy)
    return pool


POLICY_TEXT = """-- source: made for tests
-- parameter: clip_cut = 0.30
SELECT part, row,
    caption_characters < 6 AND part = 0 AS caption_short,
    coalesce(clip_score, -1.0) < $clip_cut AS clip_score_low
FROM samples
"""


def write_subset(pool: Pool, policy: str) -> None:
    """What `curate filter` notes about its outcome."""
    parts = usual_parts()
    rows = [row for part in parts for row in part]
    subset = Subset(
        name=policy, digest="0" * 64, basis="by hand", policy="usual.sql", policy_text=POLICY_TEXT, policy_sha256="0" * 64, mode="absolute",
        parameters={"clip_cut": 0.30}, cuts=(), rules={rule: RuleCounts(first=1, alone=1, only=1) for rule in RULES}, user_reasons=(),
        groups="pixels", representative="", clip_column="clip_tiny", decisions_version=pool.snapshot(f"decisions_{policy}").version,
        tables={name: pool.snapshot(name).version for name in pool.tables() if not name.startswith(("decisions_", "shards"))},
        rows=len(rows), kept=4, refused=5, pending=0, dropped={rule: 1 for rule in RULES},
    )  # fmt: skip
    subsets.write_subset(pool, subset)


def packed(folder: Path) -> Pool:
    """The usual pool with its kept rows packed into two shards by the real packer."""
    pool = build(folder)
    with claim(pool, {}) as run:
        pack(pool, run, "usual", PackSettings(shard_samples=3))
    return pool


def _tables(policy: str | None) -> dict[str, pa.Schema]:
    tables = {
        "rows": ROWS_SCHEMA,
        "decisions_prefilter": schemas.table("decisions_prefilter"),
        "fetched": schemas.table("fetched"),
        "scores_base": SCORES_SCHEMA,
        "groups_pixels": schemas.table("groups_pixels"),
    }
    return tables | ({f"decisions_{policy}": schemas.table(f"decisions_{policy}")} if policy else {})


def part_tables(pool: Pool, part: int, rows: Sequence[Row], policy: str | None) -> dict[str, pa.Table]:
    """Every table's rows of one part; publishes the part's tar and embeddings on the way."""
    known = [row.identify(part, number) for number, row in enumerate(rows)]
    tables = {
        "rows": [_row(row, at) for row, at in zip(rows, known, strict=True)],
        "decisions_prefilter": [
            {"row": at["row"], "keep": not (row.plan or row.prefilter), "reason": row.plan or row.prefilter, "failed_rules": []}
            for row, at in zip(rows, known, strict=True)
        ],
        "fetched": _fetched(pool, part, rows, known),
        "scores_base": _scores(pool, part, rows),
        "groups_pixels": [
            {"row": n, "group_id": row.group, "group_size": row.group_size if row.has_image else None,
             "match": "exact" if row.group else None} for n, row in enumerate(rows)
        ],
    }  # fmt: skip
    if policy:
        tables[f"decisions_{policy}"] = [
            {
                "row": n,
                "keep": row.reason is None,
                "reason": row.reason if row.failed_rules else None,
                "failed_rules": row.failed_rules if row.has_image and not row.score else None,
            }
            for n, row in enumerate(rows)
        ]
    return {name: _arrow(lines, _tables(policy)[name]) for name, lines in tables.items()}


def _arrow(lines: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    names = [name for name in schema.names if name in lines[0]]
    return pa.Table.from_pylist([dict(line) for line in lines], schema=pa.schema([schema.field(name) for name in names]))


def _row(row: Row, at: Mapping[str, Any]) -> dict[str, Any]:
    return {**at, "caption": row.caption, "source_file": "list.csv", "source_row": at["row"], "reason": row.plan,
            "source.similarity": 0.5 if row.clip is None else row.clip + 0.01, "source.URL": at["url"]}  # fmt: skip


def _fetched(pool: Pool, part: int, rows: Sequence[Row], known: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    members, owners = [], []
    for row, at in zip(rows, known, strict=True):
        if row.has_image:
            owners.append(at["row"])
            members += [(f"{at['sample_id']}.jpg", row.body), (f"{at['sample_id']}.txt", row.caption.encode())]
    temporary = pool.temporary(".tar")
    offsets = write_tar(temporary, members)
    tar_file = pool.publish(temporary, "tars", f"{part:05d}")
    lines: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        line: dict[str, Any] = {name: None for name in schemas.table("fetched").names if name not in ("part", "basis")}
        line |= {"row": number, "reason": row.plan or row.prefilter or row.fetch}
        if row.has_image:
            body, place = row.body, offsets[2 * owners.index(number)]
            digest = hashlib.sha256(body).hexdigest()
            line |= {"http_status": 200, "original_bytes": len(body), "original_width": 48, "original_height": 48,
                     "original_format": "jpeg", "sha256": digest, "width": 48, "height": 48, "format": "jpg",
                     "image_bytes": len(body), "image_sha256": digest,
                     "tar_file": tar_file, "tar_offset": place, "tar_size": len(body)}  # fmt: skip
        lines.append(line)
    return lines


def _scores(pool: Pool, part: int, rows: Sequence[Row]) -> list[dict[str, Any]]:
    embeddings = np.zeros((len(rows), 2, 4), np.float16)
    for number, row in enumerate(rows):
        if row.clip is not None:
            embeddings[number] = 0.5
    temporary = pool.temporary(".npy")
    np.save(temporary, embeddings)
    place = pool.publish(temporary, "embeddings", f"{part:05d}")
    return [
        {"row": n, "reason": row.score, "caption_characters": len(row.caption), "caption_words": len(row.caption.split()),
         "caption_language": row.language, "caption_language_score": 0.9, "image_min_side": 48 if row.has_image else None,
         "image_max_side": 48 if row.has_image else None, "image_aspect": 1.0 if row.has_image else None,
         "image_entropy": 5.0 if row.has_image else None, "phash": n if row.has_image else None,
         "embedding_file": place, "clip_tiny": row.clip}
        for n, row in enumerate(rows)
    ]  # fmt: skip


def replace_part(pool: Pool, table: str, part: int, data: pa.Table, schema: pa.Schema) -> None:
    """Commits other rows for one part of one table, as a broken phase would."""
    with claim(pool, {table: schema}) as run:
        run.commit(table, [pool.write_part(table, part, data, "broken", schema)])


def flip_byte(path: Path, position: int) -> None:
    """Changes one byte of a file in place."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
