"""The published simulation in small: the intervals hold what they promise, and the simulation would notice if they did not."""

import numpy as np
import pytest

from analysis import stats
from analysis.coverage import STRATA_P, World, covers, family, intervals, plain_bootstrap, power, simulate


@pytest.mark.parametrize("world", [World(3, 1.0), World(5, 0.3)])
def test_coverage_in_small(world):
    """The published table in small: 300 sweeps, so bounds are three standard errors wide."""
    share = simulate(world, intervals, 300, seed=1)
    assert min(share["mean, these problems"], share["mean, new problems"], share["difference"]) > 91
    assert share["false “A is better”"] < 6


def test_the_coverage_check_has_teeth():
    """It finds the plain bootstrap of three seeds too narrow."""
    assert simulate(World(3, 3.0), plain_bootstrap, 150, seed=1)["mean, seeds only, these problems"] < 85


def test_ignoring_seeds_would_be_found_out():
    """With problems as the only source of noise, coverage falls far below what is claimed."""
    world, generator = World(3, 5.0), np.random.default_rng(2)
    hits = []
    for _ in range(200):
        sample, truth = world.methods(1, generator)
        problems_only = stats.interval([sample[0].T], np.zeros(3, dtype=int))  # problems take the place of seeds
        hits.append(covers(problems_only, truth[0]))
    assert np.mean(hits) < 0.9 and len(STRATA_P) == 90


def test_false_claims_in_a_family_are_held():
    share = simulate(World(3, 1.0), family(4), 150, seed=1)
    assert max(share.values()) < 12


def test_looking_both_ways_finds_what_the_better_way_finds():
    share = simulate(World(5, 3.0, correlation=0.9), power(1.2), 200, seed=1)
    assert share["Welch at 5 %"] + 20 < share["the narrower, at 3 % each"] <= share["paired at 5 %"]
