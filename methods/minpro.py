"""Minimum Prefix Ratio policy optimization (MinPRO), arXiv 2601.22718.

J = E[ sg(clip(m_t ρ_t, 1 − ε_low, 1 + ε_high)) A log π ],  m_t = min_{i<t} ρ_i (exclusive),  m_1 = 1.
The minimum runs over raw ratios, so m_t > 1 is possible. m_t is called `prefix_min` here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import MISSING, Decision, Rule, TokenBatch


@dataclass
class MinPRO(Rule):
    """Minimum Prefix Ratio PO: weight clip(m_t ρ_t, 1 − ε_low, 1 + ε_high), everything kept."""

    scope = "response"

    eps_low: float = MISSING  # ≥ 0; at 1 or more there is no lower bound
    eps_high: float = MISSING  # ≥ 0

    def validate(self) -> None:
        self.check(self.eps_low >= 0, "eps_low", "choose a bound of at least 0")
        self.check(self.eps_high >= 0, "eps_high", "choose a bound of at least 0")

    def __call__(self, batch: TokenBatch) -> Decision:
        prefix_min = minimum_before(batch)
        weight = (prefix_min * batch.ratio).clamp(1 - self.eps_low, 1 + self.eps_high)
        return Decision(weight, batch.mask, {"prefix_min": prefix_min})


def minimum_before(batch: TokenBatch) -> torch.Tensor:
    """[B, T] min_{i<t} ρ_i over valid tokens; 1 at the first valid token."""
    shifted = batch.masked(batch.ratio, torch.inf).roll(1, -1)
    shifted[:, 0] = torch.inf
    return torch.where(batch.positions > 1, shifted.cummin(-1).values, 1.0)
