"""A tiny run of the real loop: a few prompts, short responses, three steps, and two folders compared."""

from __future__ import annotations

import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TINY = (
    "method=dppo",
    "train.steps=3",
    "train.prompts_per_step=3",
    "train.group_size=8",
    "train.updates_per_step=2",
    "rollout.lag=1",
    "data.max_response_length=10",
    "eval.max_response_length=6",
    "eval.every=2",
    "checkpoint.every=1",
    "train.collapse.truncated_share=1.0",
    "harness.display=none",
)


@pytest.fixture(scope="session")
def faults():
    """benchmarks/faults.py: not installed, so loaded by its path."""
    spec = importlib.util.spec_from_file_location("faults", ROOT / "benchmarks" / "faults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def few_problems(tmp_path_factory) -> Path:
    from evals import chain

    path, rng = tmp_path_factory.mktemp("problems") / "few.jsonl", random.Random(0)
    problems = [chain.sample_problem(rng, 4) for _ in range(3)]
    path.write_text("".join(json.dumps({"id": p.id, "problem": p.text, "answer": p.answer}) + "\n" for p in problems))
    return path


@pytest.fixture(scope="session")
def tiny_plan(few_problems):
    """tiny_plan(runs_dir, *overrides): the plan of a run that takes a fraction of a second."""
    import torch

    from harness.settings.compose import compose_plan

    torch.set_num_threads(1)  # as a worker does before its first attempt
    plans = {}

    def make(runs_dir: Path, *overrides: str):
        if overrides not in plans:
            plans[overrides] = compose_plan([*TINY, f"eval.benchmarks=[jsonl:{few_problems}]", *overrides])
        return replace(plans[overrides], config=replace(plans[overrides].config, runs_dir=str(runs_dir)))

    return make


@pytest.fixture(scope="session")
def tiny_train():
    """harness.run.train with a reward that ten tokens can earn, so that every step has something to learn."""
    import torch

    from harness.parts import Parts
    from harness.run import train

    def rewards(self, step, rollout):
        return ((rollout.tokens.sum(-1) + torch.arange(len(rollout.tokens))) % 2).float(), 0

    def run(plan, stop):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Parts, "rewards", rewards)
            return train(plan, stop)

    return run


@pytest.fixture(scope="session")
def undisturbed(tiny_plan, tiny_train, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    from harness.runs.attempt import StopRequest, attempt

    plan = tiny_plan(tmp_path_factory.mktemp("undisturbed"))
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert all(row["cost/learned_tokens"] > 0 and row["actor/grad_norm"] > 0 for row in plan.folder.rows("metrics"))
    return plan.folder
