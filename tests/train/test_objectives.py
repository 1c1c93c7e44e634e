"""The contrastive loss is InfoNCE, averaged over both directions."""

from __future__ import annotations

import math

import pytest
import torch

from curate.train.objectives import image_text_contrastive


def unit(n: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_it_is_the_mean_of_both_cross_entropies() -> None:
    images, texts, scale = unit(5, 0), unit(5, 1), torch.tensor(7.0)
    scores = (scale * images @ texts.T).tolist()
    to_text = [-math.log(math.exp(scores[i][i]) / sum(math.exp(s) for s in scores[i])) for i in range(5)]
    to_image = [-math.log(math.exp(scores[i][i]) / sum(math.exp(scores[j][i]) for j in range(5))) for i in range(5)]
    assert image_text_contrastive(images, texts, scale).item() == pytest.approx((sum(to_text) + sum(to_image)) / 10, rel=1e-5)


def test_equal_embeddings_cost_the_logarithm_of_the_batch() -> None:
    same = unit(1, 0).expand(8, -1)
    assert image_text_contrastive(same, same, torch.tensor(20.0)).item() == pytest.approx(math.log(8), rel=1e-5)


def test_gradients_reach_images_texts_and_temperature() -> None:
    images, texts, scale = unit(4, 0).requires_grad_(), unit(4, 1).requires_grad_(), torch.tensor(3.0, requires_grad=True)
    image_text_contrastive(images, texts, scale).backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in (images, texts, scale))
