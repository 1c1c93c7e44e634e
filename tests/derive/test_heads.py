"""Heads in their authors' formats: numbers equal those of the same layers in PyTorch, and what is no head is one line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.derive.heads import Head, HeadMeasure
from curate.errors import InputError
from tests.derive import pools
from tests.shards.pools import Sample

torch = pytest.importorskip("torch")
nn = torch.nn

DIM = 12


def saved(path: Path, model: Any) -> str:
    torch.save(model.state_dict(), path)
    return str(path)


class NsfwDetector(nn.Module):  # type: ignore[misc, name-defined]
    """As the CLIP-based NSFW detector names its weights in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.randn(DIM))
        self.norm.register_buffer("variance", torch.rand(DIM) + 0.5)
        self.linear_1, self.linear_2, self.linear_3 = nn.Linear(DIM, 5), nn.Linear(5, 7), nn.Linear(7, 1)

    def forward(self, x: Any) -> Any:
        x = (x - self.norm.mean) / (self.norm.variance.sqrt() + 1e-10)
        return torch.sigmoid(self.linear_3(torch.relu(self.linear_2(torch.relu(self.linear_1(x))))))


class Layers(nn.Module):  # type: ignore[misc, name-defined]
    """Layers under the name `layers`."""

    def __init__(self, *layers: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return self.layers(x)


def aesthetic_2() -> Layers:
    drop = nn.Dropout(0.2)
    return Layers(nn.Linear(DIM, 9), drop, nn.Linear(9, 8), drop, nn.Linear(8, 6), drop, nn.Linear(6, 4), nn.Linear(4, 1))


def nsfw_h14() -> Layers:
    sizes, layers = (DIM, 10, 14, 10, 8, 6, 4), []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.2)]
    return Layers(*layers[:-2], nn.Linear(4, 1))


@pytest.mark.parametrize("make", [lambda: nn.Linear(DIM, 1), aesthetic_2, nsfw_h14, NsfwDetector], ids=["v1", "v2", "h14", "nsfw"])
def test_a_column_equals_the_authors_model(tmp_path: Path, make: Any) -> None:
    torch.manual_seed(3)
    model = make().eval()
    parts = [[Sample(), Sample(reason="http_not_found"), Sample()], [Sample(), Sample()]]
    pool, known = pools.build(tmp_path / "pool", parts, dim=DIM)
    assert pools.derive(pool, "looks", heads={"aesthetic": {"path": saved(tmp_path / "head.pth", model)}}) == 2
    found = pools.column(pool, "aesthetic", "scores_looks")
    assert found[0, 1] is None and len(found) == 5
    for place, vectors in known.items():
        with torch.no_grad():
            wanted = float(model(torch.tensor(pools.unit(vectors[0]), dtype=torch.float32)[None])[0, 0])
        assert found[place] == pytest.approx(wanted, abs=1e-5)
    assert len({round(float(value), 6) for value in found.values() if value is not None}) == len(known)  # type: ignore[arg-type]


def test_safetensors_and_other_layers(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(4)
    model = Layers(nn.Linear(DIM, 6), nn.ReLU(), nn.Linear(6, 1)).eval()
    save_file(model.state_dict(), tmp_path / "head.safetensors")
    head = Head(path=str(tmp_path / "head.safetensors"))
    with pytest.raises(InputError, match=r"between=relu"):
        head.read()
    vectors = np.random.default_rng(0).normal(size=(7, DIM)).astype(np.float32)
    with torch.no_grad():
        wanted = torch.sigmoid(model(torch.tensor(vectors)))[:, 0].numpy()
    read = Head(path=head.path, between="relu", output="sigmoid").read()
    np.testing.assert_allclose(read(vectors), wanted, atol=1e-6)
    assert np.abs(Head(path=head.path, between="none", output="sigmoid").read()(vectors) - wanted).max() > 1e-3


def test_the_identity_follows_the_bytes_and_the_reading(tmp_path: Path) -> None:
    first, second = (saved(tmp_path / name, nn.Linear(DIM, 1)) for name in ("a.pth", "b.pth"))
    (tmp_path / "c.pth").write_bytes(Path(first).read_bytes())
    one = HeadMeasure("looks", Head(path=first)).identity()
    assert one == HeadMeasure("looks", Head(path=str(tmp_path / "c.pth"))).identity()
    assert one != HeadMeasure("looks", Head(path=second)).identity()
    assert one != HeadMeasure("looks", Head(path=first, output="sigmoid")).identity()


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("/nonexistent/evil"),)  # type: ignore[return-value]


def test_what_is_no_head_is_one_line(tmp_path: Path) -> None:
    def refused(content: Any, words: str) -> None:
        path = tmp_path / "head.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(InputError, match=words) as said:
            Head(path=str(path)).read()
        assert str(path) in str(said.value) and "\n" not in str(said.value)

    refused(b"no pickle", "no file of PyTorch weights")
    refused({"x": Evil()}, "no file of PyTorch weights")
    refused(torch.zeros(3), "no weights by name")
    refused({"epoch": 3}, "no weights by name")
    refused(nn.Conv2d(1, 1, 1).state_dict() | {"other": torch.zeros(1)}, "no linear or MLP head")
    refused(nn.Linear(DIM, 2).state_dict(), "no single number")
    refused({"layers.0.weight": torch.zeros(1, DIM)}, "no linear or MLP head")
    with pytest.raises(InputError, match="cannot be read"):
        Head(path=str(tmp_path / "absent.pth")).read()
    pool, _ = pools.build(tmp_path / "pool", [[Sample()]], dim=8)
    with pytest.raises(InputError, match="12 dimensions, the pool's have 8"):
        pools.derive(pool, "looks", heads={"looks": {"path": saved(tmp_path / "wide.pth", nn.Linear(DIM, 1))}})
