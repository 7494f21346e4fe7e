"""Student's t and the normal distribution, so that the analysis needs no scipy. Tests compare with scipy."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

TINY = 1e-300


def beta_fraction(a: float, b: float, x: float) -> float:
    """Continued fraction of the incomplete beta function by Lentz's method; converges fast for x < (a+1)/(a+b+2)."""
    bounded = lambda value: value if abs(value) > TINY else TINY
    c, d = 1.0, 1.0 / bounded(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / bounded(1 + term * d)
            c = bounded(1 + term / c)
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value


def betainc(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - betainc(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * beta_fraction(a, b, x) / a


def t_two_sided(t: float, df: float) -> float:
    """P(|T| ≥ |t|) for Student's t; df may be fractional."""
    return betainc(df / 2, 0.5, df / (df + t * t))


def t_density(t: float, df: float) -> float:
    log_constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(log_constant - (df + 1) / 2 * math.log1p(t * t / df))


@lru_cache(maxsize=4096)
def t_quantile(level: float, df: float) -> float:
    """t with P(T ≤ t) = level, for level in (0.5, 1).

    Newton's method from the normal quantile, which is below t. The cdf is concave there, so no step overshoots.
    """
    t = NormalDist().inv_cdf(level)
    for _ in range(200):
        step = (t_two_sided(t, df) / 2 - (1 - level)) / t_density(t, df)
        t += step
        if step <= 1e-13 * t:
            break
    return t


def normal_cdf(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.array([math.erf(value) for value in np.ravel(z) / math.sqrt(2)]).reshape(np.shape(z)))


def chi_grid(df: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of sqrt(chi²/df) at midpoints, and their probabilities."""
    spread = (np.arange(1000) + 0.5) / 1000 * (1 + 8 / math.sqrt(2 * df))
    log_density = (df - 1) * np.log(spread) - df * spread**2 / 2
    density = np.exp(log_density - log_density.max())
    return spread, density / density.sum()


@lru_cache
def normal_range_tail(num_means: int) -> tuple[np.ndarray, np.ndarray]:
    """(w, P(W > w)) on a grid of w, for the range W of M = num_means standard normals:

    P(W > w) = 1 − M ∫ φ(z) [Φ(z) − Φ(z − w)]^(M−1) dz
    """
    table = np.linspace(-9, 9, 9001)
    phi = normal_cdf(table)
    width = np.linspace(0, 14, 701)
    z = (np.arange(800) + 0.5) / 800 * 18 - 9
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    inside = np.interp(z, table, phi) - np.interp(z - width[:, None], table, phi)
    return width, np.clip(1 - num_means * (density * inside ** (num_means - 1)).sum(1), 0, 1)


def range_upper(q: float, num_means: int, df: float) -> float:
    """P(Q > q) for the studentised range of `num_means` means, as Tukey's and Games and Howell's comparisons use it."""
    spread, density = chi_grid(df)
    return float(density @ np.interp(q * spread, *normal_range_tail(num_means)))


@lru_cache(maxsize=4096)
def range_quantile(level: float, num_means: int, df: float) -> float:
    """q with P(Q ≤ q) = level; bisection."""
    low, high = 0.0, 8.0
    while range_upper(high, num_means, df) > 1 - level:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if range_upper(middle, num_means, df) > 1 - level else (low, middle)
    return high
