"""Truncated Importance Sampling (Yao et al., "Your efficient RL framework secretly brings you off-policy RL training"; verl).

J = E[ sg(min(ρ, C)) A log π ].
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch, capped_ratio


@dataclass
class TIS(Rule):
    """Truncated Importance Sampling: weight min(ρ, C), everything kept."""

    cap: float = MISSING  # C ≥ 1

    def validate(self) -> None:
        self.check(self.cap >= 1, "cap", "choose a cap of at least 1")

    def __call__(self, batch: TokenBatch) -> Decision:
        return Decision(capped_ratio(batch, self.cap), batch.mask)
