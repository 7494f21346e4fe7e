"""Asymmetric importance Sampling Policy Optimization, arXiv 2510.06062: the ratio is inverted where A > 0.

weight = min(1/ρ, C) for A > 0, so that tokens the learner finds unlikely weigh more; ρ elsewhere. PPO's rule, applied to ρ,
decides which tokens are kept. The cap C is the paper's soft dual clip: it bounds the weight and keeps the token's gradient.
Public reimplementations disagree about it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch, inside_clip


@dataclass
class ASPO(Rule):
    """Asymmetric importance Sampling PO: weight min(1/ρ, C) for A > 0, else ρ; PPO's rule on ρ."""

    eps_low: float = MISSING  # in [0, 1]
    eps_high: float = MISSING  # ≥ 0
    cap: float = MISSING  # C ≥ 1, bounds 1/ρ

    def validate(self) -> None:
        self.check(0 <= self.eps_low <= 1, "eps_low", "choose a bound in [0, 1]")
        self.check(self.eps_high >= 0, "eps_high", "choose a bound of at least 0")
        self.check(self.cap >= 1, "cap", "choose a cap of at least 1")

    def __call__(self, batch: TokenBatch) -> Decision:
        inverse_ratio = (-batch.log_ratio).exp().clamp(max=self.cap)
        weight = torch.where(batch.advantages > 0, inverse_ratio, batch.ratio)
        return Decision(weight, inside_clip(batch, batch.ratio, 1 - self.eps_low, 1 + self.eps_high))
