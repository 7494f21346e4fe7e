import json
import random
from pathlib import Path

import pytest

from evals import chain
from harness.run import train
from harness.runs.attempt import StopRequest, attempt
from harness.settings.compose import compose_plan

SMALL = (
    "train.steps=2",
    "train.prompts_per_step=4",
    "train.group_size=4",
    "train.updates_per_step=2",
    "rollout.lag=1",
    "checkpoint.every=1",
    "record.shadow_every=0",
)


def write_problems(path: Path, count: int, seed: int = 0) -> Path:
    """A file of chain problems with 4 operations, which the embedded model can read: p0, p1, …"""
    rng = random.Random(seed)
    problems = [chain.sample_problem(rng, 4) for _ in range(count)]
    rows = [{"id": f"p{i}", "problem": problem.text, "answer": problem.answer} for i, problem in enumerate(problems)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_small(folder: Path, *overrides: str) -> Path:
    """The folder of a completed run of two steps."""
    plan = compose_plan([f"runs_dir={folder}", *SMALL, *overrides])
    assert attempt(plan, train, StopRequest()) == "completed"
    return plan.folder.path


@pytest.fixture(scope="session")
def problem_file(tmp_path_factory):
    return write_problems(tmp_path_factory.mktemp("problems") / "held_out.jsonl", 12)


@pytest.fixture(scope="session", name="run_small")
def run_small_fixture():
    return run_small


@pytest.fixture(scope="session", name="write_problems")
def write_problems_fixture():
    return write_problems


@pytest.fixture(scope="session")
def small_run(tmp_path_factory, problem_file):
    """One run, evaluated after each step on 12 problems, 4 samples each. Read it; write nowhere in it."""
    settings = (f"eval.benchmarks=['jsonl:{problem_file}']", "eval.n=4", "eval.every=1")
    return run_small(tmp_path_factory.mktemp("runs"), *settings)
