"""What every rollout engine does alike, whatever runs underneath: one test per promise of RolloutEngine."""

from contextlib import closing
from dataclasses import replace

import pytest
import torch

from harness.learning.model import load_model, load_tokenizer, stop_token_ids
from harness.rollout.canary import response_logprobs
from harness.rollout.engines import make_engine
from harness.rollout.queue import RolloutQueue
from harness.rollout.records import Sampling, request_seed
from harness.settings.compose import compose_config

SETTINGS = (
    "rollout.lag=2",
    "train.steps=4",
    "train.prompts_per_step=2",
    "train.group_size=4",
    "data.max_response_length=90",
)
DEEP = ("rollout.vllm.kv_cache_gb=0.2",)
TEXTS = ("47+58-21*37:", "96-87*97-37-72*31+08+28-64:", "11+22:")
SEEDS = [request_seed(1, text, index) for text in TEXTS for index in range(4)]


@pytest.fixture(scope="module")
def config(engine_name):
    return compose_config([f"rollout={engine_name}", *SETTINGS, *(DEEP if engine_name == "vllm" else ())])


@pytest.fixture(scope="module")
def model(config):
    return load_model(config.model)


@pytest.fixture(scope="module")
def tokenizer(config):
    return load_tokenizer(config.model.path)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def engine(config, model, tokenizer):
    with closing(make_engine(config, model, tokenizer)) as engine:
        engine.push(model, 0)
        yield engine


@torch.no_grad()
def expected_logprobs(model, rollout, prompts):
    """The learner's model, one response at a time."""
    pairs = zip([prompt for prompt in prompts for _ in range(rollout.group_size)], rollout.responses(), strict=True)
    return torch.cat([response_logprobs(model, prompt, response) for prompt, response in pairs])


@torch.no_grad()
def distributions(model, rollout, prompts):
    """[N, V] log-probs after every prefix of every response."""
    found = []
    for row, response in enumerate(rollout.responses()):
        prompt = prompts[row // rollout.group_size]
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found.append(torch.log_softmax(logits.float(), -1))
    return torch.cat(found)


def test_logprobs_are_the_learners(engine, model, prompts):
    rollout = engine.generate(prompts, SEEDS, Sampling(90, top_k=5))
    assert len(set(rollout.lengths.tolist())) > 2
    torch.testing.assert_close(rollout.logprobs[rollout.mask], expected_logprobs(model, rollout, prompts), atol=1e-5, rtol=0)


def test_a_response_depends_on_its_seed_not_on_its_batch(engine, prompts):
    sampling = Sampling(90, top_k=3)
    together = engine.generate(prompts, SEEDS, sampling)
    assert engine.generate(prompts, SEEDS, sampling).responses() == together.responses()
    assert engine.generate([prompts[1]], [SEEDS[6]], sampling).responses()[0] == together.responses()[6]
    assert engine.generate(prompts, [seed ^ 1 for seed in SEEDS], sampling).responses() != together.responses()


def test_the_largest_and_the_smallest_seed_are_taken(engine, prompts):
    rollout = engine.generate(prompts[:1], [0, 2**63 - 1, 2**63, 2**64 - 1], Sampling(5))
    assert rollout.tokens.shape == (4, 5)


def test_top_k_is_the_most_likely_and_never_truncates(engine, model, prompts):
    rollout = engine.generate(prompts, SEEDS, Sampling(90, top_k=5))
    full = distributions(model, rollout, prompts)
    values, ids = full.topk(5)
    torch.testing.assert_close(rollout.topk_logprobs[rollout.mask], values, atol=5e-5, rtol=0)
    clear = (values[:, :-1] - values[:, 1:] > 1e-4).all(-1)  # equal log-probs may come in either order
    assert torch.equal(rollout.topk_ids[rollout.mask][clear], ids[clear])
    one = engine.generate(prompts, SEEDS, Sampling(90, top_k=1))
    assert one.responses() == rollout.responses()
    assert (one.topk_ids[one.mask].squeeze(-1) != one.tokens[one.mask]).any(), "sampled beyond the recorded ids"


def test_a_small_vocabulary_comes_whole_and_in_order(engine, prompts):
    rollout = engine.generate(prompts, SEEDS, Sampling(20, top_k=20))
    assert rollout.topk_ids.shape[-1] == 19
    assert (rollout.topk_ids[rollout.mask] == torch.arange(19)).all()
    torch.testing.assert_close(rollout.topk_logprobs[rollout.mask].exp().sum(-1), torch.ones(int(rollout.mask.sum())))
    sampled = rollout.topk_logprobs.gather(-1, rollout.tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(sampled[rollout.mask], rollout.logprobs[rollout.mask])


def test_truncation(engine, tokenizer, model, prompts):
    stops = torch.tensor(stop_token_ids(model.generation_config, tokenizer))
    for limit in (1, 31, 90):
        rollout = engine.generate(prompts, SEEDS, Sampling(limit))
        last = torch.stack([tokens[mask][-1] for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)])
        assert rollout.lengths.max() <= limit and rollout.topk_ids.shape[-1] == 0
        assert torch.equal(rollout.truncated, ~torch.isin(last, stops))
        assert (rollout.lengths[rollout.truncated] == limit).all()
    assert not rollout.truncated.all() and engine.generate(prompts, SEEDS, Sampling(1)).truncated.all()


def test_an_end_token_at_the_limit_is_an_end(engine, prompts):
    length = int(engine.generate(prompts[:1], SEEDS[:1], Sampling(90)).lengths[0])
    exact = engine.generate(prompts[:1], SEEDS[:1], Sampling(length))
    assert int(exact.lengths[0]) == length and not exact.truncated[0]


def test_stop_sets(config, model, tokenizer, engine, prompts, monkeypatch):
    """A response ends at the first token of the set, and includes it."""
    semicolon = tokenizer.convert_tokens_to_ids(";")
    plain = engine.generate(prompts, SEEDS, Sampling(90))
    stops = engine.stop_ids
    monkeypatch.setattr(
        engine,
        "stop_ids",
        type(stops)([*stops, semicolon]) if isinstance(stops, list) else torch.cat([stops, torch.tensor([semicolon])]),
    )
    for before, after in zip(plain.responses(), engine.generate(prompts, SEEDS, Sampling(90)).responses(), strict=True):
        end = next((i for i, token in enumerate(before) if token == semicolon), len(before) - 1)
        assert after == before[: end + 1]


def test_padding_is_zero_and_types_are_fixed(engine, prompts):
    rollout = engine.generate(prompts, SEEDS, Sampling(90, top_k=3))
    for name in ("tokens", "logprobs", "topk_ids", "topk_logprobs"):
        assert (getattr(rollout, name)[~rollout.mask] == 0).all()
    types = {name: value.dtype for name, value in rollout.tensors().items()}
    whole = ("prompts", "prompt_lengths", "tokens", "topk_ids", "weight_version")
    assert all(types[name] == torch.int64 for name in whole)
    assert types["logprobs"] == types["topk_logprobs"] == torch.float32 and types["mask"] == types["truncated"] == torch.bool
    assert [rollout.prompts[i, :n].tolist() for i, n in enumerate(rollout.prompt_lengths)] == prompts


def test_evaluation_sampling(engine, model, prompts):
    """Tempered and cut to the nucleus when sampled; log-probs stay those of the whole distribution at temperature 1."""
    seeds = [request_seed(2, index) for index in range(len(prompts) * 64)]
    rollout = engine.generate(prompts, seeds, Sampling(8, temperature=0.7, top_p=0.6))
    torch.testing.assert_close(rollout.logprobs[rollout.mask], expected_logprobs(model, rollout, prompts), atol=1e-5, rtol=0)
    tempered = torch.log_softmax(distributions(model, rollout, prompts) / 0.7, -1).exp()
    probability = tempered.gather(-1, rollout.tokens[rollout.mask][:, None])
    likelier = torch.where(tempered > probability, tempered, 0.0).sum(-1)
    assert (likelier < 0.6 + 1e-4).all(), "every token belongs to the smallest set of mass top_p"
    hotter = engine.generate(prompts, seeds, Sampling(8, temperature=1.5))
    assert hotter.logprobs[hotter.mask].mean() < rollout.logprobs[rollout.mask].mean()


def test_sampling_follows_the_distribution(engine, model, prompts):
    seeds = [request_seed(3, index) for index in range(2000)]
    first = engine.generate(prompts[:1], seeds, Sampling(1)).tokens[:, 0]
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor(prompts[:1])).logits[0, -1], -1)
    observed = torch.bincount(first, minlength=19) / len(seeds)
    assert (observed - expected).abs().max() < 4 * (0.25 / len(seeds)) ** 0.5


def test_lagged_batches_keep_their_version_and_tokens(config, model, engine):
    """Step s learns from what was sampled `lag` steps before; a push in between changes nothing that waits."""
    queue = RolloutQueue(config, engine)
    engine.push(model, 0)
    versions, first = [], None
    for step in range(1, config.train.steps + 1):
        rollout, fresh = queue.take(step)
        assert (fresh is None) == (step > config.train.steps - config.rollout.lag)
        versions.append(int(rollout.weight_version))
        first = first or rollout
        engine.push(model, 4 * step)
    assert versions == [0, 0, 0, 4]
    alone = RolloutQueue(replace(config, rollout=replace(config.rollout, lag=0)), engine).take(1)[0]
    assert alone.responses() == first.responses()
