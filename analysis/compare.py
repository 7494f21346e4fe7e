"""Compares the methods of a comparison group: means, pairwise differences, ranks, and which methods can be told apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from analysis.pairs import Difference, Spread, difference
from analysis.scores import GroupScores
from analysis.stats import ALPHA, ROUNDING, Interval, hierarchical_bootstrap, holm, interval, problem_terms, rank_bounds

BOOTSTRAP_SEED = 20260610


@dataclass(frozen=True)
class Contrast:
    """The difference one − other. The interval of `alone` holds for this pair; that of `together`, by which `told_apart` is
    decided, holds for all pairs of the comparison at once. `p_holm`: Holm's correction of the p-values of `alone`."""

    one: str
    other: str
    together: Difference
    p_holm: float

    @property
    def alone(self) -> Difference:
        return self.together.alone

    @property
    def told_apart(self) -> bool:
        return self.together.p_value < ALPHA

    @property
    def reversed(self) -> Contrast:
        return Contrast(self.other, self.one, self.together.reversed, self.p_holm)


@dataclass(frozen=True)
class Comparison:
    """One group under one selection rule. Scores and intervals in [0, 1]; methods without a scored run are absent."""

    group: GroupScores
    rule: str
    scores_SP: dict[str, np.ndarray]
    means: dict[str, Interval]  # over seeds, on these problems
    contrasts: list[Contrast]  # all pairs
    ranks: dict[str, tuple[int, int]]

    @property
    def by_mean(self) -> list[str]:
        """Methods from the highest mean to the lowest; those with equal means keep the order of `means`."""
        return sorted(self.means, key=lambda name: -self.means[name].estimate)

    @property
    def best(self) -> str | None:
        return next(iter(self.by_mean), None)

    @cached_property
    def bootstrap_means(self) -> dict[str, np.ndarray]:
        """Bootstrap means [resamples] of each method, for the columns "plain bootstrap" of the tables."""
        draw = lambda i, name: hierarchical_bootstrap(
            self.scores_SP[name], self.group.num_samples(name, self.rule), self.group.benchmark_P, BOOTSTRAP_SEED, i
        )
        return {name: draw(i, name) for i, name in enumerate(self.means)}

    def contrast(self, one: str, other: str) -> Contrast:
        """The difference one − other, whichever way round it is stored."""
        stored = next(c for c in self.contrasts if {c.one, c.other} == {one, other})
        return stored if stored.one == one else stored.reversed

    @property
    def not_told_from_best(self) -> list[str]:
        return [name for name in self.by_mean[1:] if not self.contrast(name, self.best).told_apart]

    @property
    def leaders(self) -> list[str]:
        """The best and all that cannot be told apart from it."""
        return [self.best, *self.not_told_from_best] if self.means else []


def compare(group: GroupScores, rule: str, methods: list[str]) -> Comparison:
    """All pairs of those `methods` that have scores, under a selection rule."""
    names = [name for name in methods if name in group.scored]
    scores = {name: group.selected(name, rule) for name in names}
    means = {name: interval([scores[name]], group.benchmark_P) for name in names}
    contrasts = all_pairs(group, scores)
    better = {}
    for c in contrasts:
        winner, loser = (c.one, c.other) if c.together.estimate > 0 else (c.other, c.one)
        better[winner, loser] = c.told_apart
    return Comparison(group, rule, scores, means, contrasts, rank_bounds(names, better))


def all_pairs(group: GroupScores, scores_SP: dict[str, np.ndarray]) -> list[Contrast]:
    seeds = {name: group.methods[name].seeds for name in scores_SP}
    pairs = list(combinations(scores_SP, 2))
    gaps = [difference(scores_SP[one], scores_SP[other], (seeds[one], seeds[other]), group.benchmark_P) for one, other in pairs]
    adjusted = holm([gap.p_value for gap in gaps])
    return [
        Contrast(one, other, replace(gap, num_means=len(scores_SP)), p_holm)
        for (one, other), gap, p_holm in zip(pairs, gaps, adjusted, strict=True)
    ]


def uncollapsed_methods(comparison: Comparison) -> list[str]:
    """Scored methods none of whose runs collapsed: their spread is what more seeds would average out."""
    return [name for name in comparison.means if not comparison.group.methods[name].collapsed]


def pooled_spread(comparison: Comparison) -> Spread | None:
    """Spread of runs over seeds, pooled over the methods without a collapse that have two runs or more.

    The correlation is the mean covariance of two methods with equal seeds over the pooled variance, clipped to [0, 0.95].
    None if no method has two such runs, or if no two runs of a method differ.
    """
    names = [name for name in uncollapsed_methods(comparison) if len(comparison.scores_SP[name]) > 1]
    if not names:
        return None
    summaries = {name: comparison.group.summary(comparison.scores_SP[name]) for name in names}
    freedom = sum(len(s) - 1 for s in summaries.values())
    variance = sum(s.var(ddof=1) * (len(s) - 1) for s in summaries.values()) / freedom
    if variance < ROUNDING**2:
        return None
    products = [
        np.cov(summaries[one], summaries[other])[0, 1]
        for one, other in combinations(names, 2)
        if comparison.group.methods[one].seeds == comparison.group.methods[other].seeds
    ]
    correlation = np.mean(products) / variance if products else 0.0
    return Spread(float(variance**0.5), float(np.clip(correlation, 0, 0.95)), problem_variance(comparison, names))


def problem_variance(comparison: Comparison, names: list[str]) -> float:
    """Variance that drawing the problems adds to the difference of two of these methods, mean over their pairs; 0 without one."""
    pairs = [[comparison.scores_SP[name] for name in pair] for pair in combinations(names, 2)]
    added = [sum(value for value, _ in problem_terms(pair, comparison.group.benchmark_P)) for pair in pairs]
    return float(np.mean(added)) if added else 0.0
