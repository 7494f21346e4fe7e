"""Loads problems, and chooses those of each step and their prompts by settings, seed and step, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from evals import benchmarks, chain
from evals.problems import fingerprint, read_problems
from evals.records import Problem
from harness.learning.model import encode_prompts, load_tokenizer
from harness.settings.config import Config, DataConfig, naming_key


@cache
def load_problems(path: str, allow_duplicates: bool) -> list[Problem]:
    with naming_key(f"data.path={path}"):
        return read_problems(path, allow_duplicates=allow_duplicates)


def load_benchmark(name: str, root: str | None) -> list[Problem]:
    with naming_key("eval.benchmarks"):
        return benchmarks.load(name, root)


def data_fingerprint(config: DataConfig) -> str:
    """Hash of the training data's content: a moved or renamed file is still the same data."""
    if config.kind == "chain":
        return "chain/1"
    return fingerprint(load_problems(config.path, config.allow_duplicates))


def step_problems(config: DataConfig, seed: int, step: int, num_prompts: int) -> list[Problem]:
    """The num_prompts problems of a step (1, 2, …). A file's order is shuffled for each epoch by the generator (seed, epoch)."""
    indices = range((step - 1) * num_prompts, step * num_prompts)
    if config.kind == "chain":
        return [chain.train_problem(seed, index, config.operations) for index in indices]
    problems = load_problems(config.path, config.allow_duplicates)
    return [problems[_epoch_order(len(problems), seed, index // len(problems))[index % len(problems)]] for index in indices]


def training_prompts(config: Config, problems: Sequence[Problem]) -> list[list[int]]:
    """Token ids of the problems' prompts. The first call for a file tokenises all of it, so that a prompt that is too long
    is found before training starts."""
    data, model, limit = config.data, config.model, config.rollout.max_prompt_length
    if data.kind == "chain":
        return encode_prompts(problems, data.template, load_tokenizer(model.path, model.revision), model.chat_template, limit)
    prompts = _file_prompts(
        data.path, data.allow_duplicates, data.template, model.path, model.revision, model.chat_template, limit
    )
    return [prompts[problem] for problem in problems]


@cache
def _file_prompts(path, allow_duplicates, template, model_path, revision, chat_template, limit) -> dict[Problem, list[int]]:
    problems = load_problems(path, allow_duplicates)
    tokenizer = load_tokenizer(model_path, revision)
    return dict(zip(problems, encode_prompts(problems, template, tokenizer, chat_template, limit), strict=True))


@cache
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)
