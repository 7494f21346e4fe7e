"""Log-probs of given tokens from hidden states, in chunks: logits of at most `chunk` tokens exist at a time.

The backward pass computes each chunk's logits again instead of keeping them: at a vocabulary of 151,936 that is the
difference between gigabytes and megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class TokenLogprobs:
    """Of N tokens, float32; only `logprobs` carries gradient."""

    logprobs: Tensor  # [N]
    topk_logprobs: Tensor  # [N, K] at the given ids, from the full softmax
    entropy: Tensor  # [N] nat


def token_logprobs(hidden: Tensor, head: nn.Linear, tokens: Tensor, topk_ids: Tensor, chunk: int, softcap: float | None = None):
    """hidden [N, H], tokens [N], topk_ids [N, K] → TokenLogprobs. `softcap` c: logits become c·tanh(logits/c) (Gemma)."""
    return TokenLogprobs(*_ChunkedLogprobs.apply(hidden, head.weight, head.bias, tokens, topk_ids, chunk, softcap))


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, topk_ids, chunk, softcap):
        logprobs, normaliser, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        topk_logprobs = hidden.new_empty(topk_ids.shape, dtype=torch.float32)
        for part in _chunks(len(hidden), chunk):
            logits = _logits(hidden[part], weight, bias, softcap)
            normaliser[part] = logits.logsumexp(-1)
            logits -= normaliser[part, None]
            logprobs[part] = logits.gather(-1, tokens[part, None]).squeeze(-1)
            topk_logprobs[part] = logits.gather(-1, topk_ids[part])
            entropy[part] = -torch.linalg.vecdot(logits.exp(), logits)
        ctx.save_for_backward(hidden, weight, bias, tokens, normaliser)
        ctx.chunk, ctx.softcap = chunk, softcap
        ctx.mark_non_differentiable(topk_logprobs, entropy)
        return logprobs, topk_logprobs, entropy

    @staticmethod
    def backward(ctx, grad_logprobs, _topk, _entropy):
        hidden, weight, bias, tokens, normaliser = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for part in _chunks(len(hidden), ctx.chunk):
            logits = _logits(hidden[part], weight, bias, ctx.softcap)
            grad = (logits - normaliser[part, None]).exp_().mul_(-grad_logprobs[part, None])
            grad.scatter_add_(-1, tokens[part, None], grad_logprobs[part, None])
            if ctx.softcap:
                grad *= 1 - (logits / ctx.softcap).square()
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ weight.to(hidden.dtype)
            grad_weight += grad.T @ hidden[part]
            if bias is not None:
                grad_bias += grad.sum(0)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


def _chunks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    logits = F.linear(hidden, weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)).float()
    return softcap * torch.tanh(logits / softcap) if softcap else logits
