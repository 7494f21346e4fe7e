"""Whole runs on two ranks against runs of one process: the same folder, the same numbers to float tolerance, whoever goes on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals import chain
from harness.files import read_json
from harness.runs.checkpoint import complete_steps
from harness.settings.compose import compose_plan
from harness.store import RunFolder

ROOT = Path(__file__).parents[3]
TINY = (
    "method=dppo",
    "train.steps=4",
    "train.prompts_per_step=3",
    "train.group_size=8",
    "train.updates_per_step=2",
    "rollout.lag=1",
    "data.max_response_length=24",
    "eval.max_response_length=16",
    "eval.every=2",
    "checkpoint.every=1",
    "checkpoint.keep_last=9",
    "record.shadow_every=2",
    "record.batches_every=2",
    "train.collapse.truncated_share=1.0",
    "harness.display=none",
)

class Runs:
    def __init__(self, folder, ranks):
        self.folder, self.ranks = folder, ranks
        rng = random.Random(0)
        problems = [chain.sample_problem(rng, 4) for _ in range(3)]
        rows = [{"id": str(i), "problem": problem.text, "answer": problem.answer} for i, problem in enumerate(problems)]
        (folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def overrides(self, name: str) -> list[str]:
        return [*TINY, f"eval.benchmarks=[jsonl:{self.folder / 'few.jsonl'}]", f"runs_dir={self.folder / name}"]

    def outcome(self, name: str, size: int, **orders) -> list[tuple[int, str]]:
        return self.ranks.outcome(size, "tiny_run.py", json.dumps({"overrides": self.overrides(name)} | orders))

    def run(self, name: str, size: int, **orders) -> RunFolder:
        for status, output in self.outcome(name, size, **orders):
            assert status == 0, output
        return self.at(name)

    def at(self, name: str) -> RunFolder:
        return compose_plan(self.overrides(name)).folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, ranks):
    return Runs(tmp_path_factory.mktemp("runs"), ranks)


@pytest.fixture(scope="module")
def alone(runs) -> RunFolder:
    return runs.run("alone", 1)


def files(folder: RunFolder) -> set[str]:
    paths = {path.relative_to(folder.path) for path in folder.path.rglob("*") if path.is_file()}
    return {str(path) for path in paths if path.parts[0] != "logs"}


# These order a few responses, and rounding turns near ties round.
ORDERED = {f"prefix/{key}" for key in ("rank_correlation", "suffix_spread_calm", "suffix_spread_drifted")}


def assert_same_numbers(found: RunFolder, expected: RunFolder) -> None:
    assert found.state == expected.state == "completed"
    assert files(found) == files(expected)
    assert found.rows("evals") == expected.rows("evals")
    for name in ("metrics", "shadow"):
        for row, wanted in zip(found.rows(name), expected.rows(name), strict=True):
            row, wanted = ({key: one[key] for key in one if not key.startswith("time/")} for one in (row, wanted))
            assert row.keys() == wanted.keys()
            for key in row.keys() - {"by_position", "rule", "cost/learned_positions"}:  # how much is padding is up to the split
                if not key.startswith("mismatch/"):
                    noise = 0.1 if key in ORDERED else 1e-5
                    assert row[key] == pytest.approx(wanted[key], rel=2e-3, abs=noise), (name, row["step"], key)
    assert all(row["mismatch/max_error"] < 1e-4 for row in found.rows("metrics") if "mismatch/max_error" in row)


def test_two_ranks_write_the_folder_of_one(runs, alone):
    both = runs.run("both", 2)
    assert_same_numbers(both, alone)
    status = both.read_status()
    assert status["ranks"] == 2 and status["device_hours"] == pytest.approx(2 * status["seconds"] / 3600, abs=1e-5)
    assert not (both.path / "lock.json").exists()


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_a_stopped_run_goes_on_with_another_number_of_ranks(runs, alone, first, second):
    name = f"{first}-to-{second}"
    stopped = runs.run(name, first, stop_after=2)
    assert stopped.state == "preempted" and complete_steps(stopped.path / "checkpoints") == [1, 2]
    before, resumed = stopped.read_status(), runs.run(name, second)
    assert_same_numbers(resumed, alone)
    after = resumed.read_status()
    own = (after["seconds"] - before["seconds"]) * second / 3600
    assert after["device_hours"] == pytest.approx(before["device_hours"] + own, abs=1e-5)


@pytest.mark.parametrize(("rank", "how"), [(1, "kill"), (1, "raise"), (0, "kill")])
def test_a_rank_that_dies_ends_the_other_within_a_minute_and_the_run_resumes(runs, alone, rank, how):
    name, start = f"{how}{rank}", time.monotonic()
    outcomes = runs.outcome(name, 2, die={"rank": rank, "step": 3, "how": how})
    assert time.monotonic() - start < 60
    assert all(status != 0 for status, _ in outcomes)
    folder = runs.at(name)
    status = folder.read_status()
    assert status["state"] == ("failed" if rank else "running") and folder.last_step() == 2
    if how == "raise":
        assert status["reason"] == "rank 1: KeyError: 'the graphics card fell out'"
        assert "in wrapped" in (folder.path / "logs" / "attempt_1.rank1.traceback.txt").read_text()
    assert_same_numbers(runs.run(name, 1), alone)


def test_a_sweep_whose_runs_take_two_ranks_each(runs):
    command = [sys.executable, "-m", "harness", "-m", "seed=1,2", "cluster=local", "cluster.ranks=2", "train.steps=1"]
    overrides = [word for word in runs.overrides("sweep") if not word.startswith(("train.steps", "harness.display"))]
    done = subprocess.run([*command, *overrides], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 runs done" in done.stdout
    statuses = [read_json(path) for path in (runs.folder / "sweep").rglob("status.json")]
    assert [(status["state"], status["ranks"]) for status in statuses] == [("completed", 2)] * 2
