"""A TorchScript file becomes descriptors of stored pictures; what is no such file is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from curate.errors import IdentityError, InputError
from curate.score.descriptor import DescriptorScorer
from curate.score.phase import ScorePhase
from curate.score.settings import ScoreSettings
from tests.score.layout import SIDE, export
from tests.score.pools import Row, jpeg, make_pool, noise, run_phase


class Mean(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> DescriptorScorer:
    return export(tmp_path_factory.mktemp("layout") / "layout.pt", [noise(seed) for seed in range(20)])


def scored(scorer: DescriptorScorer) -> ScorePhase:
    return ScorePhase(ScoreSettings(name="copy", image=None, caption=None, descriptor=scorer))


def test_the_network_sees_pictures_as_sscd_does(tmp_path: Path) -> None:
    torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
    colour = np.full((50, 30, 3), (250, 10, 130), np.uint8)
    with DescriptorScorer(path=str(tmp_path / "mean.pt")).describing() as describe:
        (found,) = describe([colour])
    wanted = (np.array([250, 10, 130]) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-5)


def test_descriptors_are_stored_as_embeddings_of_one_side(tmp_path: Path, layout: DescriptorScorer) -> None:
    pictures = [noise(seed, 60, 80) for seed in range(5)]
    rows = [Row("a", jpeg(one)) for one in pictures] + [Row("gone", None), Row("again", jpeg(pictures[0])), Row("bad", b"no image")]
    pool = make_pool(tmp_path / "pool", [rows, [Row("none", None)]])
    phase = scored(layout)
    run_phase(pool, phase, phase.schema)
    table = pool.snapshot("scores_copy").read()
    found = pool.array(next(name for name in table["embedding_file"].to_pylist() if name))
    assert found.shape == (8, 1, 175) and found.dtype == np.float16
    assert not found[5].any() and not found[7].any() and np.array_equal(found[0], found[6])
    with layout.describing() as describe:
        cosine = (describe([pictures[0]]) @ found[:5, 0].astype(np.float32).T)[0]
    assert cosine[0] > 0.99 and max(cosine[1:]) < 0.6
    assert DescriptorScorer.recorded(pool, "scores_copy") == layout


def test_another_file_under_the_same_name_is_refused(tmp_path: Path, layout: DescriptorScorer) -> None:
    pool = make_pool(tmp_path / "pool", [[Row("a", jpeg(noise(1)))]])
    phase = scored(layout)
    run_phase(pool, phase, phase.schema)
    other = export(tmp_path / "other.pt", [noise(seed) for seed in range(30, 40)])
    with pytest.raises(IdentityError, match="another file"):
        other.record(pool, "scores_copy")
    assert phase.identity() != scored(other).identity()
    with pytest.raises(IdentityError, match="other settings"):
        layout.model_copy(update={"mean": (0.5, 0.5, 0.5)}).record(pool, "scores_copy")
    assert DescriptorScorer.recorded(pool, "scores_copy") == layout


def test_what_is_no_descriptor_is_one_line(tmp_path: Path, layout: DescriptorScorer) -> None:
    (tmp_path / "text.pt").write_text("weights")
    torch.jit.script(torch.nn.Conv2d(3, 4, 3)).save(str(tmp_path / "maps.pt"))
    torch.jit.script(torch.nn.Linear(9, 2)).save(str(tmp_path / "linear.pt"))
    wrong = {"none.pt": "does not exist", "text.pt": "no TorchScript", "maps.pt": "no .n, dim", "linear.pt": "takes no pictures"}
    for name, said in wrong.items():
        scorer = DescriptorScorer(path=str(tmp_path / name), side=SIDE)
        with pytest.raises(InputError, match=said) as raised, scorer.describing() as describe:
            describe([noise(1)])
        assert "\n" not in str(raised.value)
