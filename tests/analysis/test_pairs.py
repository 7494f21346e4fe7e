"""The test of a pair: each way against scipy, both together by their definition, and its power by simulation."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from analysis.compare import problem_variance
from analysis.coverage import SAMPLING_SD, STRATA_P, World, power, simulate
from analysis.pairs import (
    Difference,
    Spread,
    detectable_difference,
    difference,
    fewest,
    num_seeds_needed,
    pairing,
    power_of_pair,
)
from analysis.stats import Interval

ONE = np.zeros(6, dtype=int)  # six problems, one benchmark


def scores(seed: int, num_seeds: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return 0.5 + 0.1 * generator.standard_normal((num_seeds, 1)) + 0.2 * generator.standard_normal((num_seeds, 6))


def test_both_ways_against_scipy():
    one, other = scores(1, 5), scores(2, 5)
    seeds = [1, 2, 3, 4, 5]
    gap = difference(one, other[::-1], (seeds, seeds[::-1]), ONE, problems="fixed")
    welch = scipy.stats.ttest_ind(one.mean(1), other.mean(1), equal_var=False)
    paired = scipy.stats.ttest_rel(one.mean(1), other.mean(1))
    assert gap.estimate == pytest.approx(one.mean() - other.mean())
    assert gap.p_value == pytest.approx(min(1, min(welch.pvalue, paired.pvalue) * 5 / 3))
    widths = [(test.confidence_interval(0.97).high - test.confidence_interval(0.97).low) / 2 for test in (welch, paired)]
    assert list(gap.half_widths.values()) == pytest.approx(widths)
    assert gap.high - gap.estimate == pytest.approx(min(widths))


def test_without_common_seeds_it_is_welch_at_the_full_level():
    one, other = scores(1, 3), scores(2, 4)
    gap = difference(one, other, ([1, 2, 3], [1, 2, 3, 4]), ONE, problems="fixed")
    reference = scipy.stats.ttest_ind(one.mean(1), other.mean(1), equal_var=False)
    assert gap.paired is None and gap.p_value == pytest.approx(reference.pvalue)
    assert (gap.low, gap.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_seeds_that_move_together_are_judged_by_pairs():
    one = scores(3, 5)
    other = one + 0.01 + 0.002 * np.random.default_rng(0).standard_normal((5, 1))
    assert difference(one, other, ([1, 2, 3, 4, 5],) * 2, ONE).decided_by == "paired"
    assert difference(one, scores(9, 5), ([1, 2, 3, 4, 5],) * 2, ONE, problems="fixed").decided_by == "Welch"


@pytest.mark.parametrize(
    ("one", "other", "order"),
    [
        ([1, 2, 3], [3, 1, 2], [1, 2, 0]),
        ([1, 2], [1, 2], None),  # one degree of freedom
        ([1, 2, 3], [1, 2, 4], None),
        ([1, 1, 2], [1, 1, 2], None),  # a seed twice: which is its partner?
    ],
)
def test_which_seeds_are_paired(one, other, order):
    assert pairing(one, other) == order


def test_among_several_methods_by_the_studentised_range_and_bonferroni():
    welch, paired = Interval(0.3, 0.1, 6.5), Interval(0.3, 0.08, 4)
    alone, together = Difference(welch, None), Difference(welch, None, num_means=5)
    reference = scipy.stats.studentized_range
    assert together.p_value == pytest.approx(reference.sf(2**0.5 * 3, 5, 6.5), abs=1e-4)
    assert together.high - 0.3 == pytest.approx(0.1 * reference.ppf(0.95, 5, 6.5) / 2**0.5, rel=1e-4)
    assert alone.p_value == pytest.approx(2 * scipy.stats.t.sf(3, 6.5))
    both = Difference(welch, paired, num_means=5)
    assert both.half_widths["paired"] == pytest.approx(0.08 * scipy.stats.t.ppf(1 - 0.015 / 10, 4))
    assert both.half_widths["Welch"] == pytest.approx(0.1 * reference.ppf(0.97, 5, 6.5) / 2**0.5, rel=1e-4)
    assert both.reversed.low == pytest.approx(-both.high) and both.alone == Difference(welch, paired)


@pytest.mark.parametrize("estimate", [0.1, 0.2, 0.3, 0.4])
def test_p_value_and_interval_say_the_same(estimate):
    for num_means in (2, 4):
        gap = Difference(Interval(estimate, 0.1, 5.0), Interval(estimate, 0.07, 3), num_means)
        assert (gap.p_value < 0.05) == (gap.low > 0)


def test_one_seed_tells_nothing():
    gap = difference(scores(0, 1), scores(1, 3), ([1], [1, 2, 3]), ONE)
    assert not gap.known and np.isnan(gap.low) and gap.p_value == 1.0 and replace(gap, num_means=4).p_value == 1.0


def test_runs_without_spread():
    same, higher, seeds = np.full((3, 6), 0.5), np.full((3, 6), 0.75), ([1, 2, 3], [1, 2, 3])
    assert difference(same, same, seeds, ONE).p_value == 1.0
    assert difference(higher, same, seeds, ONE).p_value == 0.0


@pytest.mark.parametrize(("num_seeds", "correlation"), [(2, 0.0), (3, 0.0), (5, 0.8), (12, 0.3)])
def test_power_agrees_with_simulation(num_seeds, correlation):
    """Runs are drawn as one number each, so that the test's own arithmetic can be done by scipy."""
    common, one, other = np.random.default_rng(0).standard_normal((3, 6000, num_seeds))
    one, other = (correlation**0.5 * common + (1 - correlation) ** 0.5 * own for own in (one, other))
    shift = 3.5 * ((1 - correlation) / num_seeds) ** 0.5
    p_values = scipy.stats.ttest_ind(one + shift, other, axis=1, equal_var=False).pvalue
    if num_seeds > 2:
        p_values = 5 / 3 * np.minimum(p_values, scipy.stats.ttest_rel(one + shift, other, axis=1).pvalue)
    assert power_of_pair(shift, Spread(1.0, correlation), num_seeds) == pytest.approx((p_values < 0.05).mean(), abs=0.025)


def test_power_of_many_seeds_meets_that_of_few():
    few, many = (power_of_pair(0.5, Spread(1.0), n) for n in (60, 61))
    assert few == pytest.approx(many, abs=0.02)


def test_seeds_do_not_average_out_that_methods_differ_by_problem():
    sd = SAMPLING_SD * 2**0.5  # of a run in this world
    found = simulate(World(14, 1.0, interaction=0.05), power(0.02 / sd), 400, seed=1)["the narrower, at 3 % each"] / 100
    spread = Spread(sd, problems=2 * 0.05**2 / len(STRATA_P))
    assert power_of_pair(0.02, spread, 14) == pytest.approx(found, abs=0.075)
    assert num_seeds_needed(0.02, Spread(sd)) == 14 and num_seeds_needed(0.02, spread) is None
    assert power_of_pair(detectable_difference(14, spread), spread, 14) == pytest.approx(0.8, abs=1e-4)


def test_the_variance_that_problems_add_is_pooled_over_pairs():
    scores = {"one": np.array([[0.0, 1.0]] * 2), "other": np.zeros((2, 2)), "third": np.zeros((2, 2))}
    comparison = SimpleNamespace(scores_SP=scores, group=SimpleNamespace(benchmark_P=np.zeros(2, dtype=int)))
    assert problem_variance(comparison, list(scores)) == pytest.approx(2 / 3 * 0.5 / 2)  # two of three pairs: variance 0.5
    assert problem_variance(comparison, ["one"]) == 0.0


def test_seeds_needed_are_the_fewest():
    spread = Spread(0.018)
    needed = num_seeds_needed(0.02, spread)
    assert power_of_pair(0.02, spread, needed) >= 0.8 > power_of_pair(0.02, spread, needed - 1)
    assert num_seeds_needed(0.02, Spread(0.0)) == 2
    assert num_seeds_needed(1e-5, Spread(0.1)) is None
    assert fewest(lambda n: n >= 9_000, 10_000) == 9_000 and fewest(lambda n: n >= 10_000, 10_000) == 10_000
    assert fewest(lambda n: n > 10_000, 10_000) is None


def test_detectable_difference_has_the_power_it_claims():
    shown = detectable_difference(3, Spread(0.02, 0.5))
    assert power_of_pair(shown, Spread(0.02, 0.5), 3) == pytest.approx(0.8, abs=1e-4)
    assert np.isnan(detectable_difference(1, Spread(0.02)))
