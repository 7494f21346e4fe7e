"""Rules on the same tokens: shares worked out by hand, and sharing that changes no decision."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import pytest
import torch
from hydra.core.config_store import ConfigStore

from harness.learning.divergence import PolicyPair, divergence, kl_direction
from harness.learning.learner import Decided, token_batch
from harness.metric_table import POSITION_BUCKETS
from harness.settings.compose import compose_rule, shipped_rules
from harness.telemetry import shadow
from harness.telemetry.shadow import Minibatch, bucket_sums, observe, summary
from methods import METHODS, Rule, TokenBatch, all_methods
from methods.base import Decision


def random_minibatch(rows=6, width=12, k=5, vocab_size=11, seed=0) -> Minibatch:
    random = torch.Generator().manual_seed(seed)
    rollout = torch.randn(rows, width, vocab_size, generator=random, dtype=torch.float64).log_softmax(-1)
    learner = (rollout + 0.4 * torch.randn(rollout.shape, generator=random, dtype=torch.float64)).log_softmax(-1)
    tokens = torch.randint(vocab_size, (rows, width), generator=random)
    mask = torch.arange(width) < torch.randint(1, width + 1, (rows, 1), generator=random)
    top = rollout.topk(k)
    at = lambda policy: policy.gather(-1, tokens[..., None])[..., 0]
    pair = PolicyPair(
        tokens, at(learner), at(rollout), top.indices, learner.gather(-1, top.indices), top.values, mask, vocab_size
    )
    keep = (torch.rand(rows, width, generator=random) < 0.7).double()
    own = Decision(torch.ones(rows, width, dtype=torch.float64), keep)
    advantages = torch.randn(rows, generator=random, dtype=torch.float64)
    return Minibatch(pair, advantages, torch.arange(rows), divergence("topk_tv", pair), torch.zeros_like(keep), own, width)


def four_tokens() -> Minibatch:
    """Two responses: ρ = 1, 2, 4, 1 with A = 1, of which the running rule drops the second token; ρ = 2 with A = −3."""
    rollout = torch.full((2, 4), 0.125, dtype=torch.float64).log()
    learner = rollout + torch.tensor([[1, 2, 4, 1], [2, 1, 1, 1]], dtype=torch.float64).log()
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    ids, top = torch.zeros(2, 4, 1, dtype=torch.long), rollout[..., None]
    pair = PolicyPair(ids[..., 0], learner, rollout, ids, top, top, mask, 8)
    own = Decision(torch.ones(2, 4), torch.tensor([[1.0, 0, 1, 1], [1, 1, 1, 1]]))
    zeros = torch.zeros(2, 4)
    return Minibatch(pair, torch.tensor([1.0, -3.0], dtype=torch.float64), torch.arange(2), zeros, zeros, own, 4)


def test_shares_by_hand():
    minibatch = four_tokens()
    # weights 1 2 2 1 | 2, drops the second and the third token of the first response; garbage where masked
    weight = torch.tensor([[1.0, 2, 2, 1], [2, torch.nan, torch.inf, 5]])
    keep = torch.tensor([[1.0, 0, 0, 1], [1, 0, 0, 0]])
    row = summary(bucket_sums(minibatch, Decision(weight, keep)))
    assert row["tokens"] == 5
    assert row["kept"] == 3 / 5
    assert row["mass_kept"] == pytest.approx((1 + 1 + 3 * 2) / (1 + 2 + 2 + 1 + 3 * 2), rel=1e-5)
    assert row["mass_of_is"] == pytest.approx((1 + 1 + 3 * 2) / (1 + 2 + 4 + 1 + 3 * 2), rel=1e-5)
    assert row["jaccard"] == 1 / 2
    # of four tokens (t − 1)/T = 0, 1/4, 1/2, 3/4: buckets 0, 2, 5, 7; of one token: bucket 0
    positions = row["by_position"]
    assert positions["tokens"] == [2, 0, 1, 0, 0, 1, 0, 1, 0, 0]
    assert positions["kept"] == [1, None, 0, None, None, 0, None, 1, None, None]
    assert positions["mass_kept"] == [1, None, 0, None, None, 0, None, 1, None, None]
    assert positions["jaccard"] == [1, None, 1, None, None, 0, None, 1, None, None]
    assert len(positions["kept"]) == POSITION_BUCKETS


def test_soft_gates_count_with_their_share():
    keep = torch.tensor([[1.0, 0.25, 0.5, 1], [1, 1, 1, 1]])
    row = summary(bucket_sums(four_tokens(), Decision(torch.ones(2, 4), keep)))
    assert row["kept"] == pytest.approx(3.75 / 5)
    assert row["jaccard"] == pytest.approx(0.75 / (1 + 0.5))  # d = .75, .5 against own 1, 0


def test_two_rules_that_drop_nothing_agree():
    minibatch = four_tokens()
    minibatch.own = Decision(torch.ones(2, 4), torch.ones(2, 4))
    assert summary(bucket_sums(minibatch, minibatch.own))["jaccard"] == 1


def test_weights_of_zero_leave_no_share():
    row = summary(bucket_sums(four_tokens(), Decision(torch.zeros(2, 4), torch.ones(2, 4))))
    assert (row["kept"], row["mass_kept"], row["mass_of_is"]) == (1, None, 0)


@pytest.mark.parametrize("name", METHODS)
def test_a_rule_decides_as_it_does_alone(name):
    """With its own score, whatever the other rules asked for before."""
    minibatch, rules = random_minibatch(), shipped_rules()
    together, rule, pair = observe(minibatch, rules), rules[name], minibatch.pair
    alone = rule(
        TokenBatch(
            pair.logprobs, pair.rollout_logprobs, minibatch.advantages[:, None].expand(pair.mask.shape), pair.mask,
            divergence=divergence(rule.divergence, pair, rule.topk_set) if rule.divergence else None,
            response_key=minibatch.response_key, kl_direction=kl_direction(pair, rule.topk_set), horizon=minibatch.horizon,
        )
    )  # fmt: skip
    assert torch.equal(together[name].keep[pair.mask], alone.keep[pair.mask])
    assert torch.equal(together[name].weight[pair.mask], alone.weight[pair.mask])
    assert together[name].aux.keys() == alone.aux.keys()


def test_each_distinct_score_is_computed_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        shadow, "divergence", lambda name, pair, topk_set: asked.append((name, topk_set)) or divergence(name, pair, topk_set)
    )
    observe(random_minibatch(), shipped_rules())
    assert sorted(asked) == [("topk_kl", "union"), ("topk_tv", "union")]


def decided(minibatch: Minibatch, rule: Rule, rows: list[int], width: int) -> Decided:
    cut = lambda value: value[rows, :width]
    names = ("tokens", "logprobs", "rollout_logprobs", "topk_ids", "topk_logprobs", "rollout_topk_logprobs", "mask")
    pair = PolicyPair(**{name: cut(getattr(minibatch.pair, name)) for name in names}, vocab_size=minibatch.pair.vocab_size)
    score = lambda name, topk_set: divergence(name, pair, topk_set)
    batch = token_batch(rule, pair, score, minibatch.advantages[rows], minibatch.response_key[rows], minibatch.horizon)
    return Decided(batch, rule(batch), score("topk_tv", "union"), cut(minibatch.entropy), pair)


@pytest.mark.parametrize("name", ["cppo", "trm", "pdm", "grpo"])
def test_no_split_into_micro_batches_changes_it(name):
    minibatch, rule = random_minibatch(), shipped_rules()[name]
    lengths = minibatch.mask.sum(-1)
    whole = Minibatch.of([decided(minibatch, rule, [3, 1, 0, 2, 5, 4], 12)], 12)
    halves = ([4, 0, 2], [5, 3, 1])
    split = Minibatch.of([decided(minibatch, rule, rows, int(lengths[rows].max())) for rows in halves], 12)
    assert whole.response_key.tolist() == list(range(6))
    assert torch.equal(whole.advantages, minibatch.advantages)
    for one in (whole, split):
        assert torch.equal(one.pair.tokens[one.mask], minibatch.pair.tokens[minibatch.mask])
        assert torch.equal(one.own.keep[one.mask], minibatch.decide(rule).keep[minibatch.mask])
    assert summary(bucket_sums(split, split.own)) == summary(bucket_sums(whole, whole.own))


def test_a_rule_that_fails_is_left_out_and_said(caplog):
    complete = compose_rule("dppo", ["method.divergence=full_tv"])  # needs all 11 ids, and 5 are listed
    decisions = observe(random_minibatch(), {"dppo": shipped_rules()["dppo"], "full": complete})
    assert list(decisions) == ["own", "dppo"]
    assert "rule full failed" in caplog.text and "vocabulary" in caplog.text


@dataclass
class ThirdParty(Rule):
    bound: float = 2.0

    def __call__(self, batch):
        return Decision(batch.ratio, batch.ratio <= self.bound)


@dataclass
class WithoutNumbers(ThirdParty):
    bound: float = "???"


@pytest.fixture
def plugins(monkeypatch):
    """Two installed plug-ins; everything as before afterwards."""

    def point(plugin_name: str, rule: type):
        return type("Point", (), {"name": plugin_name, "load": lambda self: rule})()

    found = [point("third_party", ThirdParty), point("without_numbers", WithoutNumbers)]
    monkeypatch.setattr("methods.entry_points", lambda group: found)
    before = ConfigStore.instance().repo["method"].copy() if "method" in ConfigStore.instance().repo else None
    all_methods.cache_clear(), shipped_rules.cache_clear()
    yield
    monkeypatch.undo()
    all_methods.cache_clear(), shipped_rules.cache_clear()
    if before is None:
        del ConfigStore.instance().repo["method"]
    else:
        ConfigStore.instance().repo["method"] = before


def test_a_plugin_takes_part_at_its_own_defaults(plugins, caplog):
    decisions = observe(random_minibatch(), shipped_rules())
    assert decisions.keys() == {"own", *METHODS, "third_party"}
    assert torch.equal(decisions["third_party"].keep, (random_minibatch().plain.ratio <= 2.0).double())
    assert "without_numbers has no complete settings" in caplog.text
    assert compose_rule("without_numbers", ["method.bound=3.0"]).bound == 3.0


def test_a_policy_that_is_no_longer_finite_is_recorded_too():
    """The run's collapse rule judges it; a recording must neither fail nor look like an ordinary one."""
    minibatch = random_minibatch()
    minibatch.pair.logprobs[0, 0] = torch.nan
    minibatch.pair.topk_logprobs[0, 0] = torch.nan
    decisions = observe(minibatch, shipped_rules())
    assert decisions.keys() == {"own", *METHODS}
    row = summary(bucket_sums(minibatch, decisions["pg_is"]))
    assert row["kept"] == 1 and isnan(row["mass_kept"]) and isnan(row["by_position"]["mass_kept"][0])
    assert not isnan(row["by_position"]["mass_kept"][9])
