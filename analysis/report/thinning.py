"""Prepares curves for the page: fewer points with the extremes kept, and numbers that JSON can hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MOST_POINTS = 600_000  # of all curves of all runs together: about 8 MB of the page
DIGITS = 6  # significant


def points_per_curve(num_curves: int) -> int:
    """Points that each of `num_curves` curves may have: its share of MOST_POINTS, but between 60 and 1,000."""
    return int(np.clip(MOST_POINTS // max(1, num_curves), 60, 1000))


def thinned(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The curve with `most` points or little more: the lowest and the highest of each of most / 2 stretches, and both ends."""
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most // 2 + 1).astype(int)
    stretches = list(zip(edges, edges[1:], strict=False))
    lowest = [start + int(np.argmin(y[start:end])) for start, end in stretches]
    highest = [start + int(np.argmax(y[start:end])) for start, end in stretches]
    kept = np.unique([0, *lowest, *highest, len(x) - 1])
    return x[kept], y[kept]


def numbers(values: Iterable) -> list:
    """Numbers to 6 significant digits, whole ones as integers, and None for those that are not finite."""
    return [number(float(value)) for value in values]


def number(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.{DIGITS}g}")
