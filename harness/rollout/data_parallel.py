"""Data-parallel sampling: the prompts are divided over the ranks."""

from __future__ import annotations

import torch
from torch import nn

from harness.distributed import Ranks
from harness.rollout.records import Rollout, RolloutEngine, Sampling, join


class DataParallelEngine:
    """Makes one engine of all ranks' engines: each samples the responses to its share of the prompts, and all get all of them.

    A response depends on its own seed, whichever rank samples it. So the tokens are those of a single rank, except where float
    rounding changes a draw.
    """

    def __init__(self, engine: RolloutEngine, ranks: Ranks):
        self.engine, self.ranks = engine, ranks

    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> Rollout:
        group, size = len(seeds) // len(prompts), self.ranks.size
        shares = [range(rank, len(prompts), size) for rank in range(size)]
        mine = shares[self.ranks.rank]
        own_seeds = [seed for p in mine for seed in seeds[p * group : (p + 1) * group]]
        part = self.engine.generate([prompts[p] for p in mine], own_seeds, sampling) if mine else None
        order = torch.tensor([p for share in shares for p in share]).argsort()
        return join([part for part in self.ranks.gather(part) if part is not None], order)

    def push(self, model: nn.Module, version: int) -> None:
        self.engine.push(model, version)

    def __getattr__(self, name: str):
        """Pass everything else (dtype, version, sleep, close, …) to this rank's engine."""
        return getattr(self.engine, name)
