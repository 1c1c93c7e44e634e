"""NormSim against its definition, and references that cannot be compared with a pool."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from curate.derive import vectors as module
from curate.derive.settings import DeriveSettings
from curate.derive.vectors import Reference
from curate.errors import InputError, SettingsError
from curate.settings import build as settings_of
from tests.derive.pools import build, column, derive, unit
from tests.shards.pools import Sample

PARTS = [[Sample(), Sample(reason="http_not_found"), Sample()], [Sample()] * 4]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_both_norms_are_those_of_all_cosines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    pool, known = build(tmp_path / "pool", PARTS)
    target = (np.random.default_rng(4).normal(size=(23, 8)) * 3).astype(kind)
    np.save(tmp_path / "a.npy", target[:10])
    np.save(tmp_path / "b.npy", target[10:])
    monkeypatch.setattr(module, "_BLOCK", 7)
    derive(pool, "near", normsim={"target": {"path": str(tmp_path / "?.npy")}})
    largest, square = (column(pool, f"normsim_{which}", "scores_near") for which in ("inf", "2"))
    assert largest[0, 1] is None and square[0, 1] is None
    for key, (image, _) in known.items():
        cosines = [float(unit(image) @ unit(one.astype(float))) for one in target]
        assert largest[key] == pytest.approx(max(map(abs, cosines)), abs=1e-6)
        assert square[key] == pytest.approx(math.sqrt(sum(one**2 for one in cosines)), abs=1e-5)


def test_an_array_of_an_npz_is_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "both.npz", b32_img=np.eye(4), l14_img=np.eye(8))
    assert Reference(path=str(tmp_path / "both.npz"), array="l14_img").check(8) == 8
    np.savez(tmp_path / "one.npz", only=np.eye(8))
    assert Reference(path=str(tmp_path / "one.npz")).check(8) == 8


def test_what_cannot_be_compared_is_told_in_one_line(tmp_path: Path) -> None:
    bad = np.eye(8)
    bad[5] = 0
    nan = np.eye(8)
    nan[3, 1] = np.nan
    for name, array in {"flat": np.zeros(8), "whole": np.eye(8, dtype=int), "zero": bad, "nan": nan, "none": np.zeros((0, 8))}.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.eye(8), b=np.eye(8))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.npz").write_bytes(b"PK\x03\x04 no zip")
    for name, array, told in [
        ("flat.npy", "", r"flat.npy: float64 of shape \(8,\), where floats of shape \(n, 8\)"),
        ("whole.npy", "", "whole.npy: int64 of shape"),
        ("zero.npy", "", "zero.npy: row 5 is zero, NaN or infinite"),
        ("nan.npy", "", "nan.npy: row 3 is zero, NaN"),
        ("none.npy", "", "none.npy: holds no vector"),
        ("objects.npy", "", "objects.npy: cannot be read"),
        ("text.npy", "", "text.npy: cannot be read"),
        ("text.npz", "", "text.npz: cannot be read"),
        ("missing.npy", "", "missing.npy: cannot be read as .npy or .npz .No such file"),
        ("*.nothing", "", "nothing: no file is called so"),
        ("two.npz", "", "two.npz: several arrays; there are a, b: name one"),
        ("two.npz", "c", "two.npz: no array 'c'; there are a, b"),
        ("flat.npy", "a", "flat.npy: a single array, so it has none that is called 'a'"),
    ]:
        with pytest.raises(InputError, match=told) as caught:
            Reference(path=str(tmp_path / name), array=array).check(8)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "small.npy", np.eye(4))
    pool, _ = build(tmp_path / "pool", PARTS)
    with pytest.raises(InputError, match="small.npy: vectors of 4 dimensions, the pool's have 8: embed them with the same model"):
        derive(pool, "near", normsim={"target": {"path": str(tmp_path / "small.npy")}})
    with pytest.raises(SettingsError, match="nothing to derive"):
        settings_of(DeriveSettings, {"name": "x"})
    with pytest.raises(SettingsError, match="unknown key 'normsim.targets'"):
        settings_of(DeriveSettings, {"name": "x", "normsim": {"targets": "x.npy"}})
