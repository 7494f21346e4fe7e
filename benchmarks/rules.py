"""Measure what the rules cost: `python -m benchmarks.rules`.

The first table times all rules of the comparison, with their scores, on [8, 2048] tokens with K = 20, beside a forward and
backward pass of a model (4 layers, hidden size 256) over as many tokens. The second table times each score and each rule once on
[512, 8192] tokens. Uses one thread by default.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from omegaconf import OmegaConf
from torch import Tensor

from harness.learning.divergence import PolicyPair, divergence
from methods import METHODS, Rule, TokenBatch

COMPARED = ("ppo", "grpo", "dppo", "cppo", "trm_max", "trm_avg", "trm", "cispo", "minpro")
TOPK, VOCAB_SIZE = 20, 4096


def shipped_rule(name: str) -> Rule:
    values = OmegaConf.load(f"conf/method/{name}.yaml")
    del values["defaults"]
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(METHODS[name]), values))


def random_pair(rows: int, width: int) -> PolicyPair:
    """A pair with log-probs of plausible size; its ids are not drawn from them."""
    generator = torch.Generator().manual_seed(0)
    uniform = lambda *shape: torch.rand(*shape, generator=generator)
    topk = (uniform(rows, width, TOPK) * 5 - 8).sort(-1, descending=True).values
    rollout = uniform(rows, width) * -3
    ids = torch.randint(VOCAB_SIZE, (rows, width, TOPK), generator=generator)
    drift = lambda values: (values + 0.1 * (torch.rand(values.shape, generator=generator) - 0.5)).clamp(max=-1e-3)
    mask = torch.arange(width) < torch.randint(width // 2, width, (rows, 1), generator=generator)
    return PolicyPair(ids[..., 3], drift(rollout), rollout, ids, drift(topk), topk, mask, VOCAB_SIZE)


def token_batch(pair: PolicyPair, score: Tensor | None) -> TokenBatch:
    advantages = torch.linspace(-1, 1, len(pair.mask))[:, None].expand(pair.mask.shape)
    return TokenBatch(pair.logprobs, pair.rollout_logprobs, advantages, pair.mask, score)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time, after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)


def apply_all(rules: list[Rule], rows: int, width: int) -> Callable[[], None]:
    """A function that applies every rule to the same tokens, as a step does: a fresh pair, each score once, a batch per rule."""
    fresh = random_pair(rows, width)
    fields = {name: getattr(fresh, name) for name in PolicyPair.__dataclass_fields__}

    def work() -> None:
        pair = PolicyPair(**fields)
        scores = {name: divergence(name, pair) for name in {rule.divergence for rule in rules} - {None}}
        for rule in rules:
            rule(token_batch(pair, scores.get(rule.divergence)))

    return work


def forward_backward(rows: int, width: int) -> Callable[[], None]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCAB_SIZE, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True, max_position_embeddings=width,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    tokens = torch.randint(VOCAB_SIZE, (1, width))

    def work() -> None:
        for _ in range(rows):  # a row at a time: the logits of all would not fit a small machine
            model(input_ids=tokens, labels=tokens).loss.backward()
        model.zero_grad()

    return work


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rules", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", type=int, nargs=2, default=(512, 8192), metavar=("ROWS", "WIDTH"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rules = {name: shipped_rule(name) for name in COMPARED}

    together = median_seconds(apply_all(list(rules.values()), 8, 2048), options.repeats)
    model = median_seconds(forward_backward(8, 2048), 1)
    print(f"| [8, 2048] tokens, {options.threads} thread | s |\n|---|---|")
    print(f"| forward and backward, 4 layers, hidden 256 | {model:.3f} |")
    print(f"| all {len(rules)} compared rules and their scores | {together:.4f} ({together / model:.2%}) |\n")

    rows, width = options.large
    pair = random_pair(rows, width)
    print(f"| [{rows}, {width}] tokens | s |\n|---|---|")
    scores = {}
    for name in sorted({rule.divergence for rule in rules.values()} - {None}):
        start = time.perf_counter()
        scores[name] = divergence(name, pair)
        print(f"| score {name} | {time.perf_counter() - start:.3f} |")
    for name, rule in rules.items():
        start = time.perf_counter()
        rule(token_batch(pair, scores.get(rule.divergence)))
        print(f"| {name} | {time.perf_counter() - start:.3f} |")


if __name__ == "__main__":
    main()
