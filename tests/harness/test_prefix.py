"""Prefix metrics against a count by hand in plain Python."""

import statistics

import pytest
import torch

from harness.learning.learner import Decided, Update
from harness.telemetry.prefix import MIN_RESPONSES, prefix_metrics, rank_correlation
from methods.base import Decision, TokenBatch

LENGTHS = [1, 2, 5, 6, 3, 4, 6, 5, 4, 6]


def decided(seed: int, lengths: list[int] = LENGTHS) -> Decided:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    log_ratio = 0.1 * torch.randn(mask.shape, generator=generator)
    divergence = torch.rand(mask.shape, generator=generator).masked_fill(~mask, 7.0)  # what padding holds must not matter
    keep = torch.rand(mask.shape, generator=generator) > 0.3
    batch = TokenBatch(log_ratio, torch.zeros_like(log_ratio), torch.ones_like(log_ratio), mask)
    return Decided(batch, Decision(torch.ones_like(log_ratio), keep), divergence, torch.zeros_like(log_ratio), None)


def update(*parts: Decided) -> Update:
    return Update(list(parts), loss=0.0, grad_norm=0.0, skipped=False, num_positions=0)


def by_hand(part: Decided) -> dict[str, float]:
    rows = []
    for b, length in enumerate(LENGTHS):
        if length < 2:
            continue
        h = length // 2
        D, l = part.divergence[b, :length].tolist(), part.batch.log_ratio[b, :length].tolist()
        kept = part.decision.keep[b, :length].tolist()
        root = (length - h) ** 0.5
        kept_sum = sum(x * k for x, k in zip(l[h:], kept[h:], strict=True))
        rows.append((sum(D), sum(D[:h]) / h, sum(l[h:]) / root, kept_sum / root))
    rows.sort(key=lambda row: row[1])
    drift, _, z, z_kept = zip(*rows, strict=True)
    half = len(rows) // 2
    order = sorted(range(len(z)), key=lambda i: abs(z[i]))
    return {
        "prefix/drift": statistics.mean(drift),
        "prefix/suffix_spread": statistics.stdev(z),
        "prefix/suffix_spread_kept": statistics.stdev(z_kept),
        "prefix/suffix_spread_calm": statistics.stdev(z[:half]),
        "prefix/suffix_spread_drifted": statistics.stdev(z[-half:]),
        "prefix/rank_correlation": statistics.correlation(range(len(z)), [order.index(i) for i in range(len(z))]),
    }


def test_one_update_by_hand():
    part = decided(0)
    assert prefix_metrics([update(part)]) == pytest.approx(by_hand(part), rel=1e-5)


def test_updates_are_averaged_and_those_with_few_responses_are_left_out():
    first, second, few = decided(1), decided(2), decided(3, [4] * (MIN_RESPONSES - 1))
    expected = {key: (by_hand(first)[key] + by_hand(second)[key]) / 2 for key in by_hand(first)}
    assert prefix_metrics([update(first), update(few), update(second), update()]) == pytest.approx(expected, rel=1e-5)
    assert prefix_metrics([update(few)]) == prefix_metrics([update()]) == {}


def test_the_split_into_micro_batches_does_not_matter():
    part = decided(4)
    whole, parts = prefix_metrics([update(part)]), prefix_metrics([update(rows(part, 0, 3), rows(part, 3, 10))])
    assert parts == pytest.approx(whole)


def rows(part: Decided, start: int, end: int) -> Decided:
    batch = part.batch
    cut = TokenBatch(*(t[start:end] for t in (batch.logprobs, batch.rollout_logprobs, batch.advantages, batch.mask)))
    decision = Decision(part.decision.weight[start:end], part.decision.keep[start:end])
    return Decided(cut, decision, part.divergence[start:end], part.entropy[start:end], None)


def test_an_update_at_the_weights_that_sampled_has_no_say():
    part, equal = decided(5), decided(6)
    equal.divergence *= 1e-6
    assert prefix_metrics([update(equal), update(part)]) == prefix_metrics([update(part)])


def test_policies_that_are_equal_correlate_with_nothing():
    zero = torch.zeros(9)
    assert rank_correlation(zero, torch.arange(9.0)) == rank_correlation(torch.arange(9.0), zero) == 0
    assert rank_correlation(torch.arange(9.0), torch.arange(9.0) ** 2) == pytest.approx(1)
