"""The records that rollout engines take and return, and the engines' interface.

Axes as in methods/base.py: P prompts, G responses per prompt, B = P·G responses, T response tokens, K ids of the top-k.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. Training uses temperature 1 and top_p 1. top_k is the number of recorded ids and never truncates."""

    max_response_length: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # ids recorded at each position, the whole vocabulary if it is smaller; 0 records none


@dataclass
class Rollout:
    """B responses to P prompts, prompt-major (row p·G + g). Log-probs are of the untruncated distribution at temperature 1.

    Padded positions hold zeros. A response that ends by itself includes its end token.
    """

    prompts: Tensor  # [P, longest prompt] int64, right-padded
    prompt_lengths: Tensor  # [P]
    tokens: Tensor  # [B, T] int64
    mask: Tensor  # [B, T] bool, the response mask
    logprobs: Tensor  # [B, T] float32
    topk_ids: Tensor  # [B, T, K] int64
    topk_logprobs: Tensor  # [B, T, K] float32
    truncated: Tensor  # [B] bool: cut at the length limit
    weight_version: Tensor  # [] int64: optimizer updates behind the weights that sampled

    @property
    def group_size(self) -> int:
        return len(self.tokens) // len(self.prompts)

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(-1)

    def responses(self) -> list[list[int]]:
        return [row[mask].tolist() for row, mask in zip(self.tokens, self.mask, strict=True)]

    def prompts_between(self, start: int, stop: int) -> Rollout:
        """The responses of prompts start … stop − 1, cut to their own longest response."""
        rows = slice(start * self.group_size, stop * self.group_size)
        width = max(int(self.lengths[rows].max()), 1)
        names = ("tokens", "mask", "logprobs", "topk_ids", "topk_logprobs")
        return Rollout(
            prompts=self.prompts[start:stop],
            prompt_lengths=self.prompt_lengths[start:stop],
            truncated=self.truncated[rows],
            weight_version=self.weight_version,
            **{name: getattr(self, name)[rows, :width].contiguous() for name in names},
        )

    def split(self, num_parts: int) -> list[Rollout]:
        """Parts of equally many prompts, in order."""
        size = len(self.prompts) // num_parts
        return [self.prompts_between(i * size, (i + 1) * size) for i in range(num_parts)]

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def join(parts: list[Rollout], order: Tensor) -> Rollout:
    """Concatenate the prompts of all parts with their responses, padded to the widest, and put the prompts in `order` [P]."""
    group = parts[0].group_size
    rows = (order[:, None] * group + torch.arange(group)).flatten()

    def stack(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        if values[0].dim() == 1:
            return torch.cat(values)
        width = max(value.shape[1] for value in values)
        return torch.cat([pad_to(value, width) for value in values])

    by_prompt = {name: stack(name)[order] for name in ("prompts", "prompt_lengths")}
    names = ("tokens", "mask", "logprobs", "topk_ids", "topk_logprobs", "truncated")
    return Rollout(**by_prompt, **{name: stack(name)[rows] for name in names}, weight_version=parts[0].weight_version)


def pad_to(values: Tensor, width: int) -> Tensor:
    """[n, w, …] → [n, width, …], padded with zeros."""
    missing = width - values.shape[1]
    return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1) if missing else values


class RolloutEngine(Protocol):
    """Samples responses with the weights of the last push."""

    shared: bool  # True if it decodes with the learner's own module, so that no push can get lost
    dtype: torch.dtype
    version: int  # optimizer updates behind the weights that it holds
    router_replay: ClassVar[bool]  # True if the learner can use the experts that the engine chose for each token

    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> Rollout:
        """Sample G responses to each prompt; seeds [P·G], prompt-major. A response's random stream depends on its seed alone."""

    def push(self, model: torch.nn.Module, version: int) -> None:
        """Take the learner's weights; version counts optimizer updates. Wakes a sleeping engine."""

    def routing(self, prompts: list[list[int]], responses: list[list[int]]) -> list[Tensor] | None:
        """Ids of the experts that each token of each response goes to, [tokens, routers, k] ascending; None if unknown."""

    def sleep(self) -> None:
        """Release memory where possible: nothing will be sampled before the next push."""

    def close(self) -> None:
        """Release everything at the end of a run."""


def request_seed(run_seed: int, *identity: object) -> int:
    """A 64-bit seed from the run's seed and the request's identity: all methods of a sweep use common random numbers.

    >>> request_seed(1, "train", 3, "2024-I-01", 0) == request_seed(1, "train", 3, "2024-I-01", 0)
    True
    """
    digest = hashlib.blake2b(repr((run_seed, *identity)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def uniforms(seeds: list[int], length: int) -> Tensor:
    """[B, length] float64 uniform in [0, 1); each row from its own generator."""
    rows = [np.random.Generator(np.random.Philox(key=seed)).random(length) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def pad(rows: list[list[int]], value: int = 0, left: bool = False) -> tuple[Tensor, Tensor]:
    """Padded token ids [rows, longest] and their lengths [rows]."""
    width = max(map(len, rows))
    filled = [([value] * (width - len(r)) + r) if left else (r + [value] * (width - len(r))) for r in rows]
    return torch.tensor(filled, dtype=torch.long), torch.tensor([len(r) for r in rows])
