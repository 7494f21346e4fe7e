"""Checks before a run: can its problems be graded, and their prompts be written? Training would find out late, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from evals import chain
from evals.integers import read_integer
from evals.problems import Problem
from evals.prompts import render, template_text
from harness.data import load_benchmark, load_problems
from harness.learning.model import unwritten, wordlist_tokenizer
from harness.settings.config import Config, naming_key


@dataclass(frozen=True)
class Source:
    """Problems of a run, and the section of its settings (data or eval) that says how they are asked and graded."""

    section: str
    template: str
    grader: str
    load: Callable[..., list[Problem]]
    arguments: tuple

    def problems(self) -> list[Problem]:
        return self.load(*self.arguments)


def all_sources(config: Config) -> list[Source]:
    return [*training_sources(config), *evaluation_sources(config)]


def training_sources(config: Config) -> list[Source]:
    """The training file, or some of the embedded task's problems; nothing without training data."""
    data = config.data
    source = partial(Source, "data", data.template, data.grader)
    if data.kind == "chain":
        return [source(chain.level, (chain.LEVELS[0],))]
    return [source(load_problems, (data.path, data.allow_duplicates))] if data.kind == "problems" else []


def evaluation_sources(config: Config) -> list[Source]:
    """One source for each benchmark."""
    settings = config.eval
    return [
        Source("eval", settings.template, settings.grader, load_benchmark, (name, settings.root)) for name in settings.benchmarks
    ]


def check_templates(config: Config) -> None:
    """ValueError for a template that is neither a name nor a file with one slot."""
    for section, template in (("data", config.data.template), ("eval", config.eval.template)):
        with naming_key(f"{section}.template"):
            template_text(template)


def check_answers(config: Config) -> None:
    """ValueError when the integer grader is to judge answers that are no integers, or the chain grader other problems than
    chains."""
    for source in all_sources(config):
        require_integers(source)
        require_chains(source)


@cache
def require_integers(source: Source) -> None:
    if "integer" not in source.grader.split("+"):
        return
    if others := [problem for problem in source.problems() if read_integer(problem.answer) is None]:
        raise ValueError(
            f"{source.section}.grader={source.grader}, but {len(others)} answers are no integers: "
            f"{shown(others, lambda problem: problem.answer[:40])}, …; set {source.section}.grader=math_verify"
        )


@cache
def require_chains(source: Source) -> None:
    if "chain" not in source.grader.split("+"):
        return
    if others := [problem for problem in source.problems() if not chain.is_problem(problem.text)]:
        raise ValueError(
            f"{source.section}.grader={source.grader}, but {len(others)} problems are no chain arithmetic: "
            f"{shown(others, lambda problem: repr(problem.text[:40]))}, …; set {source.section}.grader=integer, or math_verify"
        )


def shown(problems: list[Problem], describe: Callable[[Problem], str]) -> str:
    return ", ".join(f"{problem.id} ({describe(problem)})" for problem in problems[:3])


def check_prompts(path: str, sources: list[Source]) -> None:
    """ValueError when a model's tokenizer has no token for something in a prompt, or for the mark of the answer that a grader
    looks for: the embedded one knows chains alone."""
    for source in sources:
        require_written(path, source)
        require_marker(path, source)


@cache
def require_written(path: str, source: Source) -> None:
    tokenizer = wordlist_tokenizer(path)
    for problem in source.problems() if tokenizer else []:
        if part := unwritten(tokenizer, render(source.template, problem.text)):
            in_problem = unwritten(tokenizer, problem.text)
            remedy = "take another model" if in_problem else f"set {source.section}.template=raw, or take another model"
            raise ValueError(
                f"model.path={path!r}: its tokenizer can't write {part!r} in the prompt of problem {problem.id} "
                f"({source.section}.template={source.template}): {remedy} (model=FOLDER)"
            )


@cache
def require_marker(path: str, source: Source) -> None:
    tokenizer = wordlist_tokenizer(path)
    if set(source.grader.split("+")) == {"chain"} or not tokenizer or not unwritten(tokenizer, "Answer:"):
        return
    if chain.is_problem(source.problems()[0].text):
        raise ValueError(
            f"{source.section}.grader={source.grader} looks for an answer in a box or behind `Answer:`, which "
            f"model.path={path!r} can't write: set {source.section}.grader=chain, or take another model (model=FOLDER)"
        )
