"""Second-Moment Trust Policy Optimization (M2PO), arXiv 2510.01161, Algorithm 1.

Among outward tokens of the whole batch, those with the largest (log ρ)² are dropped until the mean of the remaining is at most
the budget τ_M2. Equal values are dropped together, so that the order of the rows makes no difference.

`cut` says which mean: over the remaining tokens (`dropped`, the paper and the default), or over all n outward tokens with each
dropped one counted at the threshold τ² (`clamped`, the released code: Σ min((log ρ)², τ²) = τ_M2 · n; it drops more).
The released code also never drops a token whose ratio lies strictly between `inner_low` and `inner_high` (0.7, 1.5).
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

    budget: float = MISSING  # τ_M2 ≥ 0, bounds the mean of (log ρ)²
    cut: str = MISSING  # dropped | clamped
    inner_low: float | None = MISSING  # in [0, 1], or null: no band that is always kept
    inner_high: float | None = MISSING  # ≥ 1, or null

    def validate(self) -> None:
        self.check(self.budget >= 0, "budget", "choose a second moment of at least 0")
        self.check(self.cut in ("dropped", "clamped"), "cut", "choose dropped (paper) or clamped (released code)")
        self.check((self.inner_low is None) == (self.inner_high is None), "inner_high", "set both bounds, or null for both")
        self.check(self.inner_low is None or 0 <= self.inner_low <= 1, "inner_low", "choose a bound in [0, 1], or null")
        self.check(self.inner_high is None or self.inner_high >= 1, "inner_high", "choose a bound of at least 1, or null")

    def __call__(self, batch: TokenBatch) -> Decision:
        moment = batch.log_ratio.square()
        outward = batch.outward & batch.mask
        keep = ~outward | (moment < first_over_budget(moment[outward], self.budget, self.cut))
        if self.inner_low is not None:
            keep |= (batch.ratio > self.inner_low) & (batch.ratio < self.inner_high)
        return Decision(batch.ratio, keep)


def first_over_budget(moments: Tensor, budget: float, cut: str) -> Tensor:
    """The smallest of `moments` [N] that exceeds the budget when they are added in increasing order; inf if all fit."""
    ordered = moments.sort().values
    num_taken = torch.arange(1, len(ordered) + 1, device=moments.device)
    means = ordered.double().cumsum(0)
    if cut == "dropped":
        means = means / num_taken
    else:
        means = (means + (len(ordered) - num_taken) * ordered) / max(len(ordered), 1)
    return torch.where(means > budget, ordered, torch.inf).min() if len(ordered) else moments.new_tensor(torch.inf)
