"""The one loss of all rules: −Σ A · weight · keep · log π, each token scaled by the aggregation.

A token that a rule drops stays in the denominators. They are counted over the whole minibatch before it is split, so that
the gradients of micro-batches add up to the gradient of the minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods import Decision


@dataclass
class Totals:
    """Counts over a whole minibatch: all its micro-batches on all data-parallel ranks."""

    num_tokens: float
    num_responses: float  # with at least one valid token

    @classmethod
    def of(cls, mask: Tensor) -> Totals:
        """Counts of a whole minibatch's response mask [B, T]."""
        lengths = mask.bool().sum(-1)
        return cls(int(lengths.sum()), int((lengths > 0).sum()))


# Each function gives the factor of a token's loss. lengths: [B, 1] valid tokens per row; horizon: the longest allowed response.
AGGREGATIONS = {
    "token-mean": lambda lengths, totals, horizon: 1 / max(totals.num_tokens, 1),
    "seq-mean-token-sum": lambda lengths, totals, horizon: 1 / max(totals.num_responses, 1),
    "seq-mean-token-mean": lambda lengths, totals, horizon: 1 / (max(totals.num_responses, 1) * lengths.clamp(min=1)),
    "seq-mean-token-sum-norm": lambda lengths, totals, horizon: 1 / (max(totals.num_responses, 1) * horizon),
}


def token_scale(mask: Tensor, aggregation: str, totals: Totals, horizon: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[B, T] the factor of each token's loss; 0 where masked."""
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation={aggregation!r}: choose from {' '.join(AGGREGATIONS)}")
    mask = mask.bool()
    lengths = mask.sum(-1, keepdim=True).to(dtype)
    return mask * torch.as_tensor(AGGREGATIONS[aggregation](lengths, totals, horizon), dtype=dtype, device=mask.device)


def surrogate_loss(logprobs: Tensor, advantages: Tensor, decision: Decision, mask: Tensor, scale: Tensor) -> Tensor:
    """−Σ A · weight · keep · scale · log π over valid tokens, a scalar; only log π carries a gradient. All inputs are [B, T]."""
    for name in ("weight", "keep"):
        shape = tuple(getattr(decision, name).shape)
        if shape != tuple(mask.shape):  # [B] would broadcast along the tokens where B = T
            raise ValueError(f"the rule's {name} has shape {shape}, not that of the mask {tuple(mask.shape)}: give one per token")
    masked = ~mask.bool()
    coefficient = (advantages * decision.weight * decision.keep * scale).detach().masked_fill(masked, 0.0)
    return -(coefficient * logprobs.masked_fill(masked, 0.0)).sum()
