"""Trust Region Masking by the maximum alone, arXiv 2512.23075: M(response) = 1[max_t D_t ≤ δ]. See methods/trm.py."""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, TokenBatch
from methods.trm import MaskedResponses


@dataclass
class TRMMax(MaskedResponses):
    """Trust Region Masking, Max: weight ρ, the response kept if max D ≤ δ."""

    delta: float = MISSING  # ≥ 0, bounds max_t D_t

    def validate(self) -> None:
        super().validate()
        self.check(self.delta >= 0, "delta", "choose a bound of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        return self.mask_responses(batch, delta_max=self.delta, delta_avg=None)
