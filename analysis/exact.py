"""Exact tests and intervals of counts, without scipy. Tests compare with published values and with scipy."""

from __future__ import annotations

from math import comb

from analysis.distributions import betainc
from analysis.stats import ALPHA

EQUAL = 1 + 1e-9  # an outcome counts as equally likely as the observed one up to this factor, for rounding


def clopper_pearson(count: int, total: int, alpha: float = ALPHA) -> tuple[float, float]:
    """Exact interval of a share, each tail with a probability of alpha / 2 at most."""
    low = 0.0 if count == 0 else beta_quantile(alpha / 2, count, total - count + 1)
    high = 1.0 if count == total else beta_quantile(1 - alpha / 2, count + 1, total - count)
    return low, high


def beta_quantile(level: float, a: float, b: float) -> float:
    """x with I_x(a, b) = level; bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if betainc(a, b, middle) < level else (low, middle)
    return (low + high) / 2


def fisher_exact(count_one: int, total_one: int, count_other: int, total_other: int) -> float:
    """Two-sided p-value of Fisher's test that two shares are equal: the probability, given the margins, of all tables that are
    no more likely than the observed one."""
    both = count_one + count_other
    weights = {
        k: comb(total_one, k) * comb(total_other, both - k) for k in range(max(0, both - total_other), min(both, total_one) + 1)
    }
    return sum(weight for weight in weights.values() if weight <= weights[count_one]) / sum(weights.values())


def binomial_two_sided(count: int, total: int, share: float) -> float:
    """Two-sided p-value of a count out of `total` against `share`: the probability of all counts that are no more likely than
    the observed one."""
    chances = [comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(total + 1)]
    return min(1.0, sum(chance for chance in chances if chance <= chances[count] * EQUAL))
