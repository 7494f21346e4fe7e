"""The learner: log-probs against plain autograd, and gradients that no split changes."""

from dataclasses import replace
from itertools import combinations, pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3Config

from harness.learning import head
from harness.learning.experience import build_experience, cheapest_cuts, microbatches, minibatches
from harness.learning.head import compiled, logit_gradients, token_logprobs, token_scores
from harness.learning.learner import Learner
from harness.rollout.records import Rollout
from harness.timing import Timer
from methods import METHODS
from methods.base import Decision

TRAIN = SimpleNamespace(
    lr=1e-3, betas=[0.9, 0.999], adam_eps=1e-8, weight_decay=0.0, clip_norm=1.0, warmup_updates=4, aggregation="token-mean",
    divergence="topk_tv", precision="float32", token_budget=10_000, logprob_chunk=7,
)  # fmt: skip


def make_model(vocab_size: int = 23):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float64)


def make_rollout(num_prompts=3, group=4, width=9, k=5, vocab_size=23) -> Rollout:
    random = torch.Generator().manual_seed(1)
    rows = num_prompts * group
    lengths = torch.randint(1, width + 1, (rows,), generator=random)
    mask = torch.arange(width) < lengths[:, None]
    prompt_lengths = torch.tensor([4, 2, 6])[:num_prompts]
    prompts = torch.randint(1, vocab_size, (num_prompts, 6), generator=random)
    prompts[torch.arange(6) >= prompt_lengths[:, None]] = 0
    tokens = torch.randint(1, vocab_size, (rows, width), generator=random) * mask
    logprobs = -3 * torch.rand(rows, width, generator=random, dtype=torch.float64) * mask
    topk_ids = torch.stack([torch.randperm(vocab_size, generator=random)[:k] for _ in range(rows * width)]).view(rows, width, k)
    topk = torch.log_softmax(torch.randn(rows, width, k, generator=random, dtype=torch.float64), -1) - 0.1
    return Rollout(prompts, prompt_lengths, tokens, mask, logprobs, topk_ids, topk, torch.zeros(rows).bool(), torch.tensor(0))


def make_experience():
    rollout = make_rollout()
    advantages = torch.randn(12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    use = torch.ones(12, dtype=torch.bool)
    use[3] = False
    return rollout, build_experience(rollout, advantages, use, list(range(100, 112)))


class KeepAll(METHODS["pg"]):
    def __call__(self, batch):
        return Decision(torch.ones_like(batch.ratio), torch.ones_like(batch.ratio))


def gradient(token_budget: int, rule, chunk: int = 7) -> torch.Tensor:
    """The accumulated gradient of one minibatch, just before clipping."""
    model, config = make_model(), SimpleNamespace(**vars(TRAIN) | {"token_budget": token_budget, "logprob_chunk": chunk})
    learner = Learner(model, rule, config, horizon=9)
    learner.step = lambda loss: (0.0, False)
    learner.update(make_experience()[1], Timer())
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_logprobs_equal_the_whole_softmax():
    rollout, experience = make_experience()
    model = make_model()
    scored = Learner(model, KeepAll(), TRAIN, 9).score(experience)
    for row in range(len(experience)):
        length, start = int(experience.lengths[row]), int(experience.prompt_lengths[row])
        ids = experience.inputs[row, : start + length]
        full = torch.log_softmax(model(ids[None]).logits[0, start - 1 : -1], -1)
        expected = full.gather(-1, experience.tokens[row, :length, None]).squeeze(-1)
        torch.testing.assert_close(scored.logprobs[row, :length].double(), expected, atol=1e-5, rtol=0)
        topk = full.gather(-1, experience.topk_ids[row, :length])
        torch.testing.assert_close(scored.topk_logprobs[row, :length].double(), topk, atol=1e-5, rtol=0)
        entropy = -(full.exp() * full).sum(-1)
        torch.testing.assert_close(scored.entropy[row, :length].double(), entropy, atol=1e-5, rtol=0)


def test_prompt_and_response_stand_side_by_side():
    rollout, experience = make_experience()
    kept = [row for row in range(12) if row != 3]
    for place, row in enumerate(kept):
        prompt = rollout.prompts[row // 4][: rollout.prompt_lengths[row // 4]].tolist()
        response = rollout.tokens[row][rollout.mask[row]].tolist()
        inputs = experience.inputs[place].tolist()
        assert inputs[: len(prompt) + len(response)] == prompt + response
        assert not any(inputs[len(prompt) + len(response) :])
        assert int(experience.response_key[place]) == 100 + row


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("bias", [False, True])
def test_chunked_gradients_equal_autograd(softcap, bias):
    random = torch.Generator().manual_seed(3)
    hidden = torch.randn(11, 6, generator=random, requires_grad=True)
    head = nn.Linear(6, 13, bias=bias)
    tokens, ids = torch.randint(13, (11,), generator=random), torch.randint(13, (11, 4), generator=random)
    coefficient = torch.randn(11, generator=random)

    def grads(logprobs):
        return torch.autograd.grad((coefficient * logprobs).sum(), [hidden, *head.parameters()])

    logits = head(hidden)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    plain = torch.log_softmax(logits, -1)
    chunked = token_logprobs(hidden, head, tokens, ids, chunk=4, softcap=softcap)
    torch.testing.assert_close(chunked.logprobs, plain.gather(-1, tokens[:, None]).squeeze(-1))
    torch.testing.assert_close(chunked.topk_logprobs, plain.gather(-1, ids))
    torch.testing.assert_close(chunked.entropy, -(plain.exp() * plain).sum(-1))
    expected = grads(plain.gather(-1, tokens[:, None]).squeeze(-1))
    for found, wanted in zip(grads(chunked.logprobs), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow  # it compiles, as a GPU does for bfloat16
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_compiled_passes_over_logits_equal_plain_ones(softcap):
    random = torch.Generator().manual_seed(4)
    logits, coefficient = (3 * torch.randn(9, 700, generator=random)).bfloat16(), torch.randn(9, generator=random)
    tokens, ids = torch.randint(700, (9,), generator=random), torch.randint(700, (9, 4), generator=random)
    for rows in (9, 5):  # the last chunk is shorter
        some = logits[:rows], tokens[:rows]
        plain = token_scores(*some, ids[:rows], softcap, None)
        torch.testing.assert_close(compiled(token_scores)(*some, ids[:rows], softcap, None), plain)
        ways = (logit_gradients, compiled(logit_gradients))
        expected, found = (way(some[0].clone(), some[1], plain[-1], coefficient[:rows], softcap) for way in ways)
        torch.testing.assert_close(found, expected)


def test_want_of_a_compiler_is_said(monkeypatch, caplog):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(head, "which", lambda name: None)
    assert not head.can_compile.__wrapped__()
    assert "install a C compiler" in caplog.text


@pytest.mark.parametrize("rule", ["pg", "m2po"])
def test_any_split_gives_the_same_gradient(rule, request):
    from harness.settings.compose import compose_plan

    settings = compose_plan([f"method={rule}"]).config.method
    whole, single, few = gradient(10_000, settings), gradient(1, settings), gradient(40, settings)
    assert whole.abs().max() > 0
    torch.testing.assert_close(single, whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(few, whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_every_rule_takes_a_step(name):
    from harness.settings.compose import compose_rule

    model = make_model()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    update = Learner(model, compose_rule(name), TRAIN, 9).update(make_experience()[1], Timer())
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert not update.skipped and torch.isfinite(after).all()
    kept = sum(float((j.decision.keep * j.batch.mask).sum()) for j in update.decided)
    assert torch.equal(before, after) == (kept == 0)


def test_micro_batches_hold_whole_rows_within_the_budget():
    experience = make_experience()[1]
    parts = microbatches(experience, 30)
    assert sorted(torch.cat(parts).tolist()) == list(range(11))
    total = experience.prompt_lengths + experience.lengths
    assert all(len(part) == 1 or len(part) * total[part].max() <= 30 for part in parts)
    assert len(parts) > 2


@pytest.mark.parametrize("lengths", [[9, 9, 5, 5, 4, 2, 2, 1], [30, 3, 2, 2, 2], [7] * 6, [5], []])
def test_no_other_cut_costs_less(lengths):
    def cost(cuts):
        sizes = [((end - start) * lengths[start], end - start) for start, end in pairwise(cuts)]
        return sum(positions + 6 for positions, _ in sizes) if all(p <= 20 or n == 1 for p, n in sizes) else float("inf")

    ends = range(1, len(lengths))
    everything = [[*sorted({0, *inner, len(lengths)})] for k in range(len(lengths) + 1) for inner in combinations(ends, k)]
    cuts = cheapest_cuts(lengths, token_budget=20, cost_of_a_pass=6)
    assert cost(cuts) == min(map(cost, everything)) < float("inf")


def test_minibatches_partition_the_rows_and_follow_the_seed():
    parts = minibatches(11, 4, seed=5)
    assert sorted(torch.cat(parts).tolist()) == list(range(11)) and [len(p) for p in parts] == [3, 3, 3, 2]
    assert all(torch.equal(a, b) for a, b in zip(parts, minibatches(11, 4, seed=5), strict=True))
    assert torch.cat(parts).tolist() != torch.cat(minibatches(11, 4, seed=6)).tolist()
    assert len(minibatches(2, 4, seed=5)) == 2 and minibatches(0, 4, seed=5) == []


def test_a_non_finite_gradient_changes_no_weight():
    model = make_model()
    learner = Learner(model, KeepAll(), TRAIN, 9)
    before = [p.clone() for p in model.parameters()]
    experience = make_experience()[1]
    update = learner.update(replace(experience, advantages=experience.advantages * torch.inf), Timer())
    assert update.skipped and learner.num_updates == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert not learner.update(experience, Timer()).skipped
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_warm_up_is_linear_then_constant():
    learner = Learner(make_model(), KeepAll(), TRAIN, 9)
    assert [learner.learning_rate(u) for u in range(6)] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])
