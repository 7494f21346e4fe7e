"""Measures whether the divergence of a response's first half predicts the spread of the log-ratio in its second half.

    S_h = Σ_{t ≤ h} D_t, h = ⌊T/2⌋      the summed divergence of the first half (CPPO's S without position weights)
    z   = Σ_{t > h} log ρ_t / √(T − h)   the second half's log-ratio, divided by √length to compare responses of any length

The suffix's ratio multiplies the gradient of the tokens after the prefix: where it spreads widely, few responses dominate.
All numbers are computed within one update.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.learning.learner import Decided, Update

MIN_RESPONSES = 8  # an update with fewer gives no metrics
ROUNDING = 1e-5  # divergence per token; below it the weights are those that sampled, and rounding orders the responses


@dataclass
class Halves:
    """Statistics of the halves of an update's learned responses with two tokens or more, [B]."""

    drift: Tensor  # S_T, of the whole response
    rate: Tensor  # S_h / h
    suffix: Tensor  # z
    suffix_kept: Tensor  # z over the tokens that the rule keeps

    @classmethod
    def of(cls, decided: list[Decided]) -> Halves:
        return cls(*(torch.cat(columns) for columns in zip(*map(halves, decided), strict=True)))


def halves(decided: Decided) -> tuple[Tensor, ...]:
    batch, lengths = decided.batch, decided.batch.lengths
    middle = lengths // 2
    second = batch.mask & (batch.positions > middle)
    divergence = batch.masked(decided.divergence)
    root = (lengths - middle).clamp(min=1).sqrt()
    log_ratio = batch.log_ratio * second
    columns = (
        divergence.sum(-1, keepdim=True),
        (divergence * ~second).sum(-1, keepdim=True) / middle.clamp(min=1),
        log_ratio.sum(-1, keepdim=True) / root,
        (log_ratio * decided.decision.keep).sum(-1, keepdim=True) / root,
    )
    return tuple(column[lengths > 1].double() for column in columns)


def prefix_metrics(updates: list[Update]) -> dict[str, float]:
    """The prefix/* metrics: means over the step's updates, except those with few responses or at the weights that sampled."""
    rows = [metrics for update in updates if update.decided and (metrics := update_metrics(Halves.of(update.decided)))]
    return {key: sum(row[key] for row in rows) / len(rows) for key in (rows[0] if rows else ())}


def update_metrics(halves: Halves) -> dict[str, float]:
    if len(halves.rate) < MIN_RESPONSES or halves.rate.max() < ROUNDING:
        return {}
    order = halves.rate.argsort(stable=True)
    half = len(order) // 2
    return {
        "prefix/drift": halves.drift.mean().item(),
        "prefix/suffix_spread": halves.suffix.std().item(),
        "prefix/suffix_spread_kept": halves.suffix_kept.std().item(),
        "prefix/suffix_spread_calm": halves.suffix[order[:half]].std().item(),
        "prefix/suffix_spread_drifted": halves.suffix[order[-half:]].std().item(),
        "prefix/rank_correlation": rank_correlation(halves.rate, halves.suffix.abs()),
    }


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Spearman's rank correlation, ties ranked in order of appearance; 0 if x or y is constant, where that order would decide."""
    if x.min() == x.max() or y.min() == y.max():
        return 0.0
    ranks = [values.argsort(stable=True).argsort().double() for values in (x, y)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()
