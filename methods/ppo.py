"""Proximal Policy Optimization, arXiv 1707.06347, Eq. 7: Clip-Higher with equal bounds.

L = E[min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)]. There is no critic: the core computes the advantages, as for every rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch
from methods.grpo import GRPO


@dataclass
class PPO(Rule):
    """Proximal Policy Optimization: weight ρ, dropped outside [1 − ε, 1 + ε] on the outward side."""

    eps: float = MISSING  # in [0, 1]
    dual_clip: float | None = MISSING  # see GRPO

    def validate(self) -> None:
        self.check(0 <= self.eps <= 1, "eps", "choose a bound in [0, 1]")
        self.clip()

    def clip(self) -> GRPO:
        return GRPO(eps_low=self.eps, eps_high=self.eps, dual_clip=self.dual_clip)

    def __call__(self, batch: TokenBatch) -> Decision:
        return self.clip()(batch)
