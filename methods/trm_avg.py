"""Trust Region Masking by the average alone, arXiv 2512.23075: M(response) = 1[mean_t D_t ≤ δ]. See methods/trm.py."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, TokenBatch
from methods.trm import MaskedResponses


@dataclass
class TRMAvg(MaskedResponses):
    """Trust Region Masking, Avg: weight ρ, the response kept if mean D ≤ δ."""

    delta: float = MISSING  # ≥ 0, bounds mean_t D_t

    def validate(self) -> None:
        super().validate()
        self.check(self.delta >= 0, "delta", "choose a bound of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        return self.mask_responses(batch, delta_max=None, delta_avg=self.delta)
