from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from harness.learning.advantage import advantages_of, group_advantages


def test_groups_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    advantages, informative = group_advantages(rewards, 3)
    assert_close(advantages, torch.tensor([2 / 3, -1 / 3, -1 / 3, 0, 0, 0], dtype=torch.float64))
    assert informative.tolist() == [True] * 3 + [False] * 3
    # sd with n − 1: sqrt((4/9 + 1/9 + 1/9)/2) = sqrt(1/3)
    scaled, _ = group_advantages(rewards, 3, "std")
    assert_close(scaled[0], torch.tensor((2 / 3) / (3**-0.5 + 1e-6), dtype=torch.float64))


@pytest.mark.parametrize("normalise", ["none", "std"])
@pytest.mark.parametrize("reward", [0.1, 0.7, 1e6 + 0.1, -3.3])
def test_equal_rewards_give_exactly_zero(normalise, reward):
    for dtype in (torch.float32, torch.float64):
        advantages, informative = group_advantages(torch.full((21,), reward, dtype=dtype), 7, normalise)
        assert not informative.any() and bool((advantages == 0).all())


def test_order_of_groups_does_not_matter():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(12, generator=generator, dtype=torch.float64)
    groups = torch.arange(12) // 4
    order = torch.randperm(12, generator=generator)
    for normalise in ("none", "std"):
        expected, _ = advantages_of(rewards, groups, normalise)
        assert_close(advantages_of(rewards[order], 100 - groups[order], normalise)[0], expected[order])


def test_a_lone_response_keeps_its_reward():
    advantages, informative = group_advantages(torch.tensor([0.0, 2.0]), 1)
    assert advantages.tolist() == [0.0, 2.0] and informative.all()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="groups of 3"):
        group_advantages(torch.zeros(4), 3)
    with pytest.raises(ValueError, match="std"):
        group_advantages(torch.zeros(4), 2, "variance")
