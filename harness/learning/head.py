"""A language model's head: log-probs of given tokens from hidden states. Logits of at most `chunk` tokens exist at a time.

The backward pass computes each chunk's logits again instead of keeping them: at a vocabulary of 151,936 that is the
difference between gigabytes and megabytes. On a GPU, in bfloat16, each pass over the logits is one compiled kernel.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from shutil import which
from sysconfig import get_path
from typing import NamedTuple

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)


class TokenLogprobs(NamedTuple):
    """Of N tokens, from the full softmax, float32; only `logprobs` carries gradient."""

    logprobs: Tensor  # [N]
    topk_logprobs: Tensor  # [N, K] at the given ids
    entropy: Tensor  # [N] nat


def token_logprobs(hidden: Tensor, head: nn.Linear, tokens: Tensor, topk_ids: Tensor, chunk: int, softcap: float | None = None):
    """hidden [N, H], tokens [N], topk_ids [N, K] → TokenLogprobs. `softcap` c: logits become c·tanh(logits/c) (Gemma)."""
    return TokenLogprobs(*_ChunkedLogprobs.apply(hidden, head.weight, head.bias, tokens, topk_ids, chunk, softcap))


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, topk_ids, chunk, softcap):
        logprobs, normaliser, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        topk_logprobs = hidden.new_empty(topk_ids.shape, dtype=torch.float32)
        logits_of = _Logits(weight, bias, _compute_dtype(hidden), min(chunk, len(hidden)))
        for part in _chunks(len(hidden), chunk):
            logits = logits_of(hidden[part])
            scores = logits_of.run(token_scores)(logits, tokens[part], topk_ids[part], softcap, logits_of.scratch(len(logits)))
            logprobs[part], topk_logprobs[part], entropy[part], normaliser[part] = scores
        ctx.save_for_backward(hidden, weight, bias, tokens, normaliser)
        ctx.chunk, ctx.softcap, ctx.dtype = chunk, softcap, logits_of.dtype
        ctx.mark_non_differentiable(topk_logprobs, entropy)
        return logprobs, topk_logprobs, entropy

    @staticmethod
    def backward(ctx, grad_logprobs, _topk, _entropy):
        hidden, weight, bias, tokens, normaliser = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        logits_of = _Logits(weight, bias, ctx.dtype, min(ctx.chunk, len(hidden)))
        for part in _chunks(len(hidden), ctx.chunk):
            logits = logits_of(hidden[part])
            grad, own = logits_of.run(logit_gradients)(logits, tokens[part], normaliser[part], grad_logprobs[part], ctx.softcap)
            grad = grad.to(ctx.dtype).scatter_(-1, tokens[part, None], own.to(ctx.dtype))
            grad_hidden[part] = grad @ logits_of.weight
            _add_product(grad_weight, grad.T, hidden[part].to(ctx.dtype))
            if bias is not None:
                grad_bias += grad.sum(0)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


def token_scores(logits: Tensor, tokens: Tensor, topk_ids: Tensor, softcap: float | None, scratch: Tensor | None):
    """Of logits [n, V], float32 ones written over: log-probs [n] and [n, K], entropy [n], normaliser [n] (log of the sum)."""
    logits = _capped(logits.float(), softcap)
    largest = logits.amax(-1, keepdim=True)
    logits -= largest
    exponentials = torch.exp(logits, out=scratch)
    total = exponentials.sum(-1)
    log_total = total.log()
    logprobs = logits.gather(-1, tokens[:, None]).squeeze(-1) - log_total
    topk_logprobs = logits.gather(-1, topk_ids) - log_total[:, None]
    entropy = log_total - exponentials.mul_(logits).sum(-1) / total
    return logprobs, topk_logprobs, entropy, log_total + largest.squeeze(-1)


def logit_gradients(logits: Tensor, tokens: Tensor, normaliser: Tensor, grad_logprobs: Tensor, softcap: float | None):
    """The gradient by logits [n, V], in their memory, and apart from it that by the tokens' own ones [n, 1], to be put in."""
    capped, weight = _capped(logits.float(), softcap), grad_logprobs[:, None]
    slope = 1 - (capped / softcap).square() if softcap else None
    grad = capped.sub_(normaliser[:, None]).exp_().mul_(-weight)
    own = grad.gather(-1, tokens[:, None]) + weight
    if slope is not None:
        own *= slope.gather(-1, tokens[:, None])
        grad *= slope
    return logits.copy_(grad), own


def _capped(logits: Tensor, softcap: float | None) -> Tensor:
    return logits.div_(softcap).tanh_().mul_(softcap) if softcap else logits


@cache
def compiled(function: Callable) -> Callable:
    """One or two readings of bfloat16 logits in place of a dozen passes over them and over float32 copies."""
    return torch.compile(function)


@cache
def can_compile() -> bool:
    """Triton builds its launchers with a C compiler and Python's headers."""
    compiler, header = os.environ.get("CC") or which("gcc") or which("clang"), Path(get_path("include")) / "Python.h"
    if compiler and header.is_file():
        return True
    log.warning("log-probs take about twice as long as they could: install a C compiler and Python's headers (%s)", header)
    return False


class _Logits:
    """Logits [n, V] of one chunk after the other, each in the same memory: at a large vocabulary the system takes
    longer to hand out fresh pages than the arithmetic does."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, rows: int):
        self.weight, self.dtype = weight.to(dtype), dtype
        self.bias = None if bias is None else bias.to(dtype)
        self.fused = weight.is_cuda and dtype != torch.float32 and can_compile()
        self.product = weight.new_empty(rows, len(weight), dtype=dtype)

    @cached_property
    def widened(self) -> Tensor:
        return self.product if self.fused or self.dtype == torch.float32 else torch.empty_like(self.product, dtype=torch.float32)

    @cached_property
    def spare(self) -> Tensor:
        return torch.empty_like(self.widened)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Of hidden [n, H]; the next call writes over it. float32, except where a kernel does that on its way."""
        rows = slice(len(hidden))
        product = torch.mm(hidden.to(self.dtype), self.weight.T, out=self.product[rows])
        if self.bias is not None:
            product += self.bias
        return product if self.widened is self.product else self.widened[rows].copy_(product)

    def scratch(self, rows: int) -> Tensor | None:
        return None if self.fused else self.spare[:rows]

    def run(self, function: Callable) -> Callable:
        return compiled(function) if self.fused else function


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """Of the matrix product: autocast's where it is on, else that of the hidden states."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in float32; in place where the device can, as [V, H] is large."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


def _chunks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
