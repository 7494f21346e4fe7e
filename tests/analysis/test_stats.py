"""Statistics against scipy, closed forms and hand-worked cases."""

from functools import partial

import numpy as np
import pytest
import scipy.stats

from analysis import stats
from analysis.distributions import betainc, range_quantile, range_upper, t_quantile, t_two_sided
from analysis.scores import best_step

ONE = np.zeros(6, dtype=int)  # six problems, one benchmark


def scores(seed: int, num_seeds: int, num_problems: int = 6) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return 0.5 + 0.1 * generator.standard_normal((num_seeds, 1)) + 0.2 * generator.standard_normal((num_seeds, num_problems))


@pytest.mark.parametrize("df", [1, 2, 3.7, 10, 250])
def test_student_against_scipy(df):
    assert t_quantile(0.975, df) == pytest.approx(scipy.stats.t.ppf(0.975, df), rel=1e-10)
    for t in (0.0, 0.3, 2.3, 40.0):
        assert t_two_sided(t, df) == pytest.approx(2 * scipy.stats.t.sf(t, df), rel=1e-9)


@pytest.mark.parametrize(("num_means", "df"), [(2, 4), (3, 2), (7, 9), (5, 2.7)])
def test_studentised_range_against_scipy(num_means, df):
    for q in (1.0, 4.0, 12.0):
        assert range_upper(q, num_means, df) == pytest.approx(scipy.stats.studentized_range.sf(q, num_means, df), abs=2e-5)
    assert range_quantile(0.95, num_means, df) == pytest.approx(scipy.stats.studentized_range.ppf(0.95, num_means, df), rel=1e-4)


def test_betainc_against_scipy():
    for a, b, x in [(0.5, 0.5, 0.1), (30, 0.5, 0.99), (2, 7, 0.5), (1, 1, 0.0), (1, 1, 1.0)]:
        assert betainc(a, b, x) == pytest.approx(scipy.special.betainc(a, b, x), rel=1e-12)


def test_one_sample_is_student(num_seeds=5):
    sample = scores(0, num_seeds)
    result = stats.interval([sample], ONE)
    low, high = scipy.stats.t.interval(0.95, num_seeds - 1, sample.mean(1).mean(), scipy.stats.sem(sample.mean(1)))
    assert (result.low, result.high) == pytest.approx((low, high))


def test_two_samples_are_welch():
    one, other = scores(1, 3), scores(2, 4)
    result = stats.interval([one, other], ONE)
    reference = scipy.stats.ttest_ind(one.mean(1), other.mean(1), equal_var=False)
    assert result.p_value == pytest.approx(reference.pvalue)
    assert (result.low, result.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_crossed_variance_is_that_of_the_two_way_table():
    """Closed form for one stratum: (MS_seeds + MS_problems − MS_residual) / (S P)."""
    sample = scores(5, 4) + np.linspace(-0.5, 0.5, 6)
    num_seeds, num_problems = sample.shape
    seeds = num_problems * sample.mean(1).var(ddof=1)
    problems = num_seeds * sample.mean(0).var(ddof=1)
    rest = sample - sample.mean(0) - sample.mean(1, keepdims=True) + sample.mean()
    residual = (rest**2).sum() / ((num_seeds - 1) * (num_problems - 1))
    result = stats.interval([sample], ONE, "crossed")
    assert result.se**2 == pytest.approx((seeds + problems - residual) / (num_seeds * num_problems))
    parts = [(seeds, num_seeds - 1), (problems, num_problems - 1), (-residual, (num_seeds - 1) * (num_problems - 1))]
    df = sum(p for p, _ in parts) ** 2 / sum(p**2 / d for p, d in parts)
    assert result.df == pytest.approx(max(df, num_seeds - 1))


def test_crossed_equals_fixed_where_problems_do_not_differ():
    sample = np.array([[0.4] * 6, [0.5] * 6, [0.6] * 6])
    assert stats.interval([sample], ONE, "crossed") == stats.interval([sample], ONE)


def test_strata_count_alike():
    sample = np.array([[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.5]])
    result = stats.interval([sample], np.array([0, 0, 0, 1]))
    assert result.estimate == pytest.approx(0.625)  # runs: (1 + 0)/2, (1 + .5)/2


def test_one_seed_has_no_interval_and_tells_nothing_apart():
    result = stats.interval([scores(0, 1), scores(1, 3)], ONE)
    assert np.isnan(result.low) and result.p_value == 1.0


def test_runs_without_spread():
    same, higher = np.full((3, 6), 0.5), np.full((3, 6), 0.75)
    assert stats.interval([same, same], ONE).p_value == 1.0
    assert stats.interval([higher, same], ONE).p_value == 0.0


def test_holm_by_hand():
    # sorted: .01·4 = .04, .02·3 = .06, .03·2 = .06, .5·1 = .5
    assert stats.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert stats.holm([]) == [] and stats.holm([0.9, 0.8]) == [1.0, 1.0]


def test_iqm_is_the_trimmed_mean():
    values = np.random.default_rng(0).random((5, 3))
    assert stats.iqm(values) == pytest.approx(scipy.stats.trim_mean(values.ravel(), 0.25))


def test_a_tie_is_a_tie_whatever_its_rounding():
    assert 0.1 + 0.2 > 0.3
    assert stats.probability_of_improvement(np.array([[0.1 + 0.2]]), np.array([[0.3]])) == 0.5
    assert best_step(np.array([[0.3, 0.0], [0.1, 0.2]]), np.ones(2)) == 0


def test_probability_of_improvement_is_mann_whitney():
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 4, (5, 2)), generator.integers(0, 4, (4, 2))
    wins = [scipy.stats.mannwhitneyu(one[:, k], other[:, k]).statistic / 20 for k in range(2)]
    assert stats.probability_of_improvement(one, other) == pytest.approx(np.mean(wins))


def test_ranks_follow_from_the_pairs_told_apart():
    ranks = stats.rank_bounds(["a", "b", "c"], {("a", "c"): True, ("a", "b"): False, ("b", "c"): True})
    assert ranks == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}


def test_prediction_interval_closed_form():
    sample = scores(6, 5)
    result = stats.interval([sample], ONE)
    half = t_quantile(0.975, 4) * sample.mean(1).std(ddof=1) * (1 / 5 + 1 / 3) ** 0.5
    assert stats.prediction_half_width(result, 5, 3) == pytest.approx(half)


def test_bootstrap_has_the_closed_form_moments():
    """Variance over seeds (S − 1)/S · s²/S, over problems likewise, over samples p(1 − p)/(n S P), and a small product term."""
    sample = np.clip(scores(7, 4, 40), 0.05, 0.95)
    counts, strata = np.full(sample.shape, 8), np.zeros(40, dtype=int)
    means = stats.hierarchical_bootstrap(sample, counts, strata, seed=1, resamples=40_000)
    seeds = sample.mean(1).var() / 4
    problems = sample.mean(0).var() / 40
    rest = sample - sample.mean(0) - sample.mean(1, keepdims=True) + sample.mean()
    samples = (sample * (1 - sample) / 8).mean() / (4 * 40)
    assert means.mean() == pytest.approx(sample.mean(), abs=0.001)
    assert means.var() == pytest.approx(seeds + problems + (rest**2).mean() / 160 + samples, rel=0.03)


def test_bootstrap_pairs_the_problems_of_all_methods():
    draw = partial(stats.hierarchical_bootstrap, strata_P=np.zeros(40, dtype=int))
    certain = np.tile(np.repeat([0.0, 1.0], 20), (5, 1))  # no spread between seeds, no noise of samples
    one, other = (draw(certain[:num_seeds], np.ones((num_seeds, 40)), seed=1, method=num_seeds) for num_seeds in (5, 3))
    assert one == pytest.approx(other) and one.std() > 0.05
    assert not np.allclose(one, draw(certain, np.ones((5, 40)), seed=2))


def test_bootstrap_draws_the_noise_of_samples_for_each_method():
    """Two equal methods whose only spread is that of their samples differ by √2 times the noise of each."""
    even, counts = np.full((3, 40), 0.5), np.full((3, 40), 16)
    draws = [
        stats.hierarchical_bootstrap(even, counts, np.zeros(40, dtype=int), seed=1, method=i, resamples=40_000) for i in (0, 1)
    ]
    noise = (0.25 / (3 * 40 * 16)) ** 0.5
    assert [draw.std() for draw in draws] == pytest.approx([noise, noise], rel=0.03)
    assert (draws[0] - draws[1]).std() == pytest.approx(2**0.5 * noise, rel=0.03)


def test_drawn_counts_add_up():
    counts = stats.draw_counts(7, 500, np.random.default_rng(0))
    assert (counts.sum(1) == 7).all() and counts.mean(0) == pytest.approx(np.ones(7), abs=0.15)
