"""The data of one learning step: informative responses with their advantages, split into minibatches and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from harness.rollout.records import Rollout

PASSES_PER_BUDGET = 10  # a pass has a fixed cost: that of token_budget / PASSES_PER_BUDGET positions


@dataclass
class Experience:
    """N responses, one row each. Padded positions are zero."""

    inputs: Tensor  # [N, longest prompt + response] int64, prompt and response side by side, right-padded
    prompt_lengths: Tensor  # [N]
    tokens: Tensor  # [N, T] int64
    mask: Tensor  # [N, T] bool
    anchor_logprobs: Tensor  # [N, T] log of the ratio's denominator: the rollout policy's, or the learner's at the step's start
    topk_ids: Tensor  # [N, T, K]
    anchor_topk_logprobs: Tensor  # [N, T, K] at topk_ids, of the same policy as anchor_logprobs
    advantages: Tensor  # [N]
    response_key: Tensor  # [N] int64, identifies a response in any split

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(-1)

    def rows(self, index: Tensor) -> Experience:
        """The rows at `index`, cut to the longest prompt with response and the longest response among them."""
        width, total = self.lengths[index].max(), (self.prompt_lengths + self.lengths)[index].max()
        cut = {"inputs": self.inputs[index, :total]}
        for name in ("tokens", "mask", "anchor_logprobs", "topk_ids", "anchor_topk_logprobs"):
            cut[name] = getattr(self, name)[index, :width]
        for name in ("prompt_lengths", "advantages", "response_key"):
            cut[name] = getattr(self, name)[index]
        return Experience(**cut)

    def to(self, device: torch.device) -> Experience:
        return Experience(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def without_tokens(self) -> Experience:
        """The same inputs with an empty response mask, so that nothing is scored or learned."""
        return replace(self, mask=torch.zeros_like(self.mask))

    def with_anchor(self, logprobs: Tensor, topk_logprobs: Tensor) -> Experience:
        return replace(self, anchor_logprobs=logprobs, anchor_topk_logprobs=topk_logprobs)


def build_experience(rollout: Rollout, advantages: Tensor, use: Tensor, keys: list[int]) -> Experience:
    """The responses of `rollout` where use [B] is True, with advantages [B]; keys [B] are their request seeds."""
    index = use.nonzero().squeeze(-1)
    prompt_index = index // rollout.group_size
    prompt_lengths = rollout.prompt_lengths[prompt_index]
    return Experience(
        inputs=_side_by_side(rollout.prompts[prompt_index], prompt_lengths, rollout.tokens[index], rollout.mask[index]),
        prompt_lengths=prompt_lengths,
        tokens=rollout.tokens[index],
        mask=rollout.mask[index],
        anchor_logprobs=rollout.logprobs[index],
        topk_ids=rollout.topk_ids[index],
        anchor_topk_logprobs=rollout.topk_logprobs[index],
        advantages=advantages[index],
        response_key=response_keys(keys)[index],
    )


def response_keys(seeds: list[int]) -> Tensor:
    """[B] int64 ≥ 0: the lower 63 bits of 64-bit request seeds."""
    signed = np.array(seeds, dtype=np.uint64).astype(np.int64)
    return torch.from_numpy(signed) & 0x7FFFFFFFFFFFFFFF


def _side_by_side(prompts: Tensor, prompt_lengths: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """[N, P + T]: each row's prompt, directly followed by its response, then zeros."""
    rows, width = tokens.shape
    inputs = torch.zeros(rows, prompts.shape[1] + width, dtype=torch.long)
    inputs[:, : prompts.shape[1]] = prompts
    columns = prompt_lengths[:, None] + torch.arange(width)
    return inputs.scatter(1, columns, tokens * mask)


def minibatches(num_rows: int, num_updates: int, seed: int) -> list[Tensor]:
    """Row indices of each update: a random partition into parts of nearly equal size; fewer parts if there are fewer rows."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(num_rows)
    return [torch.from_numpy(part) for part in np.array_split(order, num_updates) if len(part)]


def microbatches(batch: Experience, token_budget: int, rank: int = 0, num_ranks: int = 1) -> list[Tensor]:
    """Row indices of one rank's micro-batches, each of at most token_budget padded positions (one row at least).

    Rows are dealt to the ranks in order of length, so that all ranks compute about equally much; a rank may get none.
    """
    lengths = (batch.prompt_lengths + batch.lengths).tolist()
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[rank::num_ranks]
    cuts = cheapest_cuts([lengths[row] for row in order], token_budget, token_budget // PASSES_PER_BUDGET)
    return [torch.tensor(order[start:end]) for start, end in pairwise(cuts)]


def cheapest_cuts(lengths: list[int], token_budget: int, cost_of_a_pass: int) -> list[int]:
    """Indices at which to cut rows of descending lengths into micro-batches, 0 and the number of rows included.

    They minimise the cost: the padded positions, plus cost_of_a_pass for each micro-batch.
    """
    best = [0] * (len(lengths) + 1)  # best[i]: the least cost of the rows from i on
    ends = [len(lengths)] * len(lengths)
    for start in reversed(range(len(lengths))):
        most = max(1, token_budget // lengths[start])
        costs = {
            end: (end - start) * lengths[start] + cost_of_a_pass + best[end]
            for end in range(start + 1, min(start + most, len(lengths)) + 1)
        }
        ends[start] = min(costs, key=costs.__getitem__)
        best[start] = costs[ends[start]]
    cuts = [0]
    while cuts[-1] < len(lengths):
        cuts.append(ends[cuts[-1]])
    return cuts
