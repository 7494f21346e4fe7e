"""Checks that rollout engine and learner are the same policy: the command `python -m harness.doctor parity [settings]`."""

from __future__ import annotations

import sys
from contextlib import closing

from rich.console import Console
from rich.table import Table

from harness.metric_table import POSITION_BUCKETS
from harness.settings.config import Config

BY_POSITION = ("mismatch/abs_error_by_pos", "mismatch/k3_by_pos")


def parity(words: list[str]) -> int:
    """Score one batch with rollout engine and learner, and print by how much they differ (status 1 beyond a gate)."""
    from harness.learning.model import check_model
    from harness.preflight import check_prompts, training_sources
    from harness.settings.compose import compose_config
    from harness.settings.words import readable

    config = compose_config(readable(words))
    check_model(config.model)
    if config.data.kind == "none":
        raise ValueError("parity samples a batch of training problems: give data=chain, or data=jsonl data.path=FILE")
    check_prompts(config.model.path, training_sources(config))
    metrics, limits, heading = measure(config)
    console = Console()
    console.print(heading, soft_wrap=True)
    console.print(overall(metrics, limits))
    console.print(by_position(metrics))
    return 0 if all(metrics[key] <= limit for key, limit in limits.items()) else 1


def measure(config: Config) -> tuple[dict[str, float], dict[str, float], str]:
    """Mismatch metrics of training step 1's responses, their gates, and a heading that says what was compared."""
    from harness.data import step_problems, training_prompts
    from harness.distributed import init_ranks
    from harness.learning.learner import Learner
    from harness.learning.model import load_model, load_tokenizer
    from harness.rollout.canary import check_push, gate_limits, score_fresh
    from harness.rollout.engines import make_engine
    from harness.rollout.queue import response_seeds, training_sampling

    say(f"loading {config.model.path}")
    model, ranks = load_model(config.model), init_ranks(config.cluster.device)
    learner = Learner(model, config.method, config.train, config.rollout.max_response_length, ranks)
    problems = step_problems(config.data, config.seed, 1, config.train.prompts_per_step)
    prompts = training_prompts(config, problems)
    with closing(make_engine(config, model, load_tokenizer(config.model.path, config.model.revision), ranks)) as engine:
        engine.push(model, 0)
        check_push(engine, model, prompts[: config.rollout.canary_rows], config.mismatch)
        say(f"sampling {len(prompts) * config.train.group_size} responses")
        rollout = engine.generate(prompts, response_seeds(config, 1, problems), training_sampling(config.rollout))
        say("scoring them with the learner")
        metrics = score_fresh(rollout, learner, len(rollout.tokens), engine)
    heading = (
        f"{config.model.path}: rollout={config.rollout.engine} ({config.rollout.precision}) against the learner "
        f"({config.model.dtype}, forward in {config.train.precision}), {len(rollout.tokens)} responses, "
        f"{int(rollout.mask.sum())} tokens, {int(rollout.truncated.sum())} responses cut"
    )
    return metrics, gate_limits(config.mismatch, model), heading


def say(what: str) -> None:
    """A stage of a command that may take minutes with a large model."""
    print(f"{what} …", file=sys.stderr, flush=True)


def overall(metrics: dict[str, float], limits: dict[str, float]) -> Table:
    table = Table("metric", "value", "gate", caption="definitions: docs/metrics.md")
    for key, value in metrics.items():
        if not key.startswith(BY_POSITION):
            limit = limits.get(key)
            gate = "" if limit is None else f"{'within' if value <= limit else 'BEYOND'} {limit:g}"
            table.add_row(key, f"{value:.8g}", gate)
    return table


def by_position(metrics: dict[str, float]) -> Table:
    """One row for each tenth of a response; a tenth in which no response has a token is left out."""
    table = Table("position in the response", *BY_POSITION)
    for bucket in range(POSITION_BUCKETS):
        values = [metrics.get(f"{family}/{bucket}") for family in BY_POSITION]
        if None not in values:
            share = 100 // POSITION_BUCKETS
            table.add_row(f"{bucket * share}–{(bucket + 1) * share} %", *(f"{value:.3g}" for value in values))
    return table
