"""Clipped IS-weight Policy Optimization, arXiv 2506.13585 (MiniMax-M1), Eqs. 4 and 5.

J = E[ sg(ρ̂) A log π ],  ρ̂ = clip(ρ, 1 − ε_low, 1 + ε_high): the weight is clipped, no token is dropped, and the sign of A
makes no difference. The paper disables the lower bound (ε_low large) and tunes ε_high only.
TRL's `epsilon_high` is the cap itself, which is 1 + ε_high here.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class CISPO(Rule):
    """Clipped IS-weight PO: weight clip(ρ, 1 − ε_low, 1 + ε_high), everything kept."""

    eps_low: float = MISSING  # ≥ 0; at 1 or more there is no lower bound
    eps_high: float = MISSING  # ≥ 0

    def validate(self) -> None:
        self.check(self.eps_low >= 0, "eps_low", "choose a bound of at least 0")
        self.check(self.eps_high >= 0, "eps_high", "choose a bound of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        weight = batch.ratio.clamp(1 - self.eps_low, 1 + self.eps_high)
        return Decision(weight, batch.mask)
