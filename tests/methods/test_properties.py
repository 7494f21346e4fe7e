"""What every registered rule must do, whatever its formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from harness.learning.loss import AGGREGATIONS, Totals, surrogate_loss, token_scale
from methods import METHODS, TokenBatch

FIELDS = ("logprobs", "rollout_logprobs", "advantages", "mask", "divergence", "response_key", "kl_direction")
KEEPS_INWARD = ("ppo", "grpo", "dppo", "cppo", "cppo_soft", "cppo_shuffled", "gmpo", "m2po")
PRESETS = [*METHODS, "cppo_shuffled", "cppo_soft", "cppo_reversed", "cppo_padded", "cppo_fixed", "m2po_code"]
every_preset = pytest.mark.parametrize("preset", PRESETS)
few = settings(max_examples=12, deadline=None, derandomize=True)
seeds = st.integers(0, 10_000)


def rows_of(batch: TokenBatch, index) -> TokenBatch:
    return TokenBatch(**{name: getattr(batch, name)[index] for name in FIELDS}, horizon=batch.horizon)


def floats_of(batch: TokenBatch) -> dict[str, torch.Tensor]:
    return {name: value for name in FIELDS if (value := getattr(batch, name)).is_floating_point()}


def assert_same(found, expected, mask):
    assert_close(found.weight[mask], expected.weight[mask], rtol=1e-12, atol=0)
    assert_close(found.keep[mask], expected.keep[mask], rtol=1e-12, atol=0)


@every_preset
@few
@given(seed=seeds)
def test_equal_policies_weigh_one_and_keep_all(preset, seed, shipped, batch_of):
    batch = batch_of(seed, drift=0.0)
    nothing = torch.zeros_like(batch.logprobs)
    same = batch_of(seed, logprobs=batch.rollout_logprobs, divergence=nothing, kl_direction=nothing)
    decision = shipped(preset)(same)
    assert_close(decision.weight[same.mask], torch.ones_like(decision.weight[same.mask]), rtol=1e-12, atol=0)
    assert bool((decision.keep[same.mask] == 1).all())


@every_preset
@few
@given(seed=seeds)
def test_garbage_in_masked_places_is_harmless(preset, seed, shipped, batch_of):
    batch = batch_of(seed)
    generator = torch.Generator().manual_seed(seed)
    junk = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e300], dtype=torch.float64)
    pick = lambda: junk[torch.randint(4, batch.mask.shape, generator=generator)]
    dirty = {name: torch.where(batch.mask, value, pick()) for name, value in floats_of(batch).items()}
    rule = shipped(preset)
    found, expected = rule(batch_of(seed, **dirty)), rule(batch)
    assert_same(found, expected, batch.mask)
    scale = token_scale(batch.mask, "token-mean", Totals.of(batch.mask), 9, torch.float64)
    logprobs = dirty["logprobs"].clone().requires_grad_()
    surrogate_loss(logprobs, dirty["advantages"], found, batch.mask, scale).backward()
    assert bool(torch.isfinite(logprobs.grad).all()) and bool((logprobs.grad[~batch.mask] == 0).all())


@every_preset
@few
@given(seed=seeds)
def test_padding_and_row_order_do_not_matter(preset, seed, shipped, batch_of):
    batch, rule = batch_of(seed), shipped(preset)
    expected = rule(batch)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
    shuffled = rule(rows_of(batch, order))
    assert_close(shuffled.weight[batch.mask[order]], expected.weight[order][batch.mask[order]], rtol=1e-12, atol=0)
    assert_close(shuffled.keep[batch.mask[order]], expected.keep[order][batch.mask[order]], rtol=1e-12, atol=0)
    wider = {name: torch.nn.functional.pad(getattr(batch, name), (0, 3)) for name in FIELDS if getattr(batch, name).dim() == 2}
    padded = rule(TokenBatch(**wider, response_key=batch.response_key, horizon=batch.horizon))
    assert_close(padded.weight[:, :9][batch.mask], expected.weight[batch.mask], rtol=1e-12, atol=0)
    assert_close(padded.keep[:, :9][batch.mask], expected.keep[batch.mask], rtol=1e-12, atol=0)


@every_preset
@few
@given(seed=seeds)
def test_neighbours_matter_only_to_minibatch_rules(preset, seed, shipped, batch_of):
    batch, rule = batch_of(seed), shipped(preset)
    if rule.scope == "minibatch":
        return
    together = rule(batch)
    for row in range(len(batch.mask)):
        alone = rule(rows_of(batch, slice(row, row + 1)))
        mask = batch.mask[row]
        assert_close(alone.weight[0][mask], together.weight[row][mask], rtol=1e-12, atol=0)
        assert_close(alone.keep[0][mask], together.keep[row][mask], rtol=1e-12, atol=0)


@every_preset
@few
@given(seed=seeds)
def test_tokens_of_a_token_rule_stand_alone(preset, seed, shipped, batch_of):
    batch, rule = batch_of(seed), shipped(preset)
    if rule.scope != "token":
        return
    reverse = TokenBatch(**{name: v.flip(-1) if (v := getattr(batch, name)).dim() == 2 else v for name in FIELDS})
    flipped, expected = rule(reverse), rule(batch)
    assert_close(flipped.keep.flip(-1)[batch.mask], expected.keep[batch.mask])
    assert_close(flipped.weight.flip(-1)[batch.mask], expected.weight[batch.mask])


@every_preset
def test_no_gradient_leaves_a_rule(preset, shipped, batch_of):
    batch = batch_of(3)
    live = {name: value.clone().requires_grad_() for name, value in floats_of(batch).items()}
    decision = shipped(preset)(batch_of(3, **live))
    tensors = [decision.weight, decision.keep, *decision.aux.values()]
    assert not any(tensor.requires_grad for tensor in tensors)


@every_preset
@few
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_scaling_advantages_leaves_keep_unchanged(preset, seed, factor, shipped, batch_of):
    batch, rule = batch_of(seed), shipped(preset)
    scaled = rule(batch_of(seed, advantages=batch.advantages * factor))
    assert bool((scaled.keep[batch.mask] == rule(batch).keep[batch.mask]).all())


@pytest.mark.parametrize("preset", KEEPS_INWARD)
@few
@given(seed=seeds)
def test_inward_tokens_are_never_dropped(preset, seed, shipped, batch_of):
    batch = batch_of(seed, drift=1.5)
    decision = shipped(preset)(batch)
    assert bool((decision.keep[batch.mask & ~batch.outward] == 1).all())


@every_preset
def test_decisions_have_the_batch_shape_and_dtype(preset, shipped, batch_of):
    for dtype in (torch.float32, torch.float64):
        decision = shipped(preset)(batch_of(5, **{name: value.to(dtype) for name, value in floats_of(batch_of(5)).items()}))
        assert decision.weight.shape == decision.keep.shape == (4, 9)
        assert decision.weight.dtype == decision.keep.dtype == dtype
        assert bool(((decision.keep >= 0) & (decision.keep <= 1)).all()) and bool((decision.weight >= 0).all())


@every_preset
def test_16_bits_decide_as_the_same_values_in_float32(preset, shipped, batch_of):
    half = {name: value.bfloat16() for name, value in floats_of(batch_of(5, drift=0.01)).items()}
    wide = {name: value.float() for name, value in half.items()}
    assert_same(shipped(preset)(batch_of(5, **half)), shipped(preset)(batch_of(5, **wide)), batch_of(5).mask)


@every_preset
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(seed=seeds, cut=st.integers(1, 3))
def test_any_split_gives_the_same_gradient(preset, aggregation, seed, cut, shipped, batch_of):
    batch, rule = batch_of(seed), shipped(preset)
    totals = Totals.of(batch.mask)
    whole = gradient(batch, rule(batch), aggregation, totals)
    together = rule(batch)
    parts = []
    for rows in (slice(0, cut), slice(cut, None)):
        part = rows_of(batch, rows)
        decision = rule(part)
        if rule.scope == "minibatch":
            decision.weight, decision.keep = together.weight[rows], together.keep[rows]
        parts.append(gradient(part, decision, aggregation, totals))
    assert_close(torch.cat(parts), whole, rtol=1e-6, atol=1e-15)


def gradient(batch, decision, aggregation, totals):
    logprobs = batch.logprobs.clone().requires_grad_()
    scale = token_scale(batch.mask, aggregation, totals, 9, torch.float64)
    surrogate_loss(logprobs, batch.advantages, decision, batch.mask, scale).backward()
    return logprobs.grad
