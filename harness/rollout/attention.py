"""An SDPA implementation that does not copy grouped KV heads when one token is decoded.

With a mask on a CPU, transformers' own SDPA path first copies every key and value to all query heads that share them; that
copy is half of a small model's decoding time. A one-token query needs no copy: the query heads that share a KV head are passed
as query positions of that head. All other calls go to transformers' own path.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_grouped"


def register() -> str:
    """Register the implementation with transformers; returns its name for `attn_implementation=`."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest,
) -> tuple[Tensor, None]:
    """query [B, H, Q, D], key and value [B, H_kv, L, D] → [B, Q, H, D]."""
    rows, heads, length, head_dim = query.shape
    if length != 1 or attention_mask is None or rest.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **rest)
    shared = query.view(rows, key.shape[1], -1, head_dim)
    out = torch.nn.functional.scaled_dot_product_attention(shared, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(rows, 1, heads, value.shape[-1]), None
