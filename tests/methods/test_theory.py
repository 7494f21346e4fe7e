"""The identities and bounds that the prefix budget rests on, on MDPs that can be enumerated."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from methods import TokenBatch

DRIFTS = (0.01, 0.1, 0.3, 1.0, 3.0)


@pytest.fixture(scope="module")
def theory():
    spec = importlib.util.spec_from_file_location("theory", Path(__file__).parents[2] / "benchmarks" / "theory.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["theory"] = module  # its dataclass looks its own module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["theory"]


def test_both_policies_are_distributions(theory):
    table = theory.random_table(0)
    assert_close(table.rollout_probability.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert_close(table.expectation(table.ratio.prod(-1)), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("num_ids, horizon", [(2, 5), (3, 4), (5, 3)])
def test_performance_difference_identity(theory, num_ids, horizon):
    for seed in range(40):
        table = theory.random_table(seed, num_ids, horizon, drift=DRIFTS[seed % 5])
        difference = theory.improvement(table)
        assert_close(theory.surrogate(table) - theory.residual(table), difference, rtol=0, atol=1e-10)
        assert_close(theory.prefix_corrected(table), difference, rtol=0, atol=1e-10)


def test_the_bounds_hold_on_a_thousand_tables(theory):
    for seed in range(1000):
        table = theory.random_table(seed, drift=DRIFTS[seed % 5])
        residual = theory.residual(table).abs()
        assert residual <= theory.pointwise_bound(table) + 1e-12
        for w_min in (0.5, 0.8, 1.0):
            assert residual <= theory.prefix_bound(table, w_min) + 1e-12


def test_the_bound_is_not_vacuous(theory):
    """A hundredth of it would not hold: the test above can fail."""
    failures = 0
    for seed in range(50):
        table = theory.random_table(seed, drift=0.1)
        failures += bool(theory.residual(table).abs() > 1e-2 * theory.prefix_bound(table, 0.8))
    assert failures > 0


def test_a_response_that_the_rule_keeps_whole_meets_the_constraints_of_the_theorem(theory, shipped):
    """Kept outward tokens have w D ≤ δ, and the prefix sums stay within δ + δ_b W (the initial slack of the implementation)."""
    table = theory.random_table(3, drift=0.2)
    score = theory.divergence("full_tv", table.pair)
    ones = torch.ones_like(score)
    rule = shipped("cppo_fixed", delta=0.15, delta_b=0.03)
    batch = TokenBatch(table.pair.logprobs, table.pair.rollout_logprobs, ones * (table.ratio - 1).sign(), table.pair.mask, score)
    decision = rule(batch)
    kept = (decision.keep == 1).all(-1)
    spent = (decision.aux["S_prev"] + decision.aux["Z"])[kept]
    assert 0 < int(kept.sum()) < len(kept)
    assert bool((decision.aux["Z"][kept] <= 0.15).all())
    assert bool((spent <= 0.15 + 0.03 * decision.aux["W_prev"][kept] + 1e-12).all())
