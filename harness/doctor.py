"""Examine a setup before a run, or a run's folder: `python -m harness.doctor COMMAND [settings]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from evals.records import Problem
from harness.doctor_parity import parity
from harness.doctor_run import run
from harness.settings.command import exit_with


def prompt(words: list[str]) -> int:
    """Print text, token ids and stop tokens of one prompt of the training data and of each benchmark."""
    from harness.preflight import all_sources, check_prompts
    from harness.settings.compose import compose_config
    from harness.settings.words import readable

    config = compose_config(readable(words))
    check_prompts(config.model.path, all_sources(config))
    blocks = ("\n".join(prompt_lines(config, *first)) for first in first_problems(config))
    print("\n\n".join(blocks))
    return 0


def first_problems(config) -> Iterator[tuple[str, str, Problem]]:
    """(use, template, problem) for the first problem of training step 1 and of each benchmark."""
    from evals.benchmarks import load
    from harness.data import step_problems

    if config.data.kind != "none":
        yield "training", config.data.template, step_problems(config.data, config.seed, 1, 1)[0]
    for name in config.eval.benchmarks:
        yield name, config.eval.template, load(name, config.eval.root)[0]


def prompt_lines(config, use: str, template: str, problem: Problem) -> Iterator[str]:
    from harness.learning.model import encode_prompts, load_tokenizer, prompt_record, prompt_texts

    model = config.model
    tokenizer = load_tokenizer(model.path, model.revision)
    text = prompt_texts([problem], template, tokenizer, model.chat_template)[0]
    ids = encode_prompts([problem], template, tokenizer, model.chat_template, config.rollout.max_prompt_length)[0]
    record = prompt_record(template, model, tokenizer)
    stops = zip(record["stop_token_ids"], record["stop_tokens"], strict=True)
    yield f"{use}: problem {problem.id}, answer {problem.answer}"
    yield f"  template        {template} ({record['template_hash']})"
    yield f"  chat template   {record['chat_template_hash'] or 'not used'}"
    yield f"  text            {text!r}"
    yield f"  tokens          {len(ids)} of at most {config.rollout.max_prompt_length}: {ids}"
    yield f"  read back       {tokenizer.decode(ids)!r}"
    yield f"  stop tokens     {', '.join(f'{id_} {token!r}' for id_, token in stops)}"


COMMANDS: dict[str, Callable[[list[str]], int]] = {"prompt": prompt, "run": run, "parity": parity}


def main(words: list[str]) -> int:
    name, rest = (words[0], words[1:]) if words else (None, [])
    if name in COMMANDS and {"-h", "--help"} & set(rest):
        given = "FOLDER…" if name == "run" else "[settings]"
        print(f"usage: python -m harness.doctor {name} {given}\n\n{COMMANDS[name].__doc__}")
        return 0
    if name not in COMMANDS:
        usage = "\n".join(f"  python -m harness.doctor {key:<8} {command.__doc__}" for key, command in COMMANDS.items())
        unknown = "" if name in (None, "-h", "--help") else f"error: {name} is none of the commands\n\n"
        print(f"{unknown}{__doc__}\n\n{usage}", file=sys.stdout if name in ("-h", "--help") else sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    return COMMANDS[name](rest)


if __name__ == "__main__":
    exit_with(main)
