"""One rule at an extreme setting is another; and each rule's gradient is that of the objective its paper writes down."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from harness.learning.loss import Totals, surrogate_loss, token_scale
from methods import TokenBatch


def assert_same_rule(first, second, batch):
    one, other = first(batch), second(batch)
    assert_close(one.weight[batch.mask], other.weight[batch.mask])
    assert_close(one.keep[batch.mask], other.keep[batch.mask])


LIMITS = [
    ("cppo", {"position_weights": "ones", "prefix_budget": False}, "dppo", {}),
    ("cppo", {"w_min": 1.0, "prefix_budget": False}, "dppo", {}),
    ("cppo", {"adaptive": False, "delta_b": 1e9, "position_weights": "ones"}, "dppo", {}),
    ("dppo", {"delta": math.inf}, "tis", {"cap": 20.0}),
    ("dppo", {"delta": math.inf, "ratio_cap": None}, "pg_is", {}),
    ("trm", {"delta_max": math.inf, "delta_avg": math.inf}, "pg_is", {}),
    ("trm_max", {"delta": math.inf}, "pg_is", {}),
    ("trm_avg", {"delta": math.inf}, "pg_is", {}),
    ("trm", {"delta_avg": math.inf, "delta_max": 0.2}, "trm_max", {"delta": 0.2}),
    ("trm", {"delta_max": math.inf, "delta_avg": 0.1}, "trm_avg", {"delta": 0.1}),
    ("grpo", {"eps_low": 1.0, "eps_high": 1e9}, "pg_is", {}),
    ("grpo", {"eps_low": 0.2, "eps_high": 0.2}, "ppo", {"eps": 0.2}),
    ("grpo", {"dual_clip": 1e9}, "grpo", {}),
    ("cispo", {"eps_high": 1e9}, "pg_is", {}),
    ("cispo", {"eps_low": 0.0, "eps_high": 0.0}, "pg", {}),
    ("tis", {"cap": 1e9}, "pg_is", {}),
    ("icepop", {"low": 0.0, "high": 1e9}, "pg_is", {}),
    ("m2po", {"budget": 1e9}, "pg_is", {}),
    ("drpo", {"eps": 1e12}, "pg_is", {}),
    ("ce_gppo", {"eps_low": 1.0, "eps_high": 1e9}, "pg_is", {}),
    ("opsm", {"delta": 1e9}, "grpo", {}),
    ("geo_mask", {"low": 0.0, "high": 1e9}, "pg_is", {}),
    ("geo_mask", {"low": 0.0, "high": 1e9, "weighted": False}, "pg", {}),
    ("mis_po", {"low": 0.0, "high": 1e9, "seq_low": 0.0, "seq_high": 1e9}, "pg", {}),
]


@pytest.mark.parametrize("rule, changes, limit, limit_changes", LIMITS)
def test_limits(rule, changes, limit, limit_changes, shipped, batch_of):
    for seed in range(5):
        assert_same_rule(shipped(rule, **changes), shipped(limit, **limit_changes), batch_of(seed))


def test_pdm_is_dppo_where_the_direction_is_that_of_the_ratio(shipped, batch_of):
    batch = batch_of(1)
    assert_same_rule(shipped("pdm"), shipped("dppo"), batch_of(1, kl_direction=batch.ratio - 1))


def test_one_token_responses_make_sequence_rules_token_rules(shipped, batch_of):
    mask = torch.zeros(6, 9, dtype=torch.bool)
    mask[:, 4] = True
    batch = batch_of(2, rows=6, mask=mask)
    assert_same_rule(shipped("gspo", eps_low=0.2, eps_high=0.28), shipped("grpo"), batch)
    assert_same_rule(shipped("minpro"), shipped("cispo"), batch)


def test_removed_responses_leave_a_token_mean(shipped, batch_of):
    """verl's rejection: the mean runs over the tokens of surviving responses only."""
    batch = batch_of(7, divergence=torch.tensor([[0.0], [9.0], [0.0], [0.0]], dtype=torch.float64).expand(4, 9))
    decision = shipped("trm_max", rejected="removed")(batch)
    scale = token_scale(batch.mask, "token-mean", Totals.of(batch.mask), 9, torch.float64)
    loss = surrogate_loss(batch.logprobs, batch.advantages, decision, batch.mask, scale)
    kept = batch.mask.clone()
    kept[1] = False
    assert_close(loss, -(batch.advantages * batch.ratio * batch.logprobs)[kept].mean(), rtol=1e-12, atol=0)


def test_a_large_divergence_leaves_the_sums_before_it_alone(shipped, batch_of):
    """Of a sum over all tokens less the last, float32 would keep nothing; an infinite score would leave NaN."""
    score = torch.tensor([[0.1, 0.2, 1e12], [0.1, 0.2, torch.inf]])
    aux = shipped("cppo", w_min=1.0)(batch_of(1, rows=2, width=3, mask=torch.ones(2, 3), divergence=score)).aux
    assert_close(aux["S_prev"].float(), torch.tensor([[0.0, 0.1, 0.3]] * 2))


def test_the_largest_of_negative_scores_is_that_of_the_response_alone(shipped, batch_of):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    score = torch.tensor([[-0.3, -0.1, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    aux = shipped("trm_max")(batch_of(1, rows=2, width=3, mask=mask, divergence=score)).aux
    assert_close(aux["seq_max"], torch.tensor([-0.1, 0.0], dtype=torch.float64))


def test_shuffled_weights_are_a_permutation_that_the_response_alone_decides(shipped, batch_of):
    batch = batch_of(4)
    shuffled, plain = (shipped(name)(batch).aux["w"] for name in ("cppo_shuffled_budget", "cppo"))
    for row, mask in enumerate(batch.mask):
        assert_close(shuffled[row][mask].sort().values, plain[row][mask].sort().values)
    other = shipped("cppo_shuffled_budget")(batch_of(4, response_key=batch.response_key + 1)).aux["w"]
    assert not torch.equal(shuffled, other)


# ---- gradients: the detached surrogate against autograd through the textbook objective ------------------------------


def clipped_min(ratio, batch, eps_low=0.2, eps_high=0.28):
    return torch.minimum(ratio * batch.advantages, ratio.clamp(1 - eps_low, 1 + eps_high) * batch.advantages)


def token_sum(values, batch):
    return values[batch.mask].sum() / batch.mask.sum()


def geometric_mean(log_values, batch):
    """[B, 1] of one-per-response values."""
    return (torch.where(batch.mask, log_values, 0.0).sum(-1, keepdim=True) / batch.lengths.clamp(min=1)).exp()


def sequence_mean(values, batch):
    """[B, 1] values averaged over the non-empty responses."""
    return values[batch.lengths > 0].mean()


def grpo_objective(logprobs, batch):
    return token_sum(clipped_min((logprobs - batch.rollout_logprobs).exp(), batch), batch)


def ppo_objective(logprobs, batch):
    return token_sum(clipped_min((logprobs - batch.rollout_logprobs).exp(), batch, 0.2, 0.2), batch)


def cispo_objective(logprobs, batch):
    weight = (logprobs - batch.rollout_logprobs).exp().clamp(0.0, 1.28).detach()
    return token_sum(weight * batch.advantages * logprobs, batch)


def pg_is_objective(logprobs, batch):
    return token_sum((logprobs - batch.rollout_logprobs).exp() * batch.advantages, batch)


def sapo_objective(logprobs, batch):
    tau = torch.where(batch.advantages > 0, 1.0, 1.05)
    ratio = (logprobs - batch.rollout_logprobs).exp()
    gate = 4 / tau * torch.sigmoid(tau * (ratio - 1))
    total = torch.where(batch.mask, gate * batch.advantages, 0.0).sum(-1, keepdim=True)
    return sequence_mean(total / batch.lengths.clamp(min=1), batch)


def gspo_objective(logprobs, batch):
    s = geometric_mean(logprobs - batch.rollout_logprobs, batch)
    a = batch.advantages[:, :1]
    return sequence_mean(torch.minimum(s * a, s.clamp(1 - 3e-4, 1 + 4e-4) * a), batch)


def gmpo_objective(logprobs, batch):
    log_ratio = logprobs - batch.rollout_logprobs
    clipped = torch.where(batch.advantages > 0, log_ratio.clamp(max=0.4), log_ratio.clamp(min=-0.4))
    return sequence_mean(geometric_mean(clipped, batch) * batch.advantages[:, :1], batch)


def vespo_objective(logprobs, batch):
    """The weight times the score of the whole response, as the paper estimates its gradient."""
    log_w = torch.where(batch.mask, batch.logprobs - batch.rollout_logprobs, 0.0).sum(-1, keepdim=True)
    k, lam = torch.where(batch.advantages[:, :1] >= 0, 2.0, 3.0), torch.where(batch.advantages[:, :1] >= 0, 3.0, 2.0)
    weight = (lam - lam * log_w.exp()).exp() * log_w.exp() ** k
    return token_sum(weight * batch.advantages * logprobs, batch)


OBJECTIVES = {
    "ppo": (ppo_objective, "token-mean"),
    "grpo": (grpo_objective, "token-mean"),
    "cispo": (cispo_objective, "token-mean"),
    "pg_is": (pg_is_objective, "token-mean"),
    "vespo": (vespo_objective, "token-mean"),
    "sapo": (sapo_objective, "seq-mean-token-mean"),
    "gspo": (gspo_objective, "seq-mean-token-mean"),
    "gmpo": (gmpo_objective, "seq-mean-token-mean"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_is_that_of_the_textbook_objective(name, shipped, batch_of):
    objective, aggregation = OBJECTIVES[name]
    for seed in range(5):
        advantages = batch_of(seed).advantages[:, :1].masked_fill(~batch_of(seed).mask[:, :1], 0.7).expand(4, 9)
        batch = batch_of(seed, advantages=advantages)
        batch.advantages = advantages  # one number per response, also where masked
        ours, textbook = (batch.logprobs.clone().requires_grad_() for _ in range(2))
        scale = token_scale(batch.mask, aggregation, Totals.of(batch.mask), 9, torch.float64)
        surrogate_loss(ours, advantages, shipped(name)(batch), batch.mask, scale).backward()
        (-objective(textbook, batch)).backward()
        assert_close(ours.grad, textbook.grad.masked_fill(~batch.mask, 0.0))


def test_vespo_without_damping_does_not_care_how_large_a_ratio_is(shipped):
    logprobs = torch.full((1, 60), -1.0)  # W = e^{20·60} is infinite
    batch = TokenBatch(logprobs, logprobs - 39, torch.ones(1, 60), torch.ones(1, 60))
    assert_close(shipped("vespo", k_pos=0.0, lam_pos=0.0, k_neg=0.0, lam_neg=0.0)(batch).weight, torch.ones(1, 60))


def test_an_adaptive_budget_of_infinite_divergences_is_its_ceiling(shipped):
    divergence = torch.tensor([[0.1, torch.inf, torch.inf, torch.inf]])
    batch = TokenBatch(torch.full((1, 4), -1.0), torch.full((1, 4), -1.5), torch.ones(1, 4), torch.ones(1, 4), divergence)
    rule = shipped("cppo", adaptive=True, delta_b_min=0.02, delta_b_ceiling=2.0, quantile=0.9)
    assert_close(rule(batch).aux["delta_b"], torch.tensor([0.04]))
