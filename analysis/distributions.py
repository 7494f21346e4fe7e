"""Student's t and the normal distribution in plain numpy, so that the analysis needs no scipy. Tests compare with scipy."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

TINY = 1e-300


def beta_fraction(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Continued fraction of the incomplete beta function, modified Lentz (Numerical Recipes §6.4); needs x < (a+1)/(a+b+2)."""
    c = np.ones_like(x)
    d = 1.0 / np.where(np.abs(1 - (a + b) * x / (a + 1)) < TINY, TINY, 1 - (a + b) * x / (a + 1))
    value = d.copy()
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / np.where(np.abs(1 + term * d) < TINY, TINY, 1 + term * d)
            c = np.where(np.abs(1 + term / c) < TINY, TINY, 1 + term / c)
            value *= d * c
        if np.all(np.abs(d * c - 1) < 1e-14):
            break
    return value


def betainc(a, b, x) -> np.ndarray:
    """Regularised incomplete beta function I_x(a, b), elementwise."""
    a, b, x = np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float), np.asarray(x, float))
    swap = x > (a + 1) / (a + b + 2)
    p, q, y = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    log_gamma = np.vectorize(math.lgamma, otypes=[float])
    with np.errstate(divide="ignore"):
        front = np.exp(log_gamma(p + q) - log_gamma(p) - log_gamma(q) + p * np.log(y) + q * np.log1p(-y)) / p
    lower = front * beta_fraction(p, q, y)
    return np.where(swap, 1 - lower, lower)


def t_two_sided(t, df) -> np.ndarray:
    """P(|T| ≥ |t|) for Student's t; df may be fractional."""
    t, df = np.asarray(t, float), np.asarray(df, float)
    return betainc(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=4096)
def t_quantile(level: float, df: float) -> float:
    """t with P(T ≤ t) = level, for level in (0.5, 1); bisection."""
    low, high = 0.0, 1.0
    while t_two_sided(high, df) > 2 * (1 - level):
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, df) > 2 * (1 - level) else (low, middle)
    return (low + high) / 2


def normal_cdf(z) -> np.ndarray:
    return 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(np.asarray(z, float) / math.sqrt(2)))


def t_power(shift: float, df: float, level: float = 0.95) -> float:
    """P(|T'| > critical value), T' = noncentral t with noncentrality `shift`: the power of a two-sided t test.

    Conditional on the chi-square in the denominator the numerator is normal; that variable is summed over on a grid.
    """
    critical = t_quantile(0.5 + level / 2, df)
    spread = (np.arange(4000) + 0.5) / 4000 * (1 + 12 / math.sqrt(2 * df))  # sqrt(chi²/df), midpoints
    log_density = (df - 1) * np.log(spread) - df * spread**2 / 2
    density = np.exp(log_density - log_density.max())
    tail = normal_cdf(shift - critical * spread) + normal_cdf(-shift - critical * spread)
    return float((density * tail).sum() / density.sum())
