"""Second-Moment Trust Policy Optimization (M2PO), arXiv 2510.01161, Algorithm 1.

Among outward tokens of the whole batch, those with the largest (log ρ)² are dropped until the mean of the remaining is at most
the budget τ_M2. Equal values are dropped together, so that the order of the rows makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class M2PO(Rule):
    """Second-Moment Trust PO: weight ρ, the outward tokens with the largest (log ρ)² dropped until their mean is in budget."""

    scope = "minibatch"

    budget: float = MISSING  # ≥ 0, bounds the mean of (log ρ)²

    def validate(self) -> None:
        self.check(self.budget >= 0, "budget", "choose a second moment of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        moment = batch.log_ratio.square()
        outward = batch.outward & batch.mask
        keep = ~outward | (moment < first_over_budget(moment[outward], self.budget))
        return Decision(batch.ratio, keep)


def first_over_budget(moments: Tensor, budget: float) -> Tensor:
    """The smallest of `moments` [N] that does not fit if they are taken in increasing order and their mean stays in budget."""
    ordered = torch.cat([moments.sort().values, moments.new_tensor([torch.inf])])
    means = ordered.double().cumsum(0) / torch.arange(1, len(ordered) + 1, device=moments.device)
    return ordered[(means > budget).long().argmax()]
