"""MIS-PO (Metropolis Independence Sampling-filtered Policy Optimization, Step 3.5 Flash), arXiv 2602.10604.

Tokens are filtered, not weighted: M_t = 1[ρ_t in the token range ∧ (Π_t ρ_t)^{1/T} in the trajectory range], J = E[M A log π].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch, geometric_mean


@dataclass
class MISPO(Rule):
    """MIS-PO: weight 1, kept where the token's and the response's geometric mean ratio are both in range."""

    scope = "response"

    low: float = MISSING  # in [0, 1], bounds ρ_t
    high: float = MISSING  # ≥ 1
    seq_low: float = MISSING  # in [0, 1], bounds the geometric mean
    seq_high: float = MISSING  # ≥ 1

    def validate(self) -> None:
        for name in ("low", "seq_low"):
            self.check(0 <= getattr(self, name) <= 1, name, "choose a bound in [0, 1], so that equal policies are kept")
        for name in ("high", "seq_high"):
            self.check(getattr(self, name) >= 1, name, "choose a bound of at least 1, so that equal policies are kept")

    def __call__(self, batch: TokenBatch) -> Decision:
        seq_ratio = geometric_mean(batch)
        near = (batch.ratio >= self.low) & (batch.ratio <= self.high)
        keep = near & (seq_ratio >= self.seq_low) & (seq_ratio <= self.seq_high)
        return Decision(torch.ones_like(batch.ratio), keep, {"seq_ratio": seq_ratio.squeeze(-1)})
