"""Makes what the speed benchmarks share: one small model, its tokenizer and prompts, and two kinds of response lengths.

The model is a Qwen3 of 3 layers, hidden size 128, 4 heads and 2 KV heads of 32, vocabulary 64, tied: 599,104 parameters; on a GPU
it has the shape of Qwen3-0.6B or 1.7B. Its small random weights make all tokens about equally likely, so response lengths are
geometric if the end token can be sampled. A step has 32 prompts of 12 tokens (16 prompts on a GPU), 8 responses each, 4 updates.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from evals import chain
from harness.planning.shape import Shape

GROUP, NUM_UPDATES = 8, 4
SHAPES = ("0.6B", "1.7B")  # of Qwen3, on a GPU
CHARACTERS = "0123456789+-*=;#:ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrs"
PAD, END = 0, 1
QWEN3_TINY = dict(
    vocab_size=64, hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=32, tie_word_embeddings=True, max_position_embeddings=512,
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    name: str
    max_response_length: int
    token_budget: int  # positions of a micro-batch, for sides that pack by length
    ends: bool  # True: responses end by themselves; False: all have full length
    num_prompts: int = 32
    rows_at_once: int = 16  # rows of a micro-batch, for sides that don't pack
    sizes: dict = field(default_factory=lambda: QWEN3_TINY)
    settings: tuple[str, ...] = ()  # of the harness, beside those that all workloads share

    @property
    def num_responses(self) -> int:
        return GROUP * self.num_prompts

    @property
    def shape(self) -> Shape:
        from transformers import Qwen3Config

        return Shape(Qwen3Config(**self.sizes))

    @property
    def never(self) -> int:
        """An end token id that the model can't sample."""
        return self.sizes["vocab_size"]

    @property
    def end_id(self) -> int:
        return END if self.ends else self.never


VARIED = Workload("varied", 256, 1024, ends=True)
FIXED = Workload("fixed", 64, 1024, ends=False)


def on_gpu(shape: str, length: int = 256) -> Workload:
    """A workload of full-length responses of a Qwen3 of this size ("0.6B"), in bfloat16 over float32 weights.

    A micro-batch has about 4,300 positions.
    """
    rows = max(1, 4096 // length)
    settings = ("train.precision=bfloat16", "rollout.precision=bfloat16", "train.logprob_chunk=2048")
    budget = rows * (length + 12)
    return Workload(shape, length, budget, False, num_prompts=16, rows_at_once=rows, sizes=qwen3(shape), settings=settings)


def qwen3(shape: str) -> dict:
    return json.loads((files("harness") / "assets" / "shapes" / f"Qwen3-{shape}.json").read_text())


def save_model(folder: Path, workload: Workload) -> Path:
    """Save model and tokenizer to a Hugging Face folder. Returns the folder."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = make_model(workload)
    model.save_pretrained(folder)
    make_tokenizer(workload).save_pretrained(folder)
    return folder


def make_model(workload: Workload) -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**workload.sizes, pad_token_id=PAD, eos_token_id=workload.end_id, bos_token_id=None)
    with torch.random.fork_rng(), torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        return Qwen3ForCausalLM(config)


def make_tokenizer(workload: Workload):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {name: i for i, name in enumerate(["<pad>", "<end>", *CHARACTERS])} | {"<never>": workload.never}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    end = "<end>" if workload.ends else "<never>"
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token=end, padding_side="left")


def long_update(workload: Workload, num_rows: int, length: int):
    """An Experience of random responses to random prompts of 48 tokens; the anchor's log-probs are those of a uniform policy."""
    from harness.learning.experience import Experience

    generator, vocab_size = torch.Generator().manual_seed(0), workload.sizes["vocab_size"]
    ids = lambda *shape: torch.randint(vocab_size, shape, generator=generator)
    prompts, tokens, topk_ids = ids(num_rows, 48), ids(num_rows, length), ids(num_rows, length, 20)
    uniform = lambda *shape: torch.full(shape, -math.log(vocab_size))
    return Experience(
        inputs=torch.cat([prompts, tokens], 1),
        prompt_lengths=torch.full((num_rows,), 48),
        tokens=tokens,
        mask=torch.ones(num_rows, length, dtype=torch.bool),
        anchor_logprobs=uniform(num_rows, length),
        topk_ids=topk_ids,
        anchor_topk_logprobs=uniform(num_rows, length, 20),
        advantages=(torch.arange(num_rows) % 2 - 0.5).float(),
        response_key=torch.arange(num_rows),
    )


def trained_run(*overrides: str):
    """Train a run in this process. Returns its folder."""
    from harness.run import train
    from harness.runs.attempt import StopRequest, attempt
    from harness.settings.compose import compose_plan

    plan = compose_plan(overrides)
    attempt(plan, train, StopRequest())
    return plan.folder


def prompt_texts(workload: Workload) -> list[str]:
    """Prompts of 12 tokens each."""
    rng = random.Random(0)
    return [chain.sample_problem(rng, 3).text for _ in range(workload.num_prompts)]


def prompt_length(workload: Workload) -> int:
    return len(prompt_texts(workload)[0])


def write_problems(path: Path, workload: Workload) -> Path:
    rows = [{"id": f"p{i}", "problem": text, "answer": "0"} for i, text in enumerate(prompt_texts(workload))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
