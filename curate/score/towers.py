"""open_clip's two towers for less work: captions without their padding, weights that are reduced once and not for each batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def encode_text(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """`model.encode_text(tokens)`, computed on no more positions than the longest text has; not brought to length 1.

    In a causal tower that is read at the end of the text (its highest token, as in CLIP), nothing that stands behind the end is
    ever seen. Of the usual 77 positions captions fill a third. Other towers get all of them.
    """
    import open_clip

    causal = isinstance(model, open_clip.CLIP) and model.attn_mask is not None and model.text_pool_type == "argmax"
    if not causal:
        encoded: torch.Tensor = model.encode_text(tokens)
        return encoded
    length = int(tokens.argmax(dim=-1).max()) + 1
    cut = {
        "model.positional_embedding": model.positional_embedding[:length],
        "model.attn_mask": model.attn_mask[:length, :length].contiguous(),
    }
    short: torch.Tensor = torch.func.functional_call(_TextTower(model), cut, (tokens[:, :length],))
    return short


class _TextTower(nn.Module):
    """`encode_text` as a module's call, which is what torch can run with other tensors in the place of some."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> Any:
        return self.model.encode_text(tokens)  # type: ignore[operator]


def reduce_weights(model: nn.Module, kind: torch.dtype) -> None:
    """Brings the matrices that autocast would reduce at each call to `kind` once; norms and embeddings stay as they are.

    Attention is where it counts: with weights of another kind than its input, torch 2 leaves its quick path and reduces the
    projection once for each picture of the batch (on a CPU 70 % of the time of ViT-B/32).
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            for weight in module.parameters(recurse=False):
                weight.data = weight.data.to(kind)
