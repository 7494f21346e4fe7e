"""Log-probs of given tokens from a language model's hidden states and its output head, computed in chunks of tokens.

Logits exist for at most `chunk` tokens at a time. The backward pass recomputes each chunk's logits instead of storing them: with
a vocabulary of 151,936 ids that takes megabytes in place of gigabytes. On a GPU in bfloat16, each pass over the logits is one
compiled kernel. Shapes: N tokens, of which n in a chunk; H hidden size; V vocabulary; K ids of the top-k.
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
    """Log-probs and entropy of N tokens, from the full softmax in float32; only `logprobs` carries a gradient."""

    logprobs: Tensor  # [N]
    topk_logprobs: Tensor  # [N, K] at the given ids
    entropy: Tensor  # [N] nat


def token_logprobs(hidden: Tensor, head: nn.Linear, tokens: Tensor, topk_ids: Tensor, chunk: int, softcap: float | None = None):
    """Log-probs of tokens [N] and topk_ids [N, K] from hidden [N, H]. `softcap` c: logits become c·tanh(logits/c) (Gemma)."""
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
            gradients = logits_of.run(logit_gradients)
            grad, token_grad = gradients(logits, tokens[part], normaliser[part], grad_logprobs[part], ctx.softcap)
            grad = grad.to(ctx.dtype).scatter_(-1, tokens[part, None], token_grad.to(ctx.dtype))
            grad_hidden[part] = grad @ logits_of.weight
            _add_product(grad_weight, grad.T, hidden[part].to(ctx.dtype))
            if bias is not None:
                grad_bias += grad.sum(0)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


def token_scores(logits: Tensor, tokens: Tensor, topk_ids: Tensor, softcap: float | None, scratch: Tensor | None):
    """Log-probs of tokens [n] and of topk_ids [n, K], entropy [n] and normaliser log Σ exp(logits) [n], from logits [n, V].

    float32 logits are overwritten. The exponentials go to `scratch` [n, V], or to new memory if it is None.
    """
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
    """Gradient with respect to the logits, from the gradient with respect to the tokens' log-probs, g = grad_logprobs [n].

    ∂/∂logit_v = g (1[v = token] − p_v), times 1 − tanh² under a softcap. Returns −g p_v for all ids [n, V], written over the
    logits, and separately the entries of the tokens themselves [n, 1], which the caller has to put in their places.
    """
    capped, weight = _capped(logits.float(), softcap), grad_logprobs[:, None]
    slope = 1 - (capped / softcap).square() if softcap else None
    grad = capped.sub_(normaliser[:, None]).exp_().mul_(-weight)
    token_grad = grad.gather(-1, tokens[:, None]) + weight
    if slope is not None:
        token_grad *= slope.gather(-1, tokens[:, None])
        grad *= slope
    return logits.copy_(grad), token_grad


def _capped(logits: Tensor, softcap: float | None) -> Tensor:
    return logits.div_(softcap).tanh_().mul_(softcap) if softcap else logits


@cache
def compiled(function: Callable) -> Callable:
    """`function` compiled: it reads bfloat16 logits once or twice, in place of a dozen passes over them and float32 copies."""
    return torch.compile(function)


@cache
def can_compile() -> bool:
    """True if a C compiler and Python's headers are installed, which Triton needs to build its launchers; else log a warning."""
    compiler, header = os.environ.get("CC") or which("gcc") or which("clang"), Path(get_path("include")) / "Python.h"
    if compiler and header.is_file():
        return True
    log.warning("log-probs take about twice as long as they could: install a C compiler and Python's headers (%s)", header)
    return False


class _Logits:
    """Computes the logits [n, V] of one chunk after the other in the same memory.

    With a large vocabulary, the system takes longer to allocate fresh pages than the arithmetic takes.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, rows: int):
        self.weight, self.dtype = weight.to(dtype), dtype
        self.bias = None if bias is None else bias.to(dtype)
        self.fused = weight.is_cuda and dtype != torch.float32 and can_compile()
        self.product = weight.new_empty(rows, len(weight), dtype=dtype)

    @cached_property
    def widened(self) -> Tensor:
        """The buffer of the logits that are handed out: in float32, unless a compiled kernel converts them itself."""
        return self.product if self.fused or self.dtype == torch.float32 else torch.empty_like(self.product, dtype=torch.float32)

    @cached_property
    def spare(self) -> Tensor:
        return torch.empty_like(self.widened)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits of hidden [n, H], which the next call overwrites. In float32, unless a compiled kernel converts them itself."""
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
    """The dtype of the matrix product: autocast's if autocast is on, else that of the hidden states."""
    device_type = hidden.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else hidden.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in float32; without a temporary [V, H] where the device allows, as it is large."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total += left @ right


def _chunks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
