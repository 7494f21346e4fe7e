"""Off-Policy Sequence Masking, DeepSeek-V3.2 (arXiv 2512.02556), combined with a clip.

M = 0 if A < 0 and mean_t (log μ − log π) > δ, else 1: a bad response is dropped once the learner has moved far away from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch
from methods.grpo import GRPO


@dataclass
class OPSM(Rule):
    """Off-Policy Sequence Masking: weight ρ, Clip-Higher, responses with A < 0 and mean(log μ − log π) > δ dropped whole."""

    scope = "response"

    delta: float = MISSING  # δ ≥ 0, bounds mean(log μ − log π) in nat
    eps_low: float = MISSING  # see GRPO
    eps_high: float = MISSING
    dual_clip: float | None = MISSING

    def validate(self) -> None:
        self.check(self.delta >= 0, "delta", "choose a bound of at least 0")
        self.clip()

    def clip(self) -> GRPO:
        return GRPO(eps_low=self.eps_low, eps_high=self.eps_high, dual_clip=self.dual_clip)

    def __call__(self, batch: TokenBatch) -> Decision:
        clipped = self.clip()(batch)
        drift = -batch.row_mean(batch.raw_log_ratio)
        stale = (batch.advantages < 0) & (drift > self.delta)
        return Decision(clipped.weight, clipped.keep * ~stale, {"seq_drift": drift.squeeze(-1)})
