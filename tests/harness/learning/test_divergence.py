"""Scores against full-vocabulary computations, bounds, dtypes, and garbage in padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from harness.learning.divergence import DIVERGENCES, PolicyPair, divergence, kl_direction

few = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)


def distributions(seed: int, v: int, drift: float = 0.5, shape=(3, 5), dtype=torch.float64):
    """log μ, log π [B, T, V] and sampled tokens [B, T]."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(*shape, v, generator=generator, dtype=dtype)
    moved = logits + drift * torch.randn(*shape, v, generator=generator, dtype=dtype)
    return logits.log_softmax(-1), moved.log_softmax(-1), torch.randint(v, shape, generator=generator)


def pair_of(log_mu, log_pi, tokens, k, mask=None) -> PolicyPair:
    ids = log_mu.topk(min(k, log_mu.shape[-1]), -1).indices
    at = lambda logs: logs.gather(-1, tokens[..., None]).squeeze(-1)
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    return PolicyPair(tokens, at(log_pi), at(log_mu), ids, log_pi.gather(-1, ids), log_mu.gather(-1, ids), mask, log_mu.shape[-1])


def full_tv(log_mu, log_pi):
    return (log_mu.exp() - log_pi.exp()).abs().sum(-1) / 2


def full_kl(log_mu, log_pi):
    return (log_mu.exp() * (log_mu - log_pi)).sum(-1)


@few
@given(seed=seeds, k=st.integers(1, 12), topk_set=st.sampled_from(["union", "replace"]))
def test_reduced_scores_are_lower_bounds_that_more_ids_do_not_lower(seed, k, topk_set):
    log_mu, log_pi, tokens = distributions(seed, 12)
    pair = pair_of(log_mu, log_pi, tokens, k)
    tv, kl = divergence("topk_tv", pair, topk_set), divergence("topk_kl", pair, topk_set)
    assert bool((tv <= full_tv(log_mu, log_pi) + 1e-12).all()) and bool((kl <= full_kl(log_mu, log_pi) + 1e-12).all())
    assert bool((tv >= 0).all()) and bool((kl >= -1e-12).all()) and bool((tv**2 <= kl / 2 + 1e-12).all())
    if topk_set == "union":
        more = pair_of(log_mu, log_pi, tokens, k + 1)
        assert bool((divergence("topk_tv", more) >= tv - 1e-12).all())
        assert bool((divergence("topk_kl", more) >= kl - 1e-12).all())
        assert bool((tv >= divergence("binary_tv", pair) - 1e-12).all())


@few
@given(seed=seeds, topk_set=st.sampled_from(["union", "replace"]))
def test_all_ids_make_the_full_score(seed, topk_set):
    log_mu, log_pi, tokens = distributions(seed, 7)
    pair = pair_of(log_mu, log_pi, tokens, 20)
    for score, truth in (("tv", full_tv), ("kl", full_kl)):
        expected = truth(log_mu, log_pi)
        assert_close(divergence(f"topk_{score}", pair, topk_set), expected, rtol=0, atol=1e-12)
        assert_close(divergence(f"full_{score}", pair, topk_set), expected, rtol=0, atol=1e-12)


def test_full_scores_refuse_a_part_of_the_vocabulary():
    pair = pair_of(*distributions(1, 9), k=4)
    for score in ("tv", "kl"):
        with pytest.raises(ValueError, match=f"topk_{score}"):
            divergence(f"full_{score}", pair)


@pytest.mark.parametrize("topk_set", ["union", "replace"])
def test_an_id_that_the_rollout_policy_rules_out_adds_nothing_to_a_kl(topk_set):
    mu, pi = torch.tensor([[[0.6, 0.4, 0, 0]]]).double(), torch.tensor([[[0.5, 0.3, 0.2, 0]]]).double()
    expected = (mu[..., :2] * (mu / pi)[..., :2].log()).sum(-1)
    for k in (3, 4):
        assert_close(divergence("topk_kl", pair_of(mu.log(), pi.log(), torch.tensor([[0]]), k), topk_set), expected)


def test_unknown_names_are_refused():
    pair = pair_of(*distributions(1, 9), k=4)
    with pytest.raises(ValueError, match="topk_tv"):
        divergence("tv", pair)
    with pytest.raises(ValueError, match="replace"):
        divergence("topk_tv", pair, "both")


@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_policies_score_nothing(name):
    log_mu, _, tokens = distributions(2, 9)
    assert_close(divergence(name, pair_of(log_mu, log_mu, tokens, 9)), torch.zeros(3, 5, dtype=torch.float64))


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf")])
def test_garbage_where_masked_is_zero(name, junk):
    log_mu, log_pi, tokens = distributions(3, 9)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(3)) < 0.6
    clean = pair_of(log_mu, log_pi, tokens, 9, mask)
    wrong = pair_of(log_mu, log_pi, tokens, 9, mask)
    for field in ("logprobs", "rollout_logprobs", "topk_logprobs", "rollout_topk_logprobs"):
        values = getattr(wrong, field)
        values[~mask] = junk
    found = divergence(name, wrong)
    assert_close(found, divergence(name, clean))
    assert bool((found[~mask] == 0).all())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_lower_precision_is_computed_in_float32(name):
    log_mu, log_pi, tokens = distributions(4, 9)
    exact = divergence(name, pair_of(log_mu, log_pi, tokens, 9))
    single = divergence(name, pair_of(log_mu.float(), log_pi.float(), tokens, 9))
    half = divergence(name, pair_of(log_mu.bfloat16(), log_pi.bfloat16(), tokens, 9))
    assert single.dtype == half.dtype == torch.float32
    assert_close(single.double(), exact, rtol=1e-5, atol=1e-6)
    # bf16 log-probs are off by up to 2^-9 of a value of about 5
    assert_close(half.double(), exact, rtol=0.1, atol=0.05)


def test_float32_keeps_the_full_score_exact_at_equal_policies():
    """1 − Σ is rounding noise when all ids are listed: no other bucket may turn it into divergence."""
    log_mu, _, tokens = distributions(5, 30, dtype=torch.float32)
    shifted = log_mu - 1e-6
    assert float(divergence("full_kl", pair_of(log_mu, shifted, tokens, 30)).abs().max()) < 2e-6


def test_scores_are_detached():
    log_mu, log_pi, tokens = distributions(6, 9)
    pair = pair_of(log_mu, log_pi.requires_grad_(), tokens, 4)
    assert not any(divergence(name, pair).requires_grad for name in DIVERGENCES if not name.startswith("full"))
    assert not kl_direction(pair).requires_grad


@few
@given(seed=seeds)
def test_kl_direction_is_the_derivative_along_the_policy_gradient(seed):
    log_mu, log_pi, tokens = distributions(seed, 8)
    pair = pair_of(log_mu, log_pi, tokens, 8)
    logits = log_pi.clone()
    onehot = torch.nn.functional.one_hot(tokens, 8).double()
    direction = onehot - log_pi.exp()  # ∇ log π(y) with respect to the logits
    step = 1e-5
    kl = lambda z: full_kl(log_mu, z.log_softmax(-1))
    derivative = (kl(logits + step * direction) - kl(logits - step * direction)) / (2 * step)
    assert_close(kl_direction(pair), derivative, rtol=1e-6, atol=1e-8)


def test_sample_estimators_average_to_the_divergence():
    """k1 and k3 are unbiased: their mean over y ~ μ, taken exactly, is KL(μ‖π); E_μ|ρ − 1|/2 is the total variation."""
    log_mu, log_pi, _ = distributions(7, 6, shape=(1, 1))
    mu = log_mu[0, 0].exp()
    every = torch.arange(6)[None]
    spread = lambda logs: logs.expand(1, 6, 6)
    pair = pair_of(spread(log_mu), spread(log_pi), every, 6)
    for name in ("k1", "k3"):
        assert_close((mu * divergence(name, pair)[0]).sum(), full_kl(log_mu, log_pi)[0, 0])
    assert_close(divergence("k2", pair), divergence("abs_log_ratio", pair) ** 2 / 2)


def test_what_the_sampled_token_displaces_adds_nothing_even_if_ruled_out():
    log_mu = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log().expand(1, 1, 4)
    log_pi = torch.tensor([0.6, 0.0, 0.3, 0.1], dtype=torch.float64).log().expand(1, 1, 4)
    pair = pair_of(log_mu, log_pi, torch.tensor([[2]]), 2)
    # E = {0, 2}: 0.4 ln(0.4/0.6) + 0.2 ln(0.2/0.3) + 0.4 ln(0.4/0.1)
    assert_close(divergence("topk_kl", pair, "replace"), torch.tensor([[0.3112386795830572]], dtype=torch.float64))
