"""Cumulative Token Policy Optimization, arXiv 2605.07331: the ratio of the whole prefix, clipped by a bound that grows with it.

c_t = Π_{j≤t} ρ_j;  PPO's rule on log c_t with bounds (−ε_low √t, ε_high √t), since the spread of log c_t grows like √t.
Dual clip: A < 0 ∧ log c_t > ε_dual √t also drops. The growth with √t is optional in the released code (`growing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import LOG_RATIO_CLAMP, MISSING, Decision, Rule, TokenBatch, inside_clip


@dataclass
class CTPO(Rule):
    """Cumulative Token PO: weight the prefix ratio, dropped outside bounds that grow with √t on the outward side."""

    scope = "response"

    eps_low: float = MISSING  # ≥ 0, bounds −log c_t per √t
    eps_high: float = MISSING  # ≥ 0, bounds log c_t per √t
    eps_dual: float | None = MISSING  # ≥ 0, bounds log c_t per √t where A < 0, or null: no dual clip
    growing: bool = MISSING  # false: constant bounds

    def validate(self) -> None:
        self.check(self.eps_low >= 0, "eps_low", "a bound on -log(ratio): choose at least 0")
        self.check(self.eps_high >= 0, "eps_high", "a bound on log(ratio): choose at least 0")
        self.check(self.eps_dual is None or self.eps_dual >= 0, "eps_dual", "choose at least 0, or null for none")

    def __call__(self, batch: TokenBatch) -> Decision:
        log_ratio = batch.log_ratio.cumsum(-1).clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)
        growth = batch.positions.to(log_ratio.dtype).sqrt() if self.growing else torch.ones_like(log_ratio)
        keep = inside_clip(batch, log_ratio, -self.eps_low * growth, self.eps_high * growth)
        if self.eps_dual is not None:
            keep &= ~((batch.advantages < 0) & (log_ratio > self.eps_dual * growth))
        return Decision(log_ratio.exp(), keep)
