"""The decode loop against a plain reference: one row, no cache, whole forward at every token."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen3Config, Qwen3MoeConfig

from harness.rollout import attention
from harness.rollout.decode import GrowingLayer, TransformersEngine, nucleus, sample
from harness.rollout.records import Sampling, request_seed, uniforms

SMALL = dict(
    vocab_size=31,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)
STOPS = [7, 15, 23]


def make_model(kind: str):
    torch.manual_seed(0)
    implementation = dict(attn_implementation=attention.register())
    if kind == "gemma":  # sliding layers, window shorter than the responses
        config = Gemma3TextConfig(**SMALL, sliding_window=6, initializer_range=0.3)
        return Gemma3ForCausalLM._from_config(config, **implementation).eval()
    if kind == "qwen3_moe":
        config = Qwen3MoeConfig(**SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, initializer_range=0.3)
    else:
        config = {"qwen3": Qwen3Config, "llama": LlamaConfig}[kind](**SMALL, initializer_range=0.3)
    return AutoModelForCausalLM.from_config(config, **implementation).eval()


PROMPTS = [[1, 2, 3], [4, 5, 6, 8, 9, 10, 11], [12]]
SEEDS = [request_seed(1, p, g) for p in range(3) for g in range(4)]


def engine(model, max_rows=64):
    return TransformersEngine(model, STOPS, torch.float32, max_rows)


@torch.no_grad()
def reference(model, prompt: list[int], seed: int, sampling: Sampling):
    """Tokens and log-probs of one response, token by token without a cache."""
    random = uniforms([seed], sampling.max_response_length)[0]
    ids, logprobs = list(prompt), []
    for position in range(sampling.max_response_length):
        distribution = torch.log_softmax(model(torch.tensor([ids])).logits[:, -1].float(), -1)
        token = sample(distribution, random[position : position + 1], sampling.temperature, sampling.top_p).item()
        ids.append(token)
        logprobs.append(distribution[0])
        if token in STOPS:
            break
    return ids[len(prompt) :], torch.stack(logprobs)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma", "qwen3_moe"])
def test_equals_the_reference(kind):
    model, sampling = make_model(kind), Sampling(20, top_k=5)
    rollout = engine(model).generate(PROMPTS, SEEDS, sampling)
    lengths = set()
    for row, seed in enumerate(SEEDS):
        tokens, logprobs = reference(model, PROMPTS[row // 4], seed, sampling)
        mask = rollout.mask[row]
        assert rollout.tokens[row][mask].tolist() == tokens
        expected = logprobs[torch.arange(len(tokens)), torch.tensor(tokens)]
        torch.testing.assert_close(rollout.logprobs[row][mask], expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(rollout.topk_logprobs[row][mask], logprobs.topk(5).values, atol=2e-5, rtol=0)
        assert bool(rollout.truncated[row]) == (tokens[-1] not in STOPS)
        lengths.add(len(tokens))
    assert len(lengths) > 2, "rows must end at different places for this test to mean something"


def test_a_response_depends_on_its_seed_not_on_its_batch():
    model, sampling = make_model("qwen3"), Sampling(20, top_k=3)
    together = engine(model).generate(PROMPTS, SEEDS, sampling)
    apart = engine(model, max_rows=4).generate(PROMPTS, SEEDS, sampling)
    assert together.responses() == apart.responses()
    alone = engine(model).generate([PROMPTS[1]], [SEEDS[5]], sampling)
    assert alone.responses()[0] == together.responses()[5]
    other = engine(model).generate(PROMPTS, [seed + 1 for seed in SEEDS], sampling)
    assert other.responses() != together.responses()


def test_padding_is_zero_and_the_whole_vocabulary_comes_in_order():
    rollout = engine(make_model("qwen3")).generate(PROMPTS, SEEDS, Sampling(20, top_k=99))
    for name in ("tokens", "logprobs", "topk_ids", "topk_logprobs"):
        assert (getattr(rollout, name)[~rollout.mask] == 0).all()
    assert (rollout.topk_ids[rollout.mask] == torch.arange(31)).all()
    torch.testing.assert_close(rollout.topk_logprobs[rollout.mask].exp().sum(-1), torch.ones(int(rollout.mask.sum())))


def test_one_token_limit_truncates_all_but_immediate_stops():
    rollout = engine(make_model("qwen3")).generate(PROMPTS, SEEDS, Sampling(1))
    assert rollout.tokens.shape[1] == 1 and rollout.topk_ids.shape[-1] == 0
    assert (rollout.truncated == (~torch.isin(rollout.tokens[:, 0], torch.tensor(STOPS)))).all()


def test_responses_beyond_the_models_context_are_warned_of(caplog):
    model = make_model("qwen3")
    model.config.max_position_embeddings = 26
    for limit, warned in ((19, 0), (20, 1), (20, 1)):  # the longest prompt has 7 tokens
        engine(model).generate(PROMPTS, SEEDS, Sampling(limit))
        assert len(caplog.messages) == warned
    assert "response of up to 20 tokens may exceed the model's context of 26 tokens" in caplog.text
    assert "lower rollout.max_response_length" in caplog.text


def test_sampling_follows_the_distribution():
    logprobs = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().expand(4000, 4)
    uniform = torch.from_numpy(__import__("numpy").random.default_rng(0).random(4000))
    share = torch.bincount(sample(logprobs, uniform), minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.025, rtol=0)
    assert share[2] == 0
    squared = torch.bincount(sample(logprobs, uniform, temperature=0.5), minlength=4) / 4000
    torch.testing.assert_close(squared, torch.tensor([0.01, 0.04, 0.0, 0.49]) / 0.54, atol=0.025, rtol=0)


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64)
    assert nucleus(probs, 0.75).tolist() == [[0.0, 0.5, 0.0, 0.25]]
    assert nucleus(probs, 0.76).tolist() == [[0.0, 0.5, 0.15, 0.25]]
    assert nucleus(probs, 0.01).tolist() == [[0.0, 0.5, 0.0, 0.0]]


def test_a_cast_copy_follows_pushes():
    model = make_model("qwen3")
    half = TransformersEngine(model, STOPS, torch.bfloat16, 64)
    before = half.generate(PROMPTS, SEEDS, Sampling(5)).logprobs
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05
    assert (half.generate(PROMPTS, SEEDS, Sampling(5)).logprobs == before).all()
    half.push(model, version=3)
    after = half.generate(PROMPTS, SEEDS, Sampling(5))
    assert not torch.equal(after.logprobs, before) and int(after.weight_version) == 3


def test_a_growing_layer_holds_what_it_was_given_and_little_more():
    layer, generator = GrowingLayer(), torch.Generator().manual_seed(0)
    states = lambda rows, length: torch.randn(rows, 2, length, 3, generator=generator)
    given = [states(2, 5)]
    layer.update(given[0], -given[0])
    layer.batch_repeat_interleave(3)
    layer.batch_select_indices(torch.tensor([0, 4, 5]))
    given = [given[0].repeat_interleave(3, 0)[[0, 4, 5]]]
    for _ in range(100):
        given.append(states(3, 1))
        keys, values = layer.update(given[-1], -given[-1])
        assert torch.equal(keys, torch.cat(given, 2)) and torch.equal(values, -keys)
        assert layer.keys.shape[2] <= keys.shape[2] + max(4, keys.shape[2] // 16)
