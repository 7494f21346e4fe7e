"""Exact tests against published values, hand-worked cases and scipy."""

import pytest
import scipy.stats

from analysis.exact import binomial_two_sided, clopper_pearson, fisher_exact


def test_clopper_pearson_in_closed_form_at_the_ends():
    # 0 of 5: (1 − high)^5 = 0.025; 5 of 5 is its mirror image
    assert clopper_pearson(0, 5) == (0.0, pytest.approx(1 - 0.025**0.2))
    assert clopper_pearson(5, 5) == (pytest.approx(0.025**0.2), 1.0)


def test_clopper_pearson_as_published():
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 5: 81/263, 15/148, 0/20 and 1/29."""
    published = {(81, 263): (0.2527, 0.3676), (15, 148): (0.0578, 0.1617), (0, 20): (0.0, 0.1684), (1, 29): (0.0009, 0.1776)}
    for (count, total), bounds in published.items():
        assert clopper_pearson(count, total) == pytest.approx(bounds, abs=5e-5)


def test_fisher_on_the_tea_cups():
    """Fisher's lady: 4 and 4 cups, 3 right of each: (1 + 16 + 16 + 1) / 70; all right: 2 / 70."""
    assert fisher_exact(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher_exact(4, 4, 0, 4) == pytest.approx(2 / 70)


def test_fisher_by_hand_at_five_seeds():
    assert fisher_exact(5, 5, 0, 5) == pytest.approx(2 / 252)
    assert fisher_exact(0, 5, 0, 5) == 1.0
    # 4/5 against 1/5: tables of 5 collapsed among 10: 1, 25, 100, 100, 25, 1 of 252
    assert fisher_exact(4, 5, 1, 5) == pytest.approx(52 / 252)


def test_binomial_by_hand():
    assert binomial_two_sided(2, 2, 0.95) == 1.0
    # 18 of 20 at 0.95 is less likely than 19 or 20 and more than all below
    assert binomial_two_sided(18, 20, 0.95) == pytest.approx(1 - 20 * 0.95**19 * 0.05 - 0.95**20)
    assert binomial_two_sided(4, 10, 0.5) == pytest.approx(1 - 252 / 1024)


@pytest.mark.parametrize(("count", "total"), [(0, 3), (2, 3), (7, 20), (36, 40)])
def test_against_scipy(count, total):
    reference = scipy.stats.binomtest(count, total, 0.95)
    assert binomial_two_sided(count, total, 0.95) == pytest.approx(reference.pvalue)
    assert clopper_pearson(count, total) == pytest.approx(tuple(reference.proportion_ci(0.95, "exact")))
    table = [[count, total - count], [3, 5]]
    assert fisher_exact(count, total, 3, 8) == pytest.approx(scipy.stats.fisher_exact(table).pvalue)
