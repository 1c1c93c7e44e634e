"""The phase on real pools: one decode per image, values in row order, failures as reasons, nothing that is not a number."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.errors import IdentityError, LocalFault
from curate.media.image import decode_rgb, phash
from curate.score.caption import CaptionScorer
from curate.score.clip_scorer import ClipScorer
from curate.score.phase import ScorePhase
from curate.score.reading import Image as StoredImage
from curate.score.reading import Seen
from curate.score.reserve import Reserve, reserved
from curate.score.result import PartResult
from curate.score.scorer import Opened, Scored
from curate.score.settings import ScoreSettings
from curate.store import Pool
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase, tiny_clip

TRUNCATED = jpeg(noise(9))[:700]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    shared = jpeg(noise(1))
    return make_pool(
        tmp_path / "pool",
        [
            [
                Row("a red cat", shared), Row("gone", None), Row("ein roter Kater", shared),
                Row("broken", TRUNCATED), Row("late", jpeg(noise(2))),
            ],
            [Row("nothing here", None)],
            [Row("another", jpeg(noise(3)))],
        ],
    )  # fmt: skip


def everything(clip_folder: Path, **changes: object) -> ScorePhase:
    clip = ClipScorer(model="tiny", weights=str(clip_folder), batch_size=2)
    return ScorePhase(ScoreSettings.model_validate({"clip": clip, **changes}))


def test_each_image_is_decoded_once(pool: Pool, clip_folder: Path) -> None:
    phase = everything(clip_folder)
    counters = run_phase(pool, phase, phase.schema)
    assert [(c.get("images", 0), c.get("decodes", 0), c.get("model_calls", 0)) for c in counters] == [(3, 3, 3), (0, 0, 0), (1, 1, 1)]
    assert counters[0]["ok"] == 3
    assert counters[0]["decode_truncated"] == 1


def test_values_stand_at_their_rows(pool: Pool, clip_folder: Path) -> None:
    phase = everything(clip_folder)
    run_phase(pool, phase, phase.schema)
    table = pool.snapshot("scores_base").read().to_pydict()
    assert table["reason"] == [None, None, None, "decode_truncated", None, None, None]
    expected = [phash(decode_rgb(jpeg(noise(seed)))) for seed in (1, 1, 2, 3)]
    assert [value for value in table["phash"] if value is not None] == expected
    assert [row for row, value in enumerate(table["phash"]) if value is not None] == [0, 2, 4, 6]
    assert table["caption_language"][0] == "en"
    assert table["caption_language"][2] == "de"
    assert table["caption_words"] == [3, None, 3, 1, 1, None, 1]
    assert table["image_aspect"][0] == pytest.approx(4 / 3)
    assert [value is None for value in table["clip_tiny"]] == [False, True, False, True, False, True, False]


@pytest.mark.parametrize(("image_batch", "decode_threads"), [(1, 1), (2, 3), (256, 2)])
def test_batches_and_threads_change_no_value(pool: Pool, clip_folder: Path, image_batch: int, decode_threads: int) -> None:
    whole, cut = everything(clip_folder), everything(clip_folder, name="cut", image_batch=image_batch, decode_threads=decode_threads)
    for phase in (whole, cut):
        run_phase(pool, phase, phase.schema)
    expected, found = (pool.snapshot(phase.table).read().drop_columns(["basis", "embedding_file"]) for phase in (whole, cut))
    np.testing.assert_allclose(_scores(expected.column("clip_tiny")), _scores(found.column("clip_tiny")), atol=1e-5)
    assert found.drop_columns(["clip_tiny"]).equals(expected.drop_columns(["clip_tiny"]))


def _scores(column: object) -> np.ndarray:
    return np.array([math.inf if value is None else value for value in column.to_pylist()])  # type: ignore[attr-defined]


def test_clip_score_stays_the_first_models(pool: Pool, clip_folder: Path) -> None:
    for name, model in (("base", "tiny"), ("second", "other")):
        phase = ScorePhase(ScoreSettings(name=name, clip=ClipScorer(model=model, weights=str(clip_folder))))
        run_phase(pool, phase, phase.schema)
    assert pool.read_document("current") == {"clip_score": "clip_tiny"}


def test_embeddings_are_row_aligned(pool: Pool, clip_folder: Path) -> None:
    phase = everything(clip_folder)
    run_phase(pool, phase, phase.schema)
    table = pool.snapshot("scores_base").read(parts=[0]).to_pydict()
    assert pool.snapshot("scores_base").read(parts=[1]).column("embedding_file").to_pylist() == [None]
    embeddings = np.load(pool.path / table["embedding_file"][0])
    assert embeddings.shape == (5, 2, 16)
    assert embeddings.dtype == np.float16
    cosine = (embeddings[:, 0].astype(np.float64) * embeddings[:, 1]).sum(axis=1)
    for row, score in enumerate(table["clip_tiny"]):
        assert cosine[row] == pytest.approx(score or 0.0, abs=2e-3)
    assert np.array_equal(embeddings[0, 0], embeddings[2, 0])
    assert not np.array_equal(embeddings[0, 1], embeddings[2, 1])


def test_reserved_rows_get_no_score(tmp_path: Path, clip_folder: Path) -> None:
    pool = make_pool(tmp_path / "pool", [[Row(f"row {at}", jpeg(noise(at))) for at in range(20)]])
    clip = ClipScorer(model="tiny", weights=str(clip_folder), reserve=Reserve(fraction=0.5, salt="fit"))
    phase = ScorePhase(ScoreSettings(image=None, caption=None, clip=clip))
    counters = run_phase(pool, phase, phase.schema)
    ids = pool.snapshot("rows").read(["sample_id"]).column("sample_id").to_pylist()
    table = pool.snapshot("scores_base").read().to_pydict()
    held = [reserved(name, 0.5, "fit") for name in ids]
    assert 4 < sum(held) < 16
    assert [score is None for score in table["clip_tiny"]] == held
    assert counters[0]["model_calls"] == 20 - sum(held)
    assert not np.load(pool.path / table["embedding_file"][0])[held].any()


def test_reserved_shares_are_nested_and_salted() -> None:
    names = [f"{number:032x}" for number in range(2000)]
    small, large = ({name for name in names if reserved(name, fraction, "a")} for fraction in (0.1, 0.3))
    assert small < large
    assert len(large) == pytest.approx(600, abs=80)
    assert large != {name for name in names if reserved(name, 0.3, "b")}
    assert not any(reserved(name, 0.0) for name in names)
    assert all(reserved(name, 1.0) for name in names)


def test_captions_alone_read_no_image(pool: Pool) -> None:
    phase = ScorePhase(ScoreSettings(name="text", image=None))
    for tar in (pool.path / "tars").iterdir():
        tar.unlink()
    counters = run_phase(pool, phase, phase.schema)
    assert sum(c.get("decodes", 0) for c in counters) == 0
    table = pool.snapshot("scores_text").read()
    assert table.column_names == [
        "part", "row", "reason", *CaptionScorer().adds.names, "basis",
    ]  # fmt: skip
    assert table.column("caption_characters").to_pylist() == [9, None, 15, 6, 4, None, 7]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


HOSTILE_IMAGES = {
    "one pixel": _png(np.full((1, 1, 3), 7, np.uint8)),
    "needle": _png(np.zeros((20000, 1, 3), np.uint8)),
    "ribbon": _png(np.zeros((1, 16000, 3), np.uint8)),
    "white": jpeg(np.full((64, 64, 3), 255, np.uint8)),
    "16 bit": _png(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16),
    "not an image": b"<html>404</html>",
    "cut": TRUNCATED,
}
HOSTILE_CAPTIONS = ["", " ", "x" * 100_000, "word " * 20_000, "a\0b", "שלום עולם", "👩‍👩‍👧‍👦🎉", "\u202egnp.exe", None, "一" * 3000]


def test_hostile_rows_get_a_value_or_a_reason(tmp_path: Path, clip_folder: Path) -> None:
    good = jpeg(noise(4))
    rows = [Row(name, data) for name, data in HOSTILE_IMAGES.items()] + [Row(text, good) for text in HOSTILE_CAPTIONS]
    pool = make_pool(tmp_path / "pool", [rows])
    phase = everything(clip_folder)
    run_phase(pool, phase, phase.schema)
    lines = pool.snapshot("scores_base").read().to_pylist()
    for row, line in zip(rows, lines, strict=True):
        assert (line["reason"] is None) == (line["phash"] is not None) == (line["clip_tiny"] is not None), row.caption
        assert not any(isinstance(value, float) and not math.isfinite(value) for value in line.values())
    reasons = {row.caption: line["reason"] for row, line in zip(rows, lines, strict=True) if row.image is not good}
    assert reasons["not an image"] == "not_an_image"
    assert reasons["cut"] == "decode_truncated"
    assert reasons["one pixel"] is None
    assert reasons["white"] is None
    assert [line["image_entropy"] for row, line in zip(rows, lines, strict=True) if row.caption == "white"] == [0.0]


def test_a_damaged_tar_stops_the_run(pool: Pool) -> None:
    phase = ScorePhase(ScoreSettings())
    for tar in (pool.path / "tars").glob("00000-*"):
        tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(LocalFault, match="curate verify"):
        run_phase(pool, phase, phase.schema)


def test_weights_behind_a_column_cannot_change(pool: Pool, clip_folder: Path, tmp_path: Path) -> None:
    first = everything(clip_folder)
    run_phase(pool, first, first.schema)
    document = pool.read_document("model_clip_tiny")
    assert document is not None
    assert len(str(document["weights_sha256"])) == 64
    second = everything(tiny_clip(tmp_path / "tiny", seed=1))
    assert first.identity() != second.identity()
    with pytest.raises(IdentityError, match="another name"):
        second.record(pool)


def test_identity_is_that_of_the_values(clip_folder: Path) -> None:
    assert everything(clip_folder).identity() == everything(clip_folder, name="other", decode_threads=3).identity()
    assert everything(clip_folder).identity() != ScorePhase(ScoreSettings()).identity()


def test_a_phase_without_a_scorer_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        ScoreSettings(image=None, caption=None)


def test_a_part_tells_how_long_its_scorers_used_a_gpu() -> None:
    """Two scorers, two batches; where none used one, nothing is said."""
    result = PartResult(pa.table({"row": pa.array(range(4), pa.int32())}))
    none = pa.RecordBatch.from_arrays([], schema=pa.schema([]))
    opened = [Opened(None, lambda batch, seconds=seconds: Scored(none, gpu_seconds=seconds)) for seconds in (0.25, 0.5)]
    assert "gpu_seconds" not in result.counted()
    for row in range(2):
        result.add(opened, [Seen(StoredImage("tar", 0, 1, np.array([row])), [None, None])])
    assert result.counted()["gpu_seconds"] == 1.5
