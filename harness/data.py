"""Training problems of each step, and their prompts: a pure function of settings, seed and step, the same for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from evals import chain
from evals.benchmarks import load as load_benchmark
from evals.integers import read_integer
from evals.problems import fingerprint, read_problems
from evals.prompts import render
from evals.records import Problem
from harness.learning.model import encode_prompts, load_tokenizer, unwritten, wordlist_tokenizer
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
    """ValueError when the integer grader is to judge answers that are no integers, or the chain grader other problems than
    chains; training would meet them late, or score them all wrong."""
    for key, _, grader, load, *source in _sources(config):
        _require_gradable(f"{key}.grader", grader, load, *source)


def _sources(config: Config) -> list[tuple]:
    """(section, template, grader, loader and its arguments) of the training file, if any, and of each benchmark."""
    data, evaluation = config.data, config.eval
    file = ("data", data.template, data.grader, load_problems, data.path, data.allow_duplicates)
    benchmarks = [
        ("eval", evaluation.template, evaluation.grader, load_benchmark, name, evaluation.root) for name in evaluation.benchmarks
    ]
    return [file, *benchmarks] if data.kind == "problems" else benchmarks


def _require_gradable(key: str, grader: str, load: Callable[..., list[Problem]], *source) -> None:
    graders = grader.split("+")
    if "integer" in graders and (others := _not_integers(load, *source)):
        shown = ", ".join(f"{problem.id} ({problem.answer[:40]})" for problem in others[:3])
        raise ValueError(f"{key}={grader}, but {len(others)} answers are no integers: {shown}, …; set {key}=math_verify")
    if "chain" in graders and (others := _not_chains(load, *source)):
        shown = ", ".join(f"{problem.id} ({problem.text[:40]!r})" for problem in others[:3])
        raise ValueError(
            f"{key}={grader}, but {len(others)} problems are no chain arithmetic: {shown}, …; set {key}=integer, or math_verify"
        )


@cache
def _not_integers(load: Callable[..., list[Problem]], *source) -> list[Problem]:
    return [problem for problem in load(*source) if read_integer(problem.answer) is None]


@cache
def _not_chains(load: Callable[..., list[Problem]], *source) -> list[Problem]:
    return [problem for problem in load(*source) if not chain.is_problem(problem.text)]


def check_prompts(config: Config, training: bool = True, evaluation: bool = True) -> None:
    """ValueError when the model's tokenizer has no token for something in a prompt: the embedded one knows chains alone."""
    path, sources = config.model.path, _sources(config)
    if config.data.kind == "chain":
        sources = [("data", config.data.template, None, chain.level, chain.LEVELS[0]), *sources]
    for key, template, _, load, *source in sources:
        if not (training if key == "data" else evaluation):
            continue
        if found := _unwritten(path, template, load, *source):
            part, problem, is_in_template = found
            remedy = f"set {key}.template=raw, or take another model" if is_in_template else "take another model"
            where = f"in the prompt of problem {problem.id} ({key}.template={template})"
            raise ValueError(f"model.path={path!r}: its tokenizer can't write {part!r} {where}: {remedy} (model=FOLDER)")


@cache
def _unwritten(path: str, template: str, load: Callable[..., list[Problem]], *source) -> tuple[str, Problem, bool] | None:
    """(what can't be written, the first problem in whose prompt it stands, whether the problem alone could be)."""
    tokenizer = wordlist_tokenizer(path)
    for problem in load(*source) if tokenizer else []:
        if part := unwritten(tokenizer, render(template, problem.text)):
            return part, problem, not unwritten(tokenizer, problem.text)
    return None


@cache
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)
