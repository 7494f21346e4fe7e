"""Training problems of each step, and their prompts: a pure function of settings, seed and step, the same for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from evals import chain
from evals.benchmarks import load as load_benchmark
from evals.integers import read_integer
from evals.problems import fingerprint, read_problems
from evals.records import Problem
from harness.learning.model import encode_prompts, load_tokenizer
from harness.settings.config import Config, DataConfig


@cache
def load_problems(path: str, allow_duplicates: bool) -> list[Problem]:
    try:
        return read_problems(path, allow_duplicates=allow_duplicates)
    except ValueError as error:
        raise ValueError(f"data.path={path}: {error}") from error


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


def check_answers(config: Config) -> None:
    """ValueError if the integer grader is chosen for problems whose answers are no integers: training might meet them late."""
    data, evaluation = config.data, config.eval
    if data.kind == "problems":
        _require_integers("data.grader", data.grader, _not_integers(load_problems, data.path, data.allow_duplicates))
    for name in evaluation.benchmarks:
        _require_integers("eval.grader", evaluation.grader, _not_integers(load_benchmark, name, evaluation.root))


def _require_integers(key: str, grader: str, refused: list[Problem]) -> None:
    if refused and "integer" in grader.split("+"):
        shown = ", ".join(f"{problem.id} ({problem.answer[:40]})" for problem in refused[:3])
        raise ValueError(f"{key}={grader}, but {len(refused)} answers are no integers: {shown}, …; set {key}=math_verify")


@cache
def _not_integers(load: Callable[..., list[Problem]], *source) -> list[Problem]:
    return [problem for problem in load(*source) if read_integer(problem.answer) is None]


@cache
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)
