"""IcePop, arXiv 2510.18855 (Ring-1T): M(ρ) = ρ if α ≤ ρ ≤ β, else 0;  J = E[ sg(M(ρ)) A log π ].

Both bounds hold for either sign of A, unlike a clip. α is `low`, β is `high`.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class IcePop(Rule):
    """IcePop: weight ρ, dropped outside [α, β]."""

    low: float = MISSING  # α in [0, 1]
    high: float = MISSING  # β ≥ 1

    def validate(self) -> None:
        self.check(0 <= self.low <= 1, "low", "choose a bound in [0, 1], so that equal policies are kept")
        self.check(self.high >= 1, "high", "choose a bound of at least 1, so that equal policies are kept")

    def __call__(self, batch: TokenBatch) -> Decision:
        return Decision(batch.ratio, (batch.ratio >= self.low) & (batch.ratio <= self.high))
