"""Group Sequence Policy Optimization, arXiv 2507.18071, Eqs. 5–7.

s = (π(y)/μ(y))^{1/|y|} = exp(mean_t log ρ_t);  J = E[min(s A, clip(s, 1 − ε_low, 1 + ε_high) A)], averaged over sequences.
∇s = s · mean_t ∇log π, so the weight of each token is s under the aggregation seq-mean-token-mean. s is called `seq_ratio` here.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import MISSING, Decision, Rule, TokenBatch, geometric_mean, inside_clip


@dataclass
class GSPO(Rule):
    """Group Sequence PO: weight s, the geometric mean ratio of the response; PPO's rule on s."""

    scope = "response"

    eps_low: float = MISSING  # in [0, 1]
    eps_high: float = MISSING  # ≥ 0

    def validate(self) -> None:
        self.check(0 <= self.eps_low <= 1, "eps_low", "choose a bound in [0, 1]")
        self.check(self.eps_high >= 0, "eps_high", "choose a bound of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        seq_ratio = geometric_mean(batch)
        weight = seq_ratio.expand_as(batch.ratio)
        keep = inside_clip(batch, weight, 1 - self.eps_low, 1 + self.eps_high)
        return Decision(weight, keep, {"seq_ratio": seq_ratio.squeeze(-1)})
