"""Trust Region Masking, arXiv 2512.23075: a response is rejected whole if its divergence leaves the region.

M(response) = 1[max_t D_t ≤ δ_max ∧ mean_t D_t ≤ δ_avg];  J = E[M ρ A].  D = KL(μ‖π) over the full vocabulary in the paper;
without distributions the paper takes k2 or |log ρ| for the maximum and k3 for the mean.
Two settings circulate: the pair (0.1, 0.002) used jointly, and the tighter 0.05 or 0.001 used alone (`trm_max`, `trm_avg`).

`rejected` says what becomes of a rejected response. `counted` (the paper and the default): it gives no gradient but stays in the
denominator. `removed` (verl's rejection sampling): it leaves the mask too, so that a token mean divides by the kept tokens only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, DivergenceRule, TokenBatch


@dataclass
class MaskedResponses(DivergenceRule):
    """Base of TRM, TRM-Max and TRM-Avg: rejects whole responses by either criterion or both."""

    rejected: str = MISSING  # counted | removed

    @property
    def scope(self) -> str:
        """`removed` needs the whole minibatch: it shrinks the denominator by the minibatch's share of rejected tokens."""
        return "response" if self.rejected == "counted" else "minibatch"

    @property
    def aggregation(self) -> str | None:
        """`removed` rescales the token mean; a mean over responses would have to be rescaled by the number of responses."""
        return "token-mean" if self.rejected == "removed" else None

    def validate(self) -> None:
        super().validate()
        self.check(self.rejected in ("counted", "removed"), "rejected", "choose counted (paper) or removed (verl)")

    def mask_responses(self, batch: TokenBatch, delta_max: float | None, delta_avg: float | None) -> Decision:
        score = self.score(batch)
        seq_max, seq_mean = batch.row_max(score), batch.row_mean(score)
        seq_keep = torch.ones_like(batch.lengths, dtype=torch.bool)
        if delta_max is not None:
            seq_keep = seq_keep & (seq_max <= delta_max)
        if delta_avg is not None:
            seq_keep = seq_keep & (seq_mean <= delta_avg)
        keep = batch.mask & seq_keep
        weight = batch.ratio
        if self.rejected == "removed":
            weight = weight * (batch.mask.sum().to(weight.dtype) / keep.sum().clamp(min=1))
        aux = {"seq_max": seq_max, "seq_mean": seq_mean, "seq_keep": seq_keep.to(weight.dtype)}
        return Decision(weight, keep, {name: value.squeeze(-1) for name, value in aux.items()})


@dataclass
class TRM(MaskedResponses):
    """Trust Region Masking, Max ∧ Avg: weight ρ, the response kept if max D ≤ δ_max and mean D ≤ δ_avg."""

    delta_max: float = MISSING  # ≥ 0
    delta_avg: float = MISSING  # ≥ 0

    def validate(self) -> None:
        super().validate()
        self.check(self.delta_max >= 0, "delta_max", "choose a bound of at least 0")
        self.check(self.delta_avg >= 0, "delta_avg", "choose a bound of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        return self.mask_responses(batch, self.delta_max, self.delta_avg)
