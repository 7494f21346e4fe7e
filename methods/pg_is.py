"""Policy gradient with token-level importance sampling: J = E_μ[ρ A], whose gradient is ρ A ∇log π. No trust region."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import Decision, Rule, TokenBatch


@dataclass
class PGIS(Rule):
    """Policy gradient with importance sampling: weight ρ, everything kept."""

    def __call__(self, batch: TokenBatch) -> Decision:
        return Decision(batch.ratio, batch.mask)
