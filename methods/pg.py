"""Policy gradient without a ratio (REINFORCE; GPG, arXiv 2504.02546): J = E[A log π], on rollouts of any age."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import Decision, Rule, TokenBatch


@dataclass
class PG(Rule):
    """Policy gradient: weight 1, everything kept."""

    def __call__(self, batch: TokenBatch) -> Decision:
        return Decision(torch.ones_like(batch.ratio), batch.mask)
