"""VESPO, arXiv 2602.10693: the weight is a smooth function of the whole response's ratio, derived from a variational problem.

W = Π_t ρ_t;  weight = e^λ W^k e^{−λW},  (k, λ) chosen by the sign of A. It is 1 at W = 1 and goes to 0 for W → 0 and for W → ∞.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class VESPO(Rule):
    """VESPO: weight e^λ W^k e^{−λW} with W the response's ratio, everything kept."""

    scope = "response"

    k_pos: float = MISSING  # k ≥ 0 where A ≥ 0
    lam_pos: float = MISSING  # λ ≥ 0 where A ≥ 0
    k_neg: float = MISSING  # k ≥ 0 where A < 0
    lam_neg: float = MISSING  # λ ≥ 0 where A < 0

    def validate(self) -> None:
        for name in ("k_pos", "lam_pos", "k_neg", "lam_neg"):
            self.check(getattr(self, name) >= 0, name, "choose at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        log_W = batch.row_sum(batch.log_ratio)
        positive = batch.advantages >= 0
        k = batch.by_sign(positive, self.k_pos, self.k_neg)
        lam = batch.by_sign(positive, self.lam_pos, self.lam_neg)
        damping = torch.where(lam > 0, lam * log_W.exp(), 0.0)  # a long response's W may be infinite
        weight = (lam + k * log_W - damping).exp()
        return Decision(weight, batch.mask, {"W": log_W.exp().squeeze(-1)})
