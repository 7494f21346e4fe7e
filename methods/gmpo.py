"""Geometric-Mean Policy Optimization, arXiv 2507.20673, with token-level clipping.

l_t = log ρ_t;  l̃_t = min(l_t, ε_high) if A > 0, max(l_t, −ε_low) if A < 0;  R = exp(mean_t l̃_t);  J = E[R A].
∇R = R · mean_t ∇l̃_t, and ∇l̃_t vanishes where the clip binds: each token's weight is R under seq-mean-token-mean, and clipped
tokens are dropped. The bounds are on log ρ. R is called `seq_ratio` here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import LOG_RATIO_CLAMP, MISSING, Decision, Rule, TokenBatch, inside_clip


@dataclass
class GMPO(Rule):
    """Geometric-Mean PO: weight R, the geometric mean of the clipped ratios; tokens clipped on the outward side dropped."""

    scope = "response"

    eps_low: float = MISSING  # ≥ 0, bounds −log ρ
    eps_high: float = MISSING  # ≥ 0, bounds log ρ

    def validate(self) -> None:
        self.check(self.eps_low >= 0, "eps_low", "a bound on -log(ratio): choose at least 0")
        self.check(self.eps_high >= 0, "eps_high", "a bound on log(ratio): choose at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        log_ratio = batch.raw_log_ratio
        keep = inside_clip(batch, log_ratio, -self.eps_low, self.eps_high)
        clipped = torch.where(keep, log_ratio, log_ratio.clamp(-self.eps_low, self.eps_high))
        seq_ratio = batch.row_mean(clipped).clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP).exp()
        seq_ratio = seq_ratio * (batch.lengths > 0)  # 0 for an empty response
        return Decision(seq_ratio.expand_as(batch.ratio), keep, {"seq_ratio": seq_ratio.squeeze(-1)})
