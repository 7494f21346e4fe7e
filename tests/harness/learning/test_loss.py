from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from harness.learning.loss import AGGREGATIONS, Totals, surrogate_loss, token_scale
from methods import Decision

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])  # lengths 3, 1 and an empty row: 4 tokens, 2 responses


@pytest.mark.parametrize(
    "aggregation, first, second",
    [
        ("token-mean", 1 / 4, 1 / 4),
        ("seq-mean-token-sum", 1 / 2, 1 / 2),
        ("seq-mean-token-mean", 1 / 6, 1 / 2),
        ("seq-mean-token-sum-norm", 1 / 20, 1 / 20),
    ],
)
def test_scale_by_hand(aggregation, first, second):
    scale = token_scale(MASK, aggregation, Totals.of(MASK), horizon=10)
    assert_close(scale, torch.tensor([[first] * 3 + [0], [second, 0, 0, 0], [0] * 4]))


def test_totals_do_not_count_empty_rows():
    assert Totals.of(MASK) == Totals(num_tokens=4, num_responses=2)


def test_an_empty_minibatch_gives_zero():
    mask = torch.zeros(2, 3)
    for aggregation in AGGREGATIONS:
        assert float(token_scale(mask, aggregation, Totals.of(mask), 10).sum()) == 0


def test_unknown_aggregation_is_refused():
    with pytest.raises(ValueError, match="token-mean"):
        token_scale(MASK, "mean", Totals.of(MASK), 10)


def test_loss_and_gradient_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0, float("nan")]], requires_grad=True)
    decision = Decision(torch.tensor([[2.0, 3.0, float("inf")]]), torch.tensor([[1.0, 0.0, 1.0]]))
    advantages, mask = torch.tensor([[0.5, 4.0, float("nan")]]), torch.tensor([[1, 1, 0]])
    loss = surrogate_loss(logprobs, advantages, decision, mask, token_scale(mask, "token-mean", Totals.of(mask), 3))
    loss.backward()
    # −(0.5 · 2 · 1 · −1 + 0)/2; the dropped token stays in the denominator
    assert float(loss.detach()) == 0.5
    assert logprobs.grad.tolist() == [[-0.5, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["weight", "keep"])
def test_one_number_for_each_response_is_refused(name):
    """With as many responses as tokens it would weigh each token by another response's number, without a word."""
    square = torch.ones(3, 3)
    decision = Decision(**{"weight": square, "keep": square} | {name: torch.ones(3)})
    with pytest.raises(ValueError, match=rf"the rule's {name} has shape \(3,\), .*\(3, 3\): give one per token"):
        surrogate_loss(square, square, decision, square, square)
