"""What the speed benchmarks have in common: one small model, its tokenizer and prompts, and two kinds of response lengths.

The model is a Qwen3 of 3 layers, hidden size 128, 4 heads and 2 KV heads of 32, vocabulary 64, tied: 599,104 parameters. Random
weights of small size make all tokens about equally likely, so that with the end token among them lengths are geometric.
A step: 32 prompts of 12 tokens, 8 responses each, 4 updates of 64 responses.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from evals import chain

NUM_PROMPTS, GROUP, NUM_UPDATES = 32, 8, 4
NUM_RESPONSES = NUM_PROMPTS * GROUP
CHARACTERS = "0123456789+-*=;#:ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrs"
PAD, END = 0, 1
NEVER = 64  # an end token that the model can't sample


@dataclass(frozen=True)
class Workload:
    name: str
    max_response_length: int
    end_id: int
    token_budget: int  # positions of a micro-batch, for those who pack by length


VARIED = Workload("varied", 256, END, 4096)
FIXED = Workload("fixed", 64, NEVER, 4096)


def save_model(folder: Path, workload: Workload, num_layers: int = 3) -> Path:
    """A Hugging Face folder with model and tokenizer."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = make_model(workload, num_layers)
    model.save_pretrained(folder)
    make_tokenizer(workload).save_pretrained(folder)
    return folder


def make_model(workload: Workload, num_layers: int = 3) -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=64, hidden_size=128, intermediate_size=384, num_hidden_layers=num_layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=True, max_position_embeddings=512,
        pad_token_id=PAD, eos_token_id=workload.end_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen3ForCausalLM(config)


def make_tokenizer(workload: Workload):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<end>", *CHARACTERS, "<never>"]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    end = names[workload.end_id]
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token=end, padding_side="left")


def trained_run(*overrides: str):
    """The folder of a run that has ended."""
    from harness.run import train
    from harness.runs.attempt import StopRequest, attempt
    from harness.settings.compose import compose_plan

    plan = compose_plan(overrides)
    attempt(plan, train, StopRequest())
    return plan.folder


def prompt_texts() -> list[str]:
    """12 tokens each."""
    rng = random.Random(0)
    return [chain.sample_problem(rng, 3).text for _ in range(NUM_PROMPTS)]


def write_problems(path: Path) -> Path:
    rows = [{"id": f"p{i}", "problem": text, "answer": "0"} for i, text in enumerate(prompt_texts())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
