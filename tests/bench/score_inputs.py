"""What `tests.bench.score` scores: one set of pictures and captions as a pool and as WebDataset tars, and models to score them with."""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from curate.media.image import ImageSettings, prepare
from curate.score.weights import CONFIG_NAME, WEIGHT_NAMES
from curate.settings import group
from curate.store import Pool
from tests.bench import photos
from tests.score.pools import Row, make_pool

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP, as open_clip has them
WORDS = (
    "the",
    "a",
    "of",
    "in",
    "with",
    "and",
    "red",
    "old",
    "small",
    "house",
    "dog",
    "street",
    "painting",
    "black",
    "photo",
    "wooden",
    "dress",
)
TARS = 4


@dataclass(frozen=True)
class Model:
    """An open_clip model with random weights: how fast it is does not depend on them."""

    name: str
    folder: Path

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHT_NAMES[0]

    @property
    def config(self) -> Path:
        """The architecture alone, in a file by which open_clip can be told of it."""
        return self.folder / "architectures" / f"{self.name}.json"


def rows(count: int, distinct: int) -> list[Row]:
    """`count` rows over `distinct` pictures as `curate fetch` stores them (256 pixels, JPEG); captions of 4 to 20 words."""
    settings, draw = ImageSettings(), random.Random(5)
    files = [path for path in sorted(photos.folder().iterdir()) if path.suffix == ".jpg"]
    stored = [prepare(path.read_bytes(), settings).data for path in files[:distinct]]
    # a few bytes behind the end of a picture make it another one: equal pictures of a part would be scored once
    return [
        Row(" ".join(draw.choices(WORDS, k=draw.randint(4, 20))), stored[at % len(stored)] + at.to_bytes(4, "big")) for at in range(count)
    ]


def pool(folder: Path, chosen: list[Row], rows_per_part: int) -> Pool:
    """A fetched pool of these rows."""
    return make_pool(folder, [chosen[at : at + rows_per_part] for at in range(0, len(chosen), rows_per_part)])


def webdataset(folder: Path, chosen: list[Row]) -> list[str]:
    """The same as tars of jpg and txt, as img2dataset writes them; their paths."""
    folder.mkdir()
    paths = [folder / f"{number:05d}.tar" for number in range(TARS)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for at, row in enumerate(chosen[number::TARS]):
                for suffix, data in (("jpg", row.image or b""), ("txt", (row.caption or "").encode())):
                    member = tarfile.TarInfo(f"{number:02d}{at:07d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return [str(path) for path in paths]


def base_32(home: Path) -> Model:
    """ViT-B/32."""
    return _saved(home, "ViT-B-32", open_clip.get_model_config("ViT-B-32"))


def small(home: Path) -> Model:
    """The small tower of conf/train/tiny_vit.yaml: 64 pixels, two layers of 64."""
    return _saved(home, "curate-tiny-vit", group("train", "tiny_vit")["model"])


def _saved(home: Path, name: str, architecture: dict[str, object]) -> Model:
    model = Model(name, home / name)
    model.config.parent.mkdir(parents=True)
    model.config.write_text(json.dumps(architecture))
    (model.folder / CONFIG_NAME).write_text(json.dumps({"model_cfg": architecture, "preprocess_cfg": {"mean": MEAN, "std": STD}}))
    torch.manual_seed(0)
    network = open_clip.CLIP(**architecture)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, model.weights)
    return model
