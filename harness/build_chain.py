"""Rebuild the embedded model: `python -m harness.build_chain --out FOLDER` (one thread, minutes).

A small Qwen3 learns chain arithmetic (evals/chain.py) from worked solutions that are wrong on purpose: some steps are
wrong nearly always, some now and then, and errors are carried on. The result solves a fraction of the problems, which
leaves reinforcement learning something to find. docs/testbed.md has the recipe and the scores of the result.

The same machine type and thread count give the same bits; another CPU gives another model of the same kind, so the
shipped weights are the reference.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from evals import chain

SEED = 0
NUM_UPDATES = 1000
OPERATIONS = range(2, 10)
ROWS_PER_LENGTH = 8
PEAK_LR = 3e-3
WARMUP = 50
FINAL_LR = 0.05  # share of the peak
MAX_POSITIONS = 256
PAD, EOS = "<pad>", "<eos>"
CHARACTERS = "0123456789+-*=;#:"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one id per character. It adds no tokens, decodes without spaces, and raises on other characters."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, *CHARACTERS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=None))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    core.decoder = tokenizers.decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int = SEED) -> Qwen3ForCausalLM:
    """The untrained model. Its heads have size 32, since vLLM's CPU attention supports no smaller ones."""
    config = Qwen3Config(
        vocab_size=2 + len(CHARACTERS),
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=256,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.05,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def faulty_step(rng: random.Random) -> Callable[[str, str, str], str]:
    """A function that computes a step with the demonstrations' errors.

    Each digit pair (x, y) under an operation has h = (7x + 5y + ord(op)) mod 12. Its result is wrong in one fixed way with
    probability 0.6 if h = 0 and 0.24 if h is 3, 6 or 9; for any other h it is a random digit with probability 0.025.
    """

    def faulty_digit(x: int, operation: str, y: int) -> int:
        right = chain.digit(x, operation, y)
        hardness = (7 * x + 5 * y + ord(operation)) % 12
        if hardness % 3:
            return rng.randrange(10) if rng.random() < 0.025 else right
        wrong = (right + 1 + (3 * x + y) % 9) % 10
        return wrong if rng.random() < (0.24 if hardness else 0.6) else right

    def step(left: str, operation: str, right: str) -> str:
        return "".join(str(faulty_digit(int(x), operation, int(y))) for x, y in zip(left, right, strict=True))

    return step


def demonstrations(seed: int = SEED) -> Iterator[list[tuple[int, list[str]]]]:
    """An endless stream of updates, each a list of (prompt length, texts of equal length): one item per number of operations."""
    rng = random.Random(f"chain demonstrations {seed}")
    problems = {n: chain.training_problems(rng, range(n, n + 1)) for n in OPERATIONS}
    step = faulty_step(rng)
    while True:
        prompts = [(n, [next(problems[n]).text for _ in range(ROWS_PER_LENGTH)]) for n in OPERATIONS]
        yield [(3 * n + 3, [text + chain.solution(text, step) + EOS for text in texts]) for n, texts in prompts]


def learning_rate(update: int, num_updates: int) -> float:
    """Linear warm-up, then a cosine to 5 % of the peak; `update` counts from 0."""
    if update < WARMUP:
        return PEAK_LR * (update + 1) / WARMUP
    progress = torch.tensor((update - WARMUP) / max(num_updates - WARMUP, 1))
    return PEAK_LR * (FINAL_LR + (1 - FINAL_LR) * (1 + torch.cos(torch.pi * progress)).item() / 2)


def response_loss(model: Qwen3ForCausalLM, ids: Tensor, prompt_length: int) -> Tensor:
    """Summed cross-entropy of the response tokens of `ids` [B, prompt + response]."""
    logits = model(input_ids=ids, use_cache=False).logits[:, prompt_length - 1 : -1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, prompt_length:].flatten(), reduction="sum")


def train(model: Qwen3ForCausalLM, tokenizer, num_updates: int = NUM_UPDATES, stop_after: int | None = None, seed: int = SEED):
    """Pre-train in place and yield (update, mean loss per response token) after each update."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    stream = demonstrations(seed)
    model.train()
    for update in range(stop_after or num_updates):
        optimizer.param_groups[0]["lr"] = learning_rate(update, num_updates)
        total, num_tokens = 0.0, 0
        for prompt_length, texts in next(stream):
            ids = tokenizer(texts, return_tensors="pt").input_ids
            loss = response_loss(model, ids, prompt_length)
            loss.backward()
            total, num_tokens = total + loss.item(), num_tokens + ids[:, prompt_length:].numel()
        for parameter in model.parameters():
            parameter.grad /= num_tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield update + 1, total / num_tokens


@dataclass
class LevelScore:
    """The model's score on one held-out level at temperature 1."""

    num_operations: int
    num_samples: int  # problems × samples per problem
    accuracy: float
    standard_error: float  # of the accuracy, over problems
    truncated: float  # share of responses cut
    mean_tokens: float  # per response, end token included
    entropy: float  # nats per response token


@torch.no_grad()
def score(model: Qwen3ForCausalLM, tokenizer, num_operations: int, num_samples: int = 4, seed: int = SEED) -> LevelScore:
    """Score on one level, from `num_samples` samples of each problem. A level's prompts have one length: nothing is padded."""
    problems = chain.level(num_operations)
    prompts = tokenizer([problem.text for problem in problems], return_tensors="pt").input_ids
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        out = model.eval().generate(
            prompts.repeat_interleave(num_samples, 0),
            do_sample=True,
            top_k=0,
            max_new_tokens=chain.MAX_RESPONSE_TOKENS,
            output_logits=True,
            return_dict_in_generate=True,
        )
    responses = out.sequences[:, prompts.shape[1] :]
    mask = responses != tokenizer.pad_token_id
    ended = (responses == tokenizer.eos_token_id).any(1)
    entropy = torch.distributions.Categorical(logits=torch.stack(out.logits, 1)).entropy()
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    grades = [chain.grade(text, problems[i // num_samples].answer, not ended[i]) for i, text in enumerate(texts)]
    by_problem = torch.tensor([grade.correct for grade in grades]).view(len(problems), num_samples).double().mean(1)
    return LevelScore(
        num_operations=num_operations,
        num_samples=len(grades),
        accuracy=by_problem.mean().item(),
        standard_error=(by_problem.std() / len(problems) ** 0.5).item(),
        truncated=1 - ended.double().mean().item(),
        mean_tokens=mask.sum(1).double().mean().item(),
        entropy=entropy[mask].mean().item(),
    )


def main(arguments: list[str] | None = None) -> None:
    """Train, save the folder, and print what the model scores."""
    parser = argparse.ArgumentParser(prog="python -m harness.build_chain", description="Rebuild the embedded model.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; made if missing")
    parser.add_argument("--updates", type=int, default=NUM_UPDATES, help="fewer for a trial (default %(default)s)")
    parser.add_argument("--samples", type=int, default=4, help="responses per held-out problem (default %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tokenizer, model = build_tokenizer(), build_model()
    started = time.perf_counter()
    for update, loss in train(model, tokenizer, options.updates):
        if update % 50 == 0 or update == options.updates:
            print(f"update {update}/{options.updates}  loss {loss:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    for num_operations in chain.LEVELS:
        print(score(model, tokenizer, num_operations, options.samples), flush=True)


if __name__ == "__main__":
    main()
