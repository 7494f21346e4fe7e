"""Geometric sequence masking ("When Speed Kills Stability", rl-collapse notes, part 3): rejection that does not depend on length.

M = 1[low ≤ (Π_t ρ_t)^{1/T} ≤ high] for the whole response, whatever the sign of A. The mean is called `seq_ratio` here.
The weight is ρ, or 1 with `weighted: false`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch, geometric_mean


@dataclass
class GeoMask(Rule):
    """Geometric sequence masking: weight ρ or 1, responses whose geometric mean ratio leaves [low, high] dropped whole."""

    scope = "response"

    low: float = MISSING  # in [0, 1]
    high: float = MISSING  # ≥ 1
    weighted: bool = MISSING

    def validate(self) -> None:
        self.check(0 <= self.low <= 1, "low", "choose a bound in [0, 1], so that equal policies are kept")
        self.check(self.high >= 1, "high", "choose a bound of at least 1, so that equal policies are kept")

    def __call__(self, batch: TokenBatch) -> Decision:
        seq_ratio = geometric_mean(batch)
        keep = (seq_ratio >= self.low) & (seq_ratio <= self.high) & batch.mask
        weight = batch.ratio if self.weighted else torch.ones_like(batch.ratio)
        return Decision(weight, keep, {"seq_ratio": seq_ratio.squeeze(-1)})
