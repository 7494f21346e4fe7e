"""The written rule of collapse: each check by hand, and on real runs of the default settings against a reader's eye.

data/collapse.json: metrics of runs of the embedded task at default settings (28 steps, rounded to three digits; null: the
step had no such value).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness import run
from harness.learning.learner import Learner
from harness.runs.attempt import StopRequest, attempt
from harness.store import RunFolder
from harness.telemetry.collapse import CollapseWatch, evaluation_means, first_breach

ROOT = Path(__file__).parents[3]
THRESHOLDS = yaml.safe_load((ROOT / "conf" / "train" / "matched.yaml").read_text())["collapse"]
REAL = json.loads((Path(__file__).parent / "data" / "collapse.json").read_text())
COLLAPSING = ("cispo", "pg", "pg_is")
STABLE = ("cppo", "dppo", "grpo", "ppo")


def rows(rewards=None, **columns) -> list[dict]:
    """Healthy rows but for what is given; a list of values, or one value per step by {step: value}."""
    healthy = {"reward": 0.5, "entropy": 0.06, "length": 58.0, "truncated": 0.0, "k3": 1e-13, "skipped": 0, "nonfinite": 0}
    names = {
        "reward": "reward/mean",
        "entropy": "actor/entropy",
        "length": "response_length/mean",
        "truncated": "response_length/clip_ratio",
        "k3": "mismatch/k3",
        "skipped": "health/updates_skipped",
        "nonfinite": "health/nonfinite_rollout",
    }
    columns = {"reward": dict(enumerate(rewards or [], 1))} | columns
    steps = range(1, len(rewards or [0] * 28) + 1)
    return [{"step": s} | {names[k]: columns.get(k, {}).get(s, default) for k, default in healthy.items()} for s in steps]


def marked(metrics, evaluations=(), steps=28, **changes):
    breach = first_breach(metrics, evaluations, THRESHOLDS | changes, steps)
    return breach and (breach.step, breach.reason)


def test_a_healthy_run_is_not_marked():
    assert marked(rows(), [(0, 0.25), (7, 0.5), (14, 0.4)]) is None


@pytest.mark.parametrize(
    "column, value, reason",
    [
        ("skipped", 1, "loss or gradient not finite"),
        ("nonfinite", 2, "rollout log-probs not finite"),
        ("entropy", 5e-5, "entropy under 0.0001"),
        ("entropy", 0.181, "entropy over 3 times the start"),
        ("entropy", None, "actor/entropy not finite"),
        ("truncated", 0.96, "over 95% of the responses truncated"),
        ("length", 5.7, "length under 10% of its running median"),
        ("k3", 1.1e-6, "mismatch KL over 10 times its start"),
        ("k3", None, "mismatch/k3 not finite"),
    ],
)
def test_one_bad_step_is_marked(column, value, reason):
    assert marked(rows(**{column: {12: value, 20: value}})) == (12, reason)


@pytest.mark.parametrize(
    "column, value", [("entropy", 0.179), ("entropy", 1.1e-4), ("truncated", 0.95), ("length", 5.9), ("k3", 0.9e-6)]
)
def test_a_step_just_inside_the_threshold_is_not(column, value):
    assert marked(rows(**{column: {12: value}})) is None


def test_low_reward_needs_a_whole_window():
    """28 steps: a window of 4. Four zeros: trailing averages 0.375, 0.25, then 0.125, 0, 0.125 (low: three), 0.25."""
    assert marked(rows([0.5] * 8 + [0.0] * 4 + [0.5] * 5)) is None
    assert marked(rows([0.5] * 8 + [0.0] * 6)) == (11, "reward under 0.5 of its best for 4 steps")


def test_in_a_short_run_a_single_bad_batch_does_not_decide():
    assert marked(rows([0.5, 0.0, 0.5]), steps=3) is None


def test_two_evaluations_in_a_row():
    assert marked(rows(), [(0, 0.2), (7, 0.6), (14, 0.29), (21, 0.6), (28, 0.29)]) is None
    assert marked(rows(), [(0, 0.2), (7, 0.6), (14, 0.29), (21, 0.29)]) == (14, "evaluation under 0.5 of its best twice in a row")


def test_the_mismatch_limit_is_ten_times_the_start_where_that_is_above_the_floor():
    start = dict.fromkeys(range(1, 5), 1e-4)
    later = dict.fromkeys(range(5, 29), 1e-4)
    assert marked(rows(k3=start | later | {20: 0.9e-3})) is None
    assert marked(rows(k3=start | later | {20: 1.1e-3})) == (20, "mismatch KL over 10 times its start")


def test_steps_without_a_value_are_passed_over():
    metrics = rows()
    for row in metrics[3:9]:
        del row["actor/entropy"], row["mismatch/k3"]
    assert marked(metrics) is None


def test_the_earliest_mark_wins_whatever_the_order_of_discovery():
    assert marked(rows([0.5] * 8 + [0.0] * 6, length={12: 1.0})) == (11, "reward under 0.5 of its best for 4 steps")


def test_means_over_benchmarks_weigh_benchmarks_equally():
    row = lambda benchmark, problem, correct: {
        "step": 0, "benchmark": benchmark, "problem_id": problem, "n": 4, "num_correct": correct
    }  # fmt: skip
    assert evaluation_means([row("a", 1, 4), row("b", 1, 0), row("b", 2, 0), row("b", 3, 2)]) == [(0, (1 + 1 / 6) / 2)]


def real_run(name: str) -> tuple[list[dict], list[tuple[int, float]]]:
    run = REAL["runs"][name]
    columns = [dict(zip(REAL["keys"], values, strict=True)) for values in run["rows"]]
    present = [{key: value for key, value in row.items() if value is not None} for row in columns]
    return [{"step": step} | row for step, row in enumerate(present, 1)], [tuple(pair) for pair in run["evaluations"]]


def readers_mark(metrics: list[dict], evaluations: list[tuple[int, float]]) -> int | None:
    """With hindsight, from the whole curves: where the first of reward and evaluation drops under half of its best for good."""
    curves = [[(row["step"], row["reward/mean"]) for row in metrics], evaluations]
    marks = []
    for curve in curves:
        half = max(value for _, value in curve) / 2
        first_good = next(i for i, (_, value) in enumerate(curve) if value >= half)
        last_good = max(i for i, (_, value) in enumerate(curve) if value >= half)
        if first_good <= last_good < len(curve) - 1:
            marks.append(curve[last_good + 1][0])
    return min(marks, default=None)


@pytest.mark.parametrize("name", [name for name in REAL["runs"] if name.split("/")[0] in COLLAPSING])
def test_real_collapses_are_marked_within_a_tenth_of_the_run_of_where_a_reader_would(name):
    metrics, evaluations = real_run(name)
    breach = first_breach(metrics, evaluations, THRESHOLDS, REAL["steps"])
    assert abs(breach.step - readers_mark(metrics, evaluations)) <= REAL["steps"] / 10


@pytest.mark.parametrize("name", [name for name in REAL["runs"] if name.split("/")[0] in STABLE])
def test_real_stable_runs_are_never_marked(name):
    metrics, evaluations = real_run(name)
    assert readers_mark(metrics, evaluations) is None
    assert first_breach(metrics, evaluations, THRESHOLDS, REAL["steps"]) is None


def test_the_fixture_holds_every_rule_with_two_seeds():
    assert sorted(REAL["runs"]) == sorted(f"{rule}/seed={seed}" for rule in COLLAPSING + STABLE for seed in (1, 2))


@pytest.mark.parametrize("name", REAL["runs"])
def test_online_is_the_same_as_afterwards(name):
    """After every step the watch says what the function says of the rows so far."""
    metrics, evaluations = real_run(name)
    watch = CollapseWatch(THRESHOLDS, REAL["steps"])
    watch.see_evaluation(*evaluations[0])
    for row in metrics:
        seen = [pair for pair in evaluations if pair[0] <= row["step"]]
        if seen[-1][0] == row["step"]:
            watch.see_evaluation(*seen[-1])
        watch.see(row)
        assert watch.breach == first_breach(metrics[: row["step"]], seen, THRESHOLDS, REAL["steps"])


def test_history_is_read_once():
    """A generator can't be read again, so a step costs the same at step 10 and at step 10,000."""
    assert marked(iter(rows([0.5] * 2000)), steps=200) is None


def test_a_value_that_is_not_finite_marks_the_run_at_once(tmp_path, run_small, monkeypatch):
    """The row in memory holds NaN where the stored one holds null."""
    learn = run.learn

    def without_entropy(parts, step, timer):
        return learn(parts, step, timer) | ({"actor/entropy": float("nan")} if step == 1 else {})

    monkeypatch.setattr(run, "learn", without_entropy)
    status = RunFolder(run_small(tmp_path, "eval.benchmarks=[]")).read_status()
    assert (status["collapse_step"], status["collapse_reason"]) == (1, "actor/entropy not finite")


def test_a_policy_that_breaks_within_a_recorded_step_is_marked_and_ends_no_run(tiny_plan, tiny_train, tmp_path, monkeypatch):
    plan, step = tiny_plan(tmp_path, "record.shadow_every=1"), Learner.step

    def breaking(learner, loss):
        done = step(learner, loss)
        if learner.num_updates == 3:
            next(learner.model.parameters()).data.fill_(float("inf"))
        return done

    monkeypatch.setattr(Learner, "step", breaking)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert plan.folder.read_status()["collapse_step"] == 2
    kept = {(row["step"], row["rule"]): row["by_position"]["mass_kept"] for row in plan.folder.rows("shadow")}
    assert None in kept[2, "pg_is"] and None not in kept[1, "pg_is"]
