"""Checks before training starts whether the training set holds evaluation problems: an error unless allowed."""

from __future__ import annotations

from functools import cache

from evals.overlap import Hit, find_overlap
from harness.data import load_benchmark, load_problems
from harness.settings.config import Config, require

MAX_SHOWN = 10


def check_overlap(config: Config) -> dict[str, list[dict]]:
    """Shared problems, if allowed, by benchmark: {"aime24": [{"train_id": …, "eval_id": …, "kind": "exact", "overlap": 1.0}]}.

    ValueError names shared problems that are not allowed. The embedded task's problems are disjoint by construction.
    """
    data, evaluation = config.data, config.eval
    unknown = set(data.allow_overlap) - set(evaluation.benchmarks)
    require(not unknown, "data.allow_overlap", data.allow_overlap, f"choose among eval.benchmarks={evaluation.benchmarks}")
    if data.kind != "problems":
        return {}
    shared = {name: overlap(data.path, data.allow_duplicates, name, evaluation.root) for name in evaluation.benchmarks}
    refused = [line for name, hits in shared.items() if name not in data.allow_overlap for line in described(name, hits)]
    if refused:
        names = [name for name, hits in shared.items() if hits]
        raise ValueError(
            f"{data.path} holds problems of the evaluation sets:\n  " + "\n  ".join(refused) + "\n"
            f"remove them from the file, or set data.allow_overlap=[{','.join(names)}], which is recorded with the run"
        )
    return {name: [vars(hit) for hit in hits] for name, hits in shared.items() if hits}


@cache
def overlap(path: str, allow_duplicates: bool, benchmark: str, root: str | None) -> list[Hit]:
    """Problems that a training file shares with a benchmark. Cached: searched once in a process, whatever the number of runs."""
    return find_overlap(load_problems(path, allow_duplicates), load_benchmark(benchmark, root))


def described(name: str, hits: list[Hit]) -> list[str]:
    lines = [f"{name} {hit.eval_id}: training problem {hit.train_id} ({hit.kind}, {hit.overlap:.0%})" for hit in hits[:MAX_SHOWN]]
    return [*lines, f"{name}: {len(hits) - MAX_SHOWN} more"] if len(hits) > MAX_SHOWN else lines
