"""Group Relative Policy Optimization with DAPO's Clip-Higher, arXiv 2402.03300 (Eq. 3) and 2503.14476 (Eq. 10).

min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A): the gradient is ρ A ∇log π, and vanishes where the clip binds, that is for
A > 0 ∧ ρ > 1 + ε_high and for A < 0 ∧ ρ < 1 − ε_low. The core computes the group-relative advantage, for all rules.

Dual clip (arXiv 1912.09729, Eq. 5; c > 1) also drops A < 0 ∧ ρ > c. It is off in both papers; verl's default is c = 3 and
DAPO's recipes set c = 10.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch, inside_clip


@dataclass
class GRPO(Rule):
    """Group Relative PO with Clip-Higher: weight ρ, dropped outside [1 − ε_low, 1 + ε_high] on the outward side."""

    eps_low: float = MISSING  # in [0, 1]
    eps_high: float = MISSING  # ≥ 0
    dual_clip: float | None = MISSING  # c > 1, or null: off

    def validate(self) -> None:
        self.check(0 <= self.eps_low <= 1, "eps_low", "the ratio is positive, so choose a bound in [0, 1]")
        self.check(self.eps_high >= 0, "eps_high", "choose a bound of at least 0")
        self.check(self.dual_clip is None or self.dual_clip > 1, "dual_clip", "choose a bound above 1, or null for none")

    def __call__(self, batch: TokenBatch) -> Decision:
        keep = inside_clip(batch, batch.ratio, 1 - self.eps_low, 1 + self.eps_high)
        if self.dual_clip is not None:
            keep &= ~((batch.advantages < 0) & (batch.ratio > self.dual_clip))
        return Decision(batch.ratio, keep)
