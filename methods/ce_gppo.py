"""CE-GPPO (Controlling Entropy via Gradient-Preserving Policy Optimization), arXiv 2509.20712.

A token that PPO's clip would drop keeps a bounded gradient: its weight is β₂(1 + ε_high) for A > 0 ∧ ρ > 1 + ε_high and
β₁(1 − ε_low) for A < 0 ∧ ρ < 1 − ε_low. All other tokens have weight ρ. β₁ is `beta_low`, β₂ is `beta_high`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch, inside_clip


@dataclass
class CEGPPO(Rule):
    """Gradient-Preserving PO: weight ρ, or a bounded constant where PPO would drop the token; everything kept."""

    eps_low: float = MISSING  # in [0, 1]
    eps_high: float = MISSING  # ≥ 0
    beta_low: float = MISSING  # β₁ ≥ 0
    beta_high: float = MISSING  # β₂ ≥ 0

    def validate(self) -> None:
        self.check(0 <= self.eps_low <= 1, "eps_low", "choose a bound in [0, 1]")
        self.check(self.eps_high >= 0, "eps_high", "choose a bound of at least 0")
        self.check(self.beta_low >= 0, "beta_low", "choose a factor of at least 0")
        self.check(self.beta_high >= 0, "beta_high", "choose a factor of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        low, high = 1 - self.eps_low, 1 + self.eps_high
        bounded = batch.by_sign(batch.advantages > 0, self.beta_high * high, self.beta_low * low)
        weight = torch.where(inside_clip(batch, batch.ratio, low, high), batch.ratio, bounded)
        return Decision(weight, batch.mask)
