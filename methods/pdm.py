"""PDM, arXiv 2607.10848: DPPO, with outward tokens identified by the predicted change of the divergence, not by the ratio.

M_t = 1[A · ((π_y − μ_y) + Σ_i π_i (μ_i − π_i)) ≤ 0 ∨ D_t ≤ δ]. The bracket is the change of KL(μ‖π) along the gradient of
log π(y) with respect to the logits. Reinforcing a token can bring the policies closer although its ratio exceeds 1.
The sum runs over the Top-K ids and the sampled one.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import Decision, TokenBatch, capped_ratio
from methods.dppo import DPPO


@dataclass
class PDM(DPPO):
    """PDM: weight min(ρ, C), tokens dropped if D > δ and the update is predicted to raise KL(μ‖π)."""

    needs_kl_direction = True

    def __call__(self, batch: TokenBatch) -> Decision:
        if batch.kl_direction is None:
            raise ValueError("PDM needs TokenBatch.kl_direction: hand over the predicted change of KL")
        keep = (batch.advantages * batch.kl_direction <= 0) | (self.score(batch) <= self.delta)
        return Decision(capped_ratio(batch, self.ratio_cap), keep)
