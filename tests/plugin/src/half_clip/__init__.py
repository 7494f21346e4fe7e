"""Half clip, an example: PPO's rule, with the gradient of a clipped token halved instead of dropped.

weight = ρ;  keep = 1 inside the region, `share` outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import Decision, Rule, TokenBatch, inside_clip


@dataclass
class HalfClip(Rule):
    """Half clip: weight ρ, tokens outside [1 − ε, 1 + ε] on the outward side kept by a share."""

    eps: float = 0.2  # in [0, 1]
    share: float = 0.5  # in [0, 1]

    def validate(self) -> None:
        self.check(0 <= self.eps <= 1, "eps", "choose a bound in [0, 1]")
        self.check(0 <= self.share <= 1, "share", "choose a share in [0, 1]")

    def __call__(self, batch: TokenBatch) -> Decision:
        inside = inside_clip(batch, batch.ratio, 1 - self.eps, 1 + self.eps)
        return Decision(batch.ratio, batch.by_sign(inside, 1.0, self.share))
