"""The study's protocol as constants and functions: experiments, metrics, seeds, how a setting is chosen (docs/study.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product

import numpy as np
import yaml

from analysis.load import Sweep
from analysis.results import Results
from analysis.runs import Run
from analysis.scores import GroupScores, Method

EXPERIMENTS = TUNING, STUDY, FRESH, ABLATIONS, STRESS, DRIFT = (
    "tuning", "study", "study_fresh", "study_ablations", "stress", "drift",
)  # fmt: skip
LATE_STEPS = 8
SETTLED = 8  # first step at which drift and budget are measured: before it rollouts come from the base model or nearly so
TIE = 0.005  # of settings whose mean is at most this far below the highest, the first in the grid's order is chosen
USED_BEFORE = 1  # the seed that had a part in choosing the default settings
COMMAND = "python -m harness -m experiment={} runs_dir=RUNS, then python -m analysis pack RUNS"


def late_reward(sweep: Sweep, run: Run) -> float:
    """Training reward, mean over the last 8 steps that the run has; nan without any."""
    steps, values = sweep.metric(run, "reward/mean")
    late = values[steps > run.step - LATE_STEPS]
    return float(late.mean()) if len(late) else float("nan")


def late_rewards(results: Results, group: GroupScores, method: Method) -> np.ndarray:
    return np.array([late_reward(results.sweep, run) for run in method.runs])


def held_out(results: Results, group: GroupScores, method: Method) -> np.ndarray:
    return group.summary(group.selected(method.name, "final"))


# The metrics that cells are compared by: key -> (name in tables, function to an array [runs] in [0, 1]). The first decides.
METRICS = {"late": ("late reward", late_rewards), "final": ("held-out", held_out)}
METRIC_NOTE = (
    f"Points. Late reward: training reward, mean over the last {LATE_STEPS} steps; held-out: last evaluation, levels alike."
)


@dataclass(frozen=True)
class Grid:
    """The grid of the tuning: for each rule its presets, the published setting first, and the seeds of every preset."""

    presets: dict[str, list[str]]
    seeds: list[int]


@cache
def swept(experiment: str) -> dict[str, list[str]]:
    """The values that conf/experiment/<experiment>.yaml sweeps, by key; those of an experiment that it is based on included."""
    content = yaml.safe_load((files("conf") / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    bases = [base for base in content.get("defaults", []) if isinstance(base, str) and base != "_self_"]
    own = {key: str(values).split(",") for key, values in content["hydra"]["sweeper"]["params"].items()}
    return {key: values for params in [*map(swept, bases), own] for key, values in params.items()}


def incomplete(experiment: str, runs: list[Run]) -> str:
    """A sentence that counts the runs which the experiment sweeps and which are not among the finished `runs`; empty without any.

    Such as: INCOMPLETE: 1 of 90 runs of study are missing, first cppo seed 3.
    """
    plan = {"stress": ["none"]} | swept(experiment)
    there = {(run.group.stress or "none", run.method, run.seed) for run in runs if run.finished}
    planned = list(product(plan["stress"], plan["method"], map(int, plan["seed"])))
    absent = [place for place in planned if place not in there]
    first = [f"{method} seed {seed}" + f" at {stress}" * (stress != "none") for stress, method, seed in absent[:1]]
    return f"INCOMPLETE: {len(absent)} of {len(planned)} runs of {experiment} are missing, first {first[0]}." if absent else ""


@cache
def grid() -> Grid:
    """The grid of the experiment `tuning`."""
    return Grid(rows(swept(TUNING)["method"]), [int(seed) for seed in swept(TUNING)["seed"]])


def rows(presets: list[str]) -> dict[str, list[str]]:
    """Presets split into one row for each rule: a preset "<first of the row>_<suffix>" belongs to the row before it.

    >>> rows(["ppo", "ppo_eps01", "grpo"])
    {'ppo': ['ppo', 'ppo_eps01'], 'grpo': ['grpo']}
    """
    by_first: dict[str, list[str]] = {}
    for preset in presets:
        first = next(reversed(by_first), None)
        if first is None or not preset.startswith(f"{first}_"):
            first, by_first[preset] = preset, []
        by_first[first].append(preset)
    return by_first
