"""Training problems of a step: a pure function of settings, seed and step, the same for every method."""

from __future__ import annotations

from functools import cache

import numpy as np

from evals import chain
from evals.problems import fingerprint, read_problems
from evals.records import Problem
from harness.config import DataConfig


@cache
def load_problems(path: str, allow_duplicates: bool) -> list[Problem]:
    return read_problems(path, allow_duplicates=allow_duplicates)


def data_fingerprint(config: DataConfig) -> str:
    """Of the content, so that a moved or renamed file is still the same data."""
    if config.kind == "chain":
        return "chain/1"
    return fingerprint(load_problems(config.path, config.allow_duplicates))


def step_problems(config: DataConfig, seed: int, step: int, num_prompts: int) -> list[Problem]:
    """The num_prompts problems of step 1, 2, …: file order is shuffled anew in each epoch by (seed, epoch)."""
    indices = range((step - 1) * num_prompts, step * num_prompts)
    if config.kind == "chain":
        return [chain.train_problem(seed, index) for index in indices]
    problems = load_problems(config.path, config.allow_duplicates)
    return [problems[_epoch_order(len(problems), seed, index // len(problems))[index % len(problems)]] for index in indices]


@cache
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)
