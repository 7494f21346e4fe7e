"""Tests whether one method is better than another: the only such test of tables, figures and the verdict, and its power."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from analysis.distributions import normal_cdf, range_quantile, range_upper, t_quantile
from analysis.stats import ALPHA, Interval, interval

MIN_PAIRED = 3  # seeds that a paired test needs: two would leave one degree of freedom
# Where both tests are made, each is made at this share of ALPHA, 3 %. By Bonferroni one of them errs in at most 6 % of cases;
# since they often agree, one errs in fewer than 5 % of simulated cases (docs/analysis.md).
SHARE = 0.6


@dataclass(frozen=True)
class Difference:
    """mean(one) − mean(other) and its interval, by Welch's t and, where both have the same seeds, by a test paired by seed.

    If both tests are made, each is made at 3 %, and the narrower interval counts. The paired interval is narrower where runs
    with the same seed number move together (common random numbers), Welch's where they do not or where seeds are few.

    `num_means`: number of methods that are compared. Interval and p-value hold for all pairs of them at once: by the studentised
    range for Welch (Games and Howell), by Bonferroni for paired.
    """

    welch: Interval
    paired: Interval | None
    num_means: int = 2

    @property
    def estimate(self) -> float:
        return self.welch.estimate

    @property
    def known(self) -> bool:
        """False if one of the methods has a single seed: then there is no interval."""
        return self.welch.df > 0

    @property
    def share(self) -> float:
        """The share of ALPHA at which each test is made: 1, or SHARE if there are two tests."""
        return 1.0 if self.paired is None else SHARE

    @property
    def num_pairs(self) -> int:
        return self.num_means * (self.num_means - 1) // 2

    @property
    def half_widths(self) -> dict[str, float]:
        """Half the width of the interval by each test; nan if there is no interval."""
        if not self.known:
            return {"Welch": float("nan")}
        alpha = ALPHA * self.share
        if self.num_means == 2:
            widths = {"Welch": self.welch.half_width_at(alpha)}
        else:
            widths = {"Welch": self.welch.se * range_quantile(1 - alpha, self.num_means, self.welch.df) / 2**0.5}
        return widths if self.paired is None else widths | {"paired": self.paired.half_width_at(alpha / self.num_pairs)}

    @property
    def decided_by(self) -> str:
        """The test whose interval counts: "Welch" or "paired"."""
        return min(self.half_widths, key=self.half_widths.get)

    @property
    def low(self) -> float:
        return self.estimate - min(self.half_widths.values())

    @property
    def high(self) -> float:
        return self.estimate + min(self.half_widths.values())

    @property
    def p_value(self) -> float:
        """Two-sided p-value against zero; below 5 % if and only if the interval does not contain zero."""
        p_values = [self.welch.p_value if self.num_means == 2 else range_p(self.welch, self.num_means)]
        if self.paired is not None:
            p_values.append(self.num_pairs * self.paired.p_value)
        return min(1.0, min(p_values) / self.share)

    @property
    def alone(self) -> Difference:
        """The same difference as if these two methods were the only ones."""
        return replace(self, num_means=2)

    @property
    def reversed(self) -> Difference:
        return replace(self, welch=self.welch.reversed, paired=self.paired and self.paired.reversed)


def range_p(welch: Interval, num_means: int) -> float:
    """p-value for all pairs together: the probability that the largest standardised difference among equal means is this large
    (Games and Howell)."""
    if not welch.df or welch.se == 0:
        return welch.p_value
    return range_upper(2**0.5 * abs(welch.estimate) / welch.se, num_means, welch.df)


def difference(
    one: np.ndarray, other: np.ndarray, seeds: tuple[list[int], list[int]], strata_P: np.ndarray, problems: str = "crossed"
) -> Difference:
    """The difference one − other, taken problem by problem. Scores are [S, P]; `seeds`: the seeds of the rows of both."""
    welch, order = interval([one, other], strata_P, problems), pairing(*seeds)
    paired = None if order is None else interval([one - other[order]], strata_P, problems)
    return Difference(welch, paired)


def pairing(one: list[int], other: list[int]) -> list[int] | None:
    """Rows of `other` in the order of the seeds of `one`; None unless both have the same seeds, each once, and at least
    MIN_PAIRED of them."""
    if len(one) < MIN_PAIRED or len(set(one)) < len(one) or sorted(one) != sorted(other):
        return None
    return [other.index(seed) for seed in one]


@dataclass(frozen=True)
class Spread:
    """Variation between runs: sd of a run's summary over seeds, its correlation between two methods at one seed number, and the
    variance that drawing the problems adds to a difference of two methods, which more seeds do not lower."""

    sd: float
    correlation: float = 0.0
    problems: float = 0.0

    def of_difference(self, num_seeds: int) -> float:
        """Variance of the difference of two methods' means, without that of the problems."""
        return 2 * (1 - self.correlation) * self.sd**2 / num_seeds


def power_of_pair(true_difference: float, spread: Spread, num_seeds: int) -> float:
    """Probability that a single comparison tells apart two methods with this true difference and this many seeds each."""
    if num_seeds < 2:
        return 0.0
    of_seeds = spread.of_difference(num_seeds)
    bounds = power_bounds(num_seeds, round(spread.correlation, 2), spread.problems / of_seeds)
    shift = true_difference / (of_seeds + spread.problems) ** 0.5
    return float((normal_cdf(shift - bounds) + normal_cdf(-shift - bounds)).mean())


@lru_cache
def power_bounds(num_seeds: int, correlation: float, problems: float, num_draws: int = 4000) -> np.ndarray:
    """Bounds [num_draws] that an observed difference must exceed to be told apart, in units of its true standard error.

    Each bound belongs to one draw of the seeds' observed spreads. Above 60 seeds it is one bound, [1]. `problems`: the problems'
    variance over the seeds'; it is taken as known, since there are many more problems than seeds.
    """
    share = 1.0 if num_seeds < MIN_PAIRED else SHARE
    critical = lambda df: t_quantile(1 - ALPHA * share / 2, float(df))
    if num_seeds > 60:  # the observed spreads are close to the true ones, and pairing is never worse than Welch
        return np.array([critical(num_seeds - 1)])
    common, one, other = np.random.default_rng(num_seeds).standard_normal((3, num_draws, num_seeds))
    one, other = (correlation**0.5 * common + (1 - correlation) ** 0.5 * single for single in (one, other))
    of_seeds = Spread(1.0, correlation).of_difference(num_seeds)
    grid = np.linspace(1e-4, 1 / (num_seeds - 1), 200)  # of 1 / df
    criticals = [critical(1 / point) for point in grid]

    def bound(*parts: np.ndarray) -> np.ndarray:
        """Of a test with the variance of the problems plus these parts, which have num_seeds − 1 degrees of freedom each."""
        variance = sum(parts) + problems * of_seeds
        inverse_df = sum(part**2 for part in parts) / variance**2 / (num_seeds - 1)
        return np.interp(inverse_df, grid, criticals) * np.sqrt(variance)

    bounds = bound(*(sample.var(1, ddof=1) / num_seeds for sample in (one, other)))
    if num_seeds >= MIN_PAIRED:
        bounds = np.minimum(bounds, bound((one - other).var(1, ddof=1) / num_seeds))
    return bounds / (of_seeds * (1 + problems)) ** 0.5


def num_seeds_needed(true_difference: float, spread: Spread, power: float = 0.8, most: int = 10_000) -> int | None:
    """Fewest seeds for each method with which a true difference is found with probability `power`; None if more than `most`."""
    if spread.sd <= 0:
        return 2
    return fewest(lambda n: power_of_pair(true_difference, spread, n) >= power, most)


def fewest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest number from 2 on that is enough, by bisection: all larger ones must be enough too. None if `most` is not."""
    low, high = 1, 2
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable_difference(num_seeds: int, spread: Spread, power: float = 0.8) -> float:
    """The true difference that is found with probability `power` by this many seeds for each method; nan for one seed."""
    if num_seeds < 2:
        return float("nan")
    low, high = 0.0, 100.0  # in standard deviations of a run
    unit = replace(spread, sd=1.0, problems=spread.problems / spread.sd**2)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of_pair(middle, unit, num_seeds) < power else (low, middle)
    return high * spread.sd
