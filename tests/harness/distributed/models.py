"""Tiny random models of the kinds that the harness is tested with, and responses for them to learn from."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from harness.learning.experience import Experience, build_experience
from harness.rollout.records import Rollout

VOCAB = 23
COMMON = dict(
    vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    head_dim=8, initializer_range=0.3, max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=1,
)  # fmt: skip
KINDS = {
    "qwen3": lambda: Qwen3Config(**COMMON, tie_word_embeddings=True),
    "qwen3_moe": lambda: Qwen3MoeConfig(**COMMON, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "llama": lambda: LlamaConfig(**COMMON, tie_word_embeddings=False),
    "gemma": lambda: GemmaConfig(**COMMON),
    "gemma2": lambda: Gemma2Config(**COMMON, final_logit_softcapping=5.0, query_pre_attn_scalar=8, sliding_window=8),
    "granite": lambda: GraniteConfig(**COMMON, logits_scaling=8.0),  # divides its logits by it
    "cohere": lambda: CohereConfig(**COMMON, logit_scale=0.25),  # multiplies them by it
}


def make_model(kind: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(KINDS[kind](), dtype=dtype).eval()


def make_experience(num_rows: int = 11, width: int = 9, k: int = 5) -> Experience:
    random = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, width + 1, (num_rows,), generator=random)
    mask = torch.arange(width) < lengths[:, None]
    prompt_lengths = torch.randint(1, 7, (num_rows,), generator=random)
    prompts = torch.randint(2, VOCAB, (num_rows, 6), generator=random) * (torch.arange(6) < prompt_lengths[:, None])
    tokens = torch.randint(2, VOCAB, (num_rows, width), generator=random) * mask
    logprobs = -3 * torch.rand(num_rows, width, generator=random) * mask
    topk_ids = torch.stack([torch.randperm(VOCAB, generator=random)[:k] for _ in range(num_rows * width)])
    topk = torch.log_softmax(torch.randn(num_rows, width, k, generator=random), -1) - 0.1
    rollout = Rollout(
        prompts, prompt_lengths, tokens, mask, logprobs, topk_ids.view(num_rows, width, k), topk, mask[:, 0], torch.tensor(0)
    )
    advantages = torch.randn(num_rows, generator=random)
    return build_experience(rollout, advantages, torch.ones(num_rows, dtype=torch.bool), list(range(100, 100 + num_rows)))
