"""Log-probs of given tokens from hidden states, in chunks: logits of at most `chunk` tokens exist at a time.

The backward pass computes each chunk's logits again instead of keeping them: at a vocabulary of 151,936 that is the
difference between gigabytes and megabytes.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harness.distributed import ALONE, Ranks


class TokenLogprobs(NamedTuple):
    """Of N tokens, from the full softmax, float32; only `logprobs` carries gradient."""

    logprobs: Tensor  # [N]
    topk_logprobs: Tensor  # [N, K] at the given ids
    entropy: Tensor  # [N] nat


SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")  # what the model families call it


class Scorer(nn.Module):
    """A causal LM whose forward gives the log-probs of given tokens, not logits. ValueError for a head of an unknown kind."""

    def __init__(self, model: nn.Module, chunk: int, ranks: Ranks = ALONE):
        super().__init__()
        self.model, self.chunk = model, chunk
        self.softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        self.scale = ranks.first(lambda: head_scale(model, self.softcap))  # the others hold no weights yet

    def forward(self, inputs: Tensor, predicts: Tensor, tokens: Tensor, topk_ids: Tensor) -> TokenLogprobs:
        """inputs [b, L] token ids; predicts [b, L] bool, the N positions that predict `tokens` [N]; topk_ids [N, K]."""
        hidden = self.model.base_model(inputs, use_cache=False).last_hidden_state
        scaled = hidden[predicts] if self.scale == 1 else hidden[predicts] * self.scale
        return token_logprobs(scaled, self.model.get_output_embeddings(), tokens, topk_ids, self.chunk, self.softcap)


@torch.no_grad()
def head_scale(model: nn.Module, softcap: float | None) -> float:
    """What a model multiplies its hidden states by before its head (Granite, Cohere, …); 1 for most.

    A family may divide by the number that another multiplies by: the one is taken that gives the model's own logits.
    """
    config = model.config.get_text_config()
    ids = torch.arange(min(8, config.vocab_size), device=model.device)[None]
    hidden, logits = model.base_model(ids, use_cache=False).last_hidden_state, model(ids, use_cache=False).logits.float()
    named = [scale for name in SCALES if (scale := getattr(config, name, None))]
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.05
    for scale in (1.0, *named, *(1 / scale for scale in named)):
        own = model.get_output_embeddings()(hidden * scale).float()
        own = own if softcap is None else softcap * (own / softcap).tanh()
        if (own - logits).abs().max() <= tolerance * logits.abs().max():
            return scale
    raise ValueError(
        f"model.path: the logits of {type(model).__name__} are not its output embeddings times its last hidden state, "
        f"which harness/learning/logprobs.py computes log-probs from: choose another model"
    )


def token_logprobs(hidden: Tensor, head: nn.Linear, tokens: Tensor, topk_ids: Tensor, chunk: int, softcap: float | None = None):
    """hidden [N, H], tokens [N], topk_ids [N, K] → TokenLogprobs. `softcap` c: logits become c·tanh(logits/c) (Gemma)."""
    return TokenLogprobs(*_ChunkedLogprobs.apply(hidden, head.weight, head.bias, tokens, topk_ids, chunk, softcap))


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, tokens, topk_ids, chunk, softcap):
        logprobs, normaliser, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        topk_logprobs = hidden.new_empty(topk_ids.shape, dtype=torch.float32)
        logits_of = _Logits(weight, bias, softcap, _compute_dtype(hidden), min(chunk, len(hidden)))
        for part in _chunks(len(hidden), chunk):
            logits = logits_of(hidden[part])
            largest = logits.amax(-1, keepdim=True)
            logits -= largest
            exponentials = torch.exp(logits, out=logits_of.scratch[: len(logits)])
            total = exponentials.sum(-1)
            log_total = total.log()
            normaliser[part] = log_total + largest.squeeze(-1)
            logprobs[part] = logits.gather(-1, tokens[part, None]).squeeze(-1) - log_total
            topk_logprobs[part] = logits.gather(-1, topk_ids[part]) - log_total[:, None]
            entropy[part] = log_total - exponentials.mul_(logits).sum(-1) / total
        ctx.save_for_backward(hidden, weight, bias, tokens, normaliser)
        ctx.chunk, ctx.softcap, ctx.dtype = chunk, softcap, logits_of.dtype
        ctx.mark_non_differentiable(topk_logprobs, entropy)
        return logprobs, topk_logprobs, entropy

    @staticmethod
    def backward(ctx, grad_logprobs, _topk, _entropy):
        hidden, weight, bias, tokens, normaliser = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        logits_of = _Logits(weight, bias, ctx.softcap, ctx.dtype, min(ctx.chunk, len(hidden)))
        for part in _chunks(len(hidden), ctx.chunk):
            logits = logits_of(hidden[part])
            slope = 1 - (logits / ctx.softcap).square() if ctx.softcap else None
            grad = logits.sub_(normaliser[part, None]).exp_().mul_(-grad_logprobs[part, None])
            grad.scatter_add_(-1, tokens[part, None], grad_logprobs[part, None])
            if slope is not None:
                grad *= slope
            grad = grad.to(ctx.dtype)
            grad_hidden[part] = grad @ logits_of.weight
            _add_product(grad_weight, grad.T, hidden[part].to(ctx.dtype))
            if bias is not None:
                grad_bias += grad.sum(0)
        return grad_hidden, grad_weight.to(weight.dtype), grad_bias, None, None, None, None


class _Logits:
    """Logits [n, V] float32 of one chunk after the other, each in the same memory: at a large vocabulary the system takes
    longer to hand out fresh pages than the arithmetic does."""

    def __init__(self, weight: Tensor, bias: Tensor | None, softcap: float | None, dtype: torch.dtype, rows: int):
        self.weight, self.softcap, self.dtype = weight.to(dtype), softcap, dtype
        self.bias = None if bias is None else bias.to(dtype)
        self.product = weight.new_empty(rows, len(weight), dtype=dtype)
        self.logits = self.product if dtype == torch.float32 else torch.empty_like(self.product, dtype=torch.float32)

    @cached_property
    def scratch(self) -> Tensor:
        return torch.empty_like(self.logits)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Of hidden [n, H]; the next call writes over it."""
        rows = slice(len(hidden))
        product = torch.mm(hidden.to(self.dtype), self.weight.T, out=self.product[rows])
        if self.bias is not None:
            product += self.bias
        logits = product if self.dtype == torch.float32 else self.logits[rows].copy_(product)
        return logits.div_(self.softcap).tanh_().mul_(self.softcap) if self.softcap else logits


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """Of the matrix product: autocast's where it is on, else that of the hidden states."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in float32; in place where both are float32, as [V, H] is large."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _chunks(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]
