"""Metrics of n graded samples a problem, from stored counts alone. Plain Python and numpy; no heavy import.

n samples of a problem, c of them correct. A score over problems is the plain mean of the problems' scores.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def avg_at_k(n: int, c: int) -> float:
    """Avg@k with k = n: the mean accuracy of the samples, c / n."""
    _check(n, c, 1)
    return c / n


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of k samples drawn without replacement is correct: 1 − C(n−c, k) / C(n, k), unbiased.

    As a product of ratios below 1 (Chen et al., arXiv 2107.03374), since the binomials overflow.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    _check(n, c, k)
    return 1.0 - _none_of(n, n - c, k)


def pass_hat_k(n: int, c: int, k: int) -> float:
    """pass^k: the chance that all k samples drawn without replacement are correct, C(c, k) / C(n, k), unbiased.

    >>> pass_hat_k(4, 2, 2)
    0.16666666666666666
    """
    _check(n, c, k)
    return _none_of(n, c, k)


def _none_of(n: int, size: int, k: int) -> float:
    """C(size, k) / C(n, k): all k draws out of n fall into a part of that size."""
    return math.prod((size - i) / (n - i) for i in range(k)) if k <= size else 0.0


def maj_at_k(counts: Mapping[str | None, int], correct: str | None, k: int | None = None) -> float:
    """Chance that the most frequent answer among the samples is the right one, ties broken evenly, in exact expectation.

    `counts` maps each extracted answer to its number of samples; under None stand those without an answer, which do not
    vote. `correct` is the answer that is right, None where no sample holds it. With `k`, the expectation is also taken over
    all k samples drawn without replacement from the n. Zero where nobody votes.

    >>> maj_at_k({"7": 2, "8": 2}, "7")
    0.5
    """
    votes = {answer: count for answer, count in counts.items() if answer is not None and count > 0}
    n = sum(votes.values()) + counts.get(None, 0)
    k = n if k is None else k
    _check(n, votes.get(correct, 0), k)
    right = votes.pop(correct, 0)
    chances = (math.comb(right, r) * _wins(votes.values(), counts.get(None, 0), r, k - r) for r in range(1, min(right, k) + 1))
    return float(sum(chances) / math.comb(n, k)) if right else 0.0


def _wins(rivals: Iterable[int], silent: int, top: int, rest: int):
    """Σ over ways to draw `rest` samples from rivals and silent ones, none above `top`, of 1 / (1 + rivals at `top`)."""
    from fractions import Fraction

    ways = {(0, 0): 1}  # (samples drawn, rivals at top) -> number of ways, exact integers
    for size in rivals:
        grown: Counter = Counter()
        for (drawn, ties), number in ways.items():
            for take in range(min(size, top, rest - drawn) + 1):
                grown[drawn + take, ties + (take == top)] += number * math.comb(size, take)
        ways = grown
    return sum(Fraction(number * math.comb(silent, rest - drawn), 1 + ties) for (drawn, ties), number in ways.items())


def mean_score(scores: Sequence[float]) -> float:
    """Mean over problems; an empty benchmark is an error, never a zero."""
    if not len(scores):
        raise ValueError("no problems to average over: the benchmark is empty")
    return float(np.mean(scores))


def summarise(rows: Sequence[Mapping], ks: Sequence[int] = ()) -> dict[str, float]:
    """Scores of one benchmark at one step from its rows of evals.jsonl (one a problem).

    Keys: `avg@n` with the n of the rows, `num_problems`, `pass@k` and `pass^k` for each of `ks`.
    """
    sizes = {row["n"] for row in rows}
    if len(sizes) != 1:
        raise ValueError(f"rows with {sorted(sizes) or 'no'} samples a problem: one benchmark at one step has one n")
    (n,) = sizes
    summary = {f"avg@{n}": mean_score([avg_at_k(n, row["num_correct"]) for row in rows]), "num_problems": len(rows)}
    for k in ks:
        summary[f"pass@{k}"] = mean_score([pass_at_k(n, row["num_correct"], k) for row in rows])
        summary[f"pass^{k}"] = mean_score([pass_hat_k(n, row["num_correct"], k) for row in rows])
    return summary


def length_quantiles(lengths: Sequence[int], levels: Sequence[float] = (0.1, 0.5, 0.9, 1.0)) -> dict[str, float]:
    """Quantiles of response lengths (tokens), linearly interpolated: {"p10": …, "p50": …, "p90": …, "p100": …}."""
    if not len(lengths):
        raise ValueError("no responses to take length quantiles of")
    return {f"p{level * 100:g}": float(value) for level, value in zip(levels, np.quantile(lengths, levels), strict=True)}


def _check(n: int, c: int, k: int) -> None:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"need 0 ≤ c ≤ n and 1 ≤ k ≤ n; got n = {n}, c = {c}, k = {k}")
