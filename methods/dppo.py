"""Divergence Proximal Policy Optimization, arXiv 2602.04879, Eq. 12.

M_t = 0 if (A > 0 ∧ ρ > 1 ∧ D_t > δ) or (A < 0 ∧ ρ < 1 ∧ D_t > δ), else 1;  J = E[M_t ρ A].
D_t is the total variation or KL(μ‖π) of the next-token distributions, reduced to the rollout policy's top-K ids or to the
sampled token (`binary_*`). The ratio is capped at C = `ratio_cap` (∞ in the stability study: null here).
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, DivergenceRule, TokenBatch, capped_ratio, check_ratio_cap


@dataclass
class DPPO(DivergenceRule):
    """Divergence Proximal PO: weight min(ρ, C), outward tokens with D > δ dropped."""

    delta: float = MISSING  # δ ≥ 0, bounds D
    ratio_cap: float | None = MISSING  # C ≥ 1, or null: no cap

    def validate(self) -> None:
        super().validate()
        self.check(self.delta >= 0, "delta", "a divergence is never negative, so choose a bound of at least 0")
        check_ratio_cap(self)

    def __call__(self, batch: TokenBatch) -> Decision:
        keep = ~batch.outward | (self.score(batch) <= self.delta)
        return Decision(capped_ratio(batch, self.ratio_cap), keep)
