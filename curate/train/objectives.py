"""Training objectives; each is one function of unit-norm embeddings."""

from __future__ import annotations

import functools

import torch
from open_clip.loss import ClipLoss


def image_text_contrastive(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, rank: int = 0, world_size: int = 1
) -> torch.Tensor:
    """InfoNCE between matching pairs, mean of both directions (Radford et al. 2021, arXiv 2103.00020, figure 3).

    `images` and `texts` are (batch, dim), unit norm, row i of one belongs to row i of the other; `logit_scale` is 1/τ.
    With `world_size` > 1 the negatives are those of all processes and gradients flow through the gathered embeddings.
    """
    loss: torch.Tensor = _clip_loss(rank, world_size)(images, texts, logit_scale)
    return loss


@functools.cache
def _clip_loss(rank: int, world_size: int) -> ClipLoss:
    return ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world_size)
