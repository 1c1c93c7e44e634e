"""A small copy descriptor in the format of SSCD's files: roughly, where colours and edges lie. It stands in for weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from curate.demo.scenes import scenes
from curate.score.descriptor import DescriptorScorer

SIDE = 96


class Layout(torch.nn.Module):
    """(n, 3, side, side) to (n, 175): means of the colours and of four directions of edges in 5 x 5 windows that overlap by half.

    Each number is centred and scaled by what it is over some pictures, so that unrelated pictures have a cosine around 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(175))
        self.register_buffer("scale", torch.ones(175))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return (self.measured(pictures) - self.centre) / self.scale

    @torch.jit.export
    def measured(self, pictures: torch.Tensor) -> torch.Tensor:
        small = functional.adaptive_avg_pool2d(pictures, [48, 48])
        grey = small.mean(dim=1, keepdim=True)
        across, down = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2], grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
        edges = torch.cat([across.relu(), (-across).relu(), down.relu(), (-down).relu()], dim=1)
        both = torch.cat([small[:, :, 1:-1, 1:-1], edges], dim=1)
        return functional.avg_pool2d(both, kernel_size=16, stride=7, padding=0).flatten(1)


def export(path: Path, pictures: Sequence[np.ndarray] | None = None) -> DescriptorScorer:
    """Writes the file; centre and scale are those of the pictures, by default of 100 scenes that nothing else draws."""
    shown = pictures if pictures is not None else [row.pixels() for row in scenes(100, seed=900, split="eval")]
    network, said = Layout(), DescriptorScorer(path=str(path), side=SIDE)
    squares = np.stack([said.square(one) for one in shown]).astype(np.float32) / 255
    normalised = (squares - np.float32(said.mean)) / np.float32(said.std)
    with torch.inference_mode():
        found = network.measured(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).contiguous())
    network.centre, network.scale = found.mean(dim=0).clone(), (found.std(dim=0) + 1e-3).clone()
    torch.jit.script(network.eval()).save(str(path))
    return said
