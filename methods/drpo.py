"""Divergence Regularized Policy Optimization, arXiv 2606.09821: the weight depends on how far the probability of
the sampled token has moved.

weight = ρ (1 − sgn(A) (π(y) − μ(y))/ε). Tokens that move outward weigh less, tokens that move inward more; none is dropped.
|π − μ| < 1, so the factor can change sign only for ε < 1; the released ε = 12.5 keeps it in [0.92, 1.08].
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class DRPO(Rule):
    """Divergence Regularized PO: weight ρ (1 − sgn(A)(π − μ)/ε), everything kept."""

    eps: float = MISSING  # ε > 0; below 1 a weight may become negative

    def validate(self) -> None:
        self.check(self.eps > 0, "eps", "choose a bound above 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        drift = batch.rollout_logprobs.exp() * (batch.ratio - 1)  # π − μ with the clamped ratio, as in the weight
        return Decision(batch.ratio * (1 - batch.advantages.sign() * drift / self.eps), batch.mask)
