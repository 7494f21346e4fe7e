"""Soft Adaptive Policy Optimization, arXiv 2511.20347, Eqs. 5 and 6.

f(ρ) = (4/τ) σ(τ(ρ − 1)),  τ = τ_pos if A > 0, else τ_neg;  J = E[f(ρ) A].
The weight is f'(ρ) ρ = 4 σ(1 − σ) ρ, σ taken at τ(ρ − 1): 1 at ρ = 1, and towards 0 far from it on both sides, without a cut.
The paper's aggregation is seq-mean-token-mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class SAPO(Rule):
    """Soft Adaptive PO: weight 4σ(1 − σ)ρ with σ = sigmoid(τ(ρ − 1)), everything kept."""

    tau_pos: float = MISSING  # τ > 0 where A > 0
    tau_neg: float = MISSING  # τ > 0 elsewhere

    def validate(self) -> None:
        self.check(self.tau_pos > 0, "tau_pos", "choose a temperature above 0")
        self.check(self.tau_neg > 0, "tau_neg", "choose a temperature above 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        x = batch.by_sign(batch.advantages > 0, self.tau_pos, self.tau_neg) * (batch.ratio - 1)
        weight = 4 * torch.sigmoid(x) * torch.sigmoid(-x) * batch.ratio
        return Decision(weight, batch.mask)
