"""Differences between cells: between all pairs of a family, between a rule's tuned and published settings, and in collapses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.distributions import t_quantile
from analysis.exact import fisher_exact
from analysis.pairs import fewest, pairing
from analysis.stats import ALPHA, Interval, holm
from analysis.study.cells import Family, StudyCell, of_samples
from analysis.study.protocol import METRICS

POWER = 0.8


@dataclass(frozen=True, eq=False)
class Pair:
    """mean(one) − mean(other) of one metric over seeds. `gap` has Welch's interval for this pair alone; `half_width`, `low` and
    `high` are those at level 1 − ALPHA / num_pairs, so that the intervals of all `num_pairs` pairs hold together (Bonferroni)."""

    family: Family
    metric: str
    one: str
    other: str
    gap: Interval
    num_pairs: int

    @property
    def half_width(self) -> float:
        return self.gap.half_width_at(ALPHA / self.num_pairs)

    @property
    def low(self) -> float:
        return self.gap.estimate - self.half_width

    @property
    def high(self) -> float:
        return self.gap.estimate + self.half_width

    @property
    def verdict(self) -> str:
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "cannot be told apart"

    @property
    def told_apart(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def cells(self) -> tuple[StudyCell, StudyCell]:
        return self.family.cells[self.one], self.family.cells[self.other]

    @property
    def run_ids(self) -> list[str]:
        one, other = self.cells
        return one.run_ids + other.run_ids

    @property
    def seeds_needed(self) -> int | None:
        """Seeds that each cell needs so that a true difference of the observed size is found with probability 0.8 at level
        ALPHA / num_pairs; None where `seeds_needed` is."""
        return seeds_needed(*(cell.values[self.metric] for cell in self.cells), ALPHA / self.num_pairs)


def pairs(family: Family, metric: str) -> list[Pair]:
    """All pairs of the family's cells, in their order."""
    names = list(combinations(family.cells, 2))
    values = {rule: cell.values[metric] for rule, cell in family.cells.items()}
    return [Pair(family, metric, a, b, of_samples(values[a], values[b]), len(names)) for a, b in names]


def seeds_needed(one: np.ndarray, other: np.ndarray, alpha: float, most: int = 10_000) -> int | None:
    """Fewest n with |difference| ≥ (t_{1−α/2} + t_{0.8}) · sqrt((s₁² + s₂²) / n) at Welch's degrees of freedom for n seeds each.

    The difference of the means and the sds s₁, s₂ are those of the samples. None if a sample has fewer than two values, if the
    means are equal, or if n > `most`.
    """
    gap = abs(float(one.mean() - other.mean()))
    if min(len(one), len(other)) < 2 or gap == 0:
        return None
    a, b = float(one.var(ddof=1)), float(other.var(ddof=1))
    if a + b == 0:
        return 2

    def enough(n: int) -> bool:
        df = (n - 1) * (a + b) ** 2 / (a**2 + b**2)
        return gap >= (t_quantile(1 - alpha / 2, df) + t_quantile(POWER, df)) * ((a + b) / n) ** 0.5

    return fewest(enough, most)


@dataclass(frozen=True, eq=False)
class Tuned:
    """Tuned − published of one rule in one metric, paired by seed. `gap` is None if fewer than three seeds are common."""

    rule: str
    metric: str
    gap: Interval | None
    p_holm: float  # Holm's correction over the rules; 1 without a gap


def tuned_gaps(published: Family, tuned: Family, metric: str) -> dict[str, Tuned]:
    """{rule: tuned − published} for the rules whose tuned setting differs from the published one."""
    changed = [rule for rule in published.cells if rule in tuned.cells and not same_runs(published, tuned, rule)]
    gaps = {rule: paired(tuned.cells[rule], published.cells[rule], metric) for rule in changed}
    adjusted = holm([gap.p_value if gap else 1.0 for gap in gaps.values()])
    return {rule: Tuned(rule, metric, gap, p) for (rule, gap), p in zip(gaps.items(), adjusted, strict=True)}


def same_runs(one: Family, other: Family, rule: str) -> bool:
    return one.cells[rule].run_ids == other.cells[rule].run_ids


def paired(one: StudyCell, other: StudyCell, metric: str) -> Interval | None:
    """Mean of one − other over the seeds that both cells have, Student's t; None if these are fewer than three."""
    common = [seed for seed in one.seeds if seed in other.seeds]
    order = pairing(common, common)
    if order is None:
        return None
    values = [np.array([cell.values[metric][cell.seeds.index(seed)] for seed in common]) for cell in (one, other)]
    return of_samples(values[0] - values[1])


@dataclass(frozen=True, eq=False)
class CollapsePair:
    """Fisher's exact test that two cells have the same share of collapsed runs: p alone, and Holm's over the family."""

    family: Family
    one: str
    other: str
    p: float
    p_holm: float


def collapse_pairs(family: Family) -> list[CollapsePair]:
    """All pairs of the family's cells, in their order."""
    names = list(combinations(family.cells, 2))
    counts = {rule: (cell.num_collapsed, len(cell)) for rule, cell in family.cells.items()}
    p_values = [fisher_exact(*counts[a], *counts[b]) for a, b in names]
    return [CollapsePair(family, a, b, p, q) for (a, b), p, q in zip(names, p_values, holm(p_values), strict=True)]


def all_pairs(families: list[Family]) -> list[Pair]:
    return [pair for family in families for metric in METRICS for pair in pairs(family, metric)]
