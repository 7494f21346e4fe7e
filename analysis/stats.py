"""Statistics of a few seeds, as pure functions of arrays. Random ones take a seed or a generator.

Axes: S seeds, P problems, R runs, M methods. Scores are per run and problem, in [0, 1] or differences of such.
Strata: an index per problem (its benchmark); the estimate is the mean over strata of the mean over their problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.distributions import t_quantile, t_two_sided

LEVEL = 0.95
ALPHA = 0.05  # 1 − LEVEL, without that subtraction's rounding
ROUNDING = 1e-12  # rounding error of means of scores in [0, 1]


@dataclass(frozen=True)
class Interval:
    """Estimate, standard error and degrees of freedom of Student's t. From a single run df is 0 and the bounds are nan."""

    estimate: float
    se: float
    df: float

    def half_width_at(self, alpha: float) -> float:
        return self.se * t_quantile(1 - alpha / 2, self.df) if self.df else float("nan")

    @property
    def half_width(self) -> float:
        return self.half_width_at(ALPHA)

    @property
    def low(self) -> float:
        return self.estimate - self.half_width

    @property
    def high(self) -> float:
        return self.estimate + self.half_width

    @property
    def p_value(self) -> float:
        """Two-sided p-value against zero. 1 if df is 0. Where the seeds do not differ at all: 1 if the estimate is 0, else 0."""
        if not self.df:
            return 1.0
        if self.se == 0:
            return float(self.estimate == 0)
        return t_two_sided(self.estimate / self.se, self.df)

    @property
    def reversed(self) -> Interval:
        return replace(self, estimate=exact(-self.estimate))  # 0 stays 0: −0 would be shown as a loss


def stratum_weights(strata_P: np.ndarray) -> np.ndarray:
    """Weights [P] with sum 1: every stratum counts alike, and every problem inside one."""
    counts = np.bincount(strata_P)
    return 1.0 / (np.count_nonzero(counts) * counts[strata_P])


def interval(samples: Sequence[np.ndarray], strata_P: np.ndarray, problems: str = "fixed") -> Interval:
    """Interval of mean(samples[0]) − mean(samples[1]), or of mean(samples[0]) alone; samples are [S, P] arrays.

    Seeds are random effects. With problems="fixed" the interval is about these problems only: Student's t over the runs'
    summaries (Welch's for two samples). With "crossed" problems too are drawn from a larger set: the variance of the problem
    effects is added (two-way random effects, seeds crossed with problems, within strata), and the degrees of freedom are
    Satterthwaite's. For differences paired by seed and problem, give one sample: the differences.
    """
    weights_P = stratum_weights(strata_P)
    sign = (1.0, -1.0)
    means = [scores @ weights_P for scores in samples]
    estimate = float(sum(s * m.mean() for s, m in zip(sign, means, strict=False)))
    if any(len(m) < 2 for m in means):
        return Interval(exact(estimate), float("nan"), 0.0)
    terms = [(m.var(ddof=1) / len(m), len(m) - 1) for m in means]
    if problems == "crossed":
        terms += problem_terms(samples, strata_P)
    # negative terms can push Satterthwaite's df below that of the sample with the fewest seeds, where it has no meaning
    df = max(satterthwaite(terms), min(len(m) for m in means) - 1)
    return Interval(exact(estimate), exact(float(np.sqrt(sum(value for value, _ in terms)))), df)


def exact(value: float) -> float:
    """The value, or 0.0 if it is no more than rounding: equal mean scores of three and of four seeds must not differ."""
    return 0.0 if abs(value) < ROUNDING else value


def problem_terms(samples: Sequence[np.ndarray], strata_P: np.ndarray) -> list[tuple[float, float]]:
    """Terms (variance, df) that drawing the problems adds to the variance of the mean. One of K strata, with n problems, adds

        Var(problem effects) / (K² n) − Σ over samples of residual variance / (S K² n):

    the second term is the noise that the problem effects, means over S seeds, still contain. Empty if the sum over the strata
    is not above 0: then the problems differ by no more than noise.
    """
    num_strata = len(np.unique(strata_P))
    terms = []
    for k in np.unique(strata_P):
        parts = [scores[:, strata_P == k] for scores in samples]
        size = parts[0].shape[1]
        if size < 2:
            continue
        scale = 1.0 / (num_strata**2 * size)
        effects_P = parts[0].mean(0) - sum(part.mean(0) for part in parts[1:])
        terms.append((scale * effects_P.var(ddof=1), size - 1))
        terms += [(-scale * residual_variance(part) / len(part), (size - 1) * (len(part) - 1)) for part in parts]
    return terms if sum(value for value, _ in terms) > 0 else []


def residual_variance(scores_SP: np.ndarray) -> float:
    """Mean square of the residuals after the means of seeds and of problems are taken off (two-way analysis of variance)."""
    num_seeds, num_problems = scores_SP.shape
    residual = scores_SP - scores_SP.mean(0) - scores_SP.mean(1, keepdims=True) + scores_SP.mean()
    return float((residual**2).sum() / ((num_seeds - 1) * (num_problems - 1)))


def satterthwaite(terms: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variance estimates (v, df): (Σ v)² / Σ (v² / df)."""
    total, spread = sum(value for value, _ in terms), sum(value**2 / df for value, df in terms)
    return float(total**2 / spread) if spread > 0 else terms[0][1]


def prediction_half_width(interval: Interval, num_seeds: int, num_new: int) -> float:
    """Half-width for the mean of n = `num_new` further seeds: t · s · sqrt(1/S + 1/n), from the interval over S seeds."""
    return interval.half_width * float(np.sqrt(1 + num_seeds / num_new))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def iqm(scores: np.ndarray) -> float:
    """Interquartile mean: the mean of the middle half, a quarter of the values (rounded down) cut at each end."""
    flat = np.sort(np.ravel(scores))
    cut = len(flat) // 4
    return float(flat[cut : len(flat) - cut].mean())


def probability_of_improvement(one_SK: np.ndarray, other_SK: np.ndarray) -> float:
    """P(a run of one beats a run of the other), averaged over benchmarks; a tie counts half. For each it is Mann-Whitney's
    U / (n m)."""
    gaps = one_SK[:, None] - other_SK[None]
    return float(np.mean((gaps > ROUNDING) + 0.5 * (abs(gaps) <= ROUNDING)))


def rank_bounds(names: Sequence[str], better: dict[tuple[str, str], bool]) -> dict[str, tuple[int, int]]:
    """Simultaneous intervals (best rank, worst rank) from corrected pairwise tests. better[a, b]: a is known to beat b."""
    wins = {name: sum(better.get((name, other), False) for other in names) for name in names}
    losses = {name: sum(better.get((other, name), False) for other in names) for name in names}
    return {name: (1 + losses[name], len(names) - wins[name]) for name in names}


def hierarchical_bootstrap(
    scores_SP: np.ndarray, num_samples_SP: np.ndarray, strata_P: np.ndarray, seed: int, method: int = 0, resamples: int = 2000
) -> np.ndarray:
    """[resamples] means under resampling of seeds, then problems within strata, then samples.

    Rows are drawn with replacement as counts of how often each one comes, so that all resamples are two matrix products.
    Sampling enters as normal noise with the binomial's variance, drawn independently for each `method` (a number). With equal
    `seed`, two methods get the same draws of problems, and of seeds where both have equally many: in this their resamples are
    paired. This plain bootstrap is too narrow for few seeds (docs/analysis.md); it is reported for reference only.
    """
    num_seeds = len(scores_SP)
    draws, noise = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1, method])
    seeds_BS = draw_counts(num_seeds, resamples, np.random.default_rng([seed, 2])) / num_seeds
    problems_BP = np.empty((resamples, len(strata_P)))
    for k in np.unique(strata_P):
        problems_BP[:, strata_P == k] = draw_counts(int((strata_P == k).sum()), resamples, draws)
    weights_P = stratum_weights(strata_P)
    means = ((seeds_BS @ scores_SP) * problems_BP) @ weights_P
    variances_SP = np.clip(scores_SP * (1 - scores_SP), 0, None) / num_samples_SP
    variances = ((seeds_BS @ variances_SP) * problems_BP) @ weights_P**2 / num_seeds
    return means + np.sqrt(variances) * noise.standard_normal(resamples)


def draw_counts(size: int, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """[resamples, size]: how often each of `size` items comes when `size` items are drawn with replacement."""
    drawn = generator.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size)


def percentile_interval(means: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    return tuple(float(q) for q in np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))
