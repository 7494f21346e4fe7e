"""What docs/study.md fixes before any run: experiments, metrics, seeds, how a setting is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import yaml

from analysis.load import Sweep
from analysis.results import Results
from analysis.runs import Run
from analysis.scores import GroupScores, Method

TUNING, STUDY, FRESH, ABLATIONS, STRESS, DRIFT = "tuning", "study", "study_fresh", "study_ablations", "stress", "drift"
LATE_STEPS = 8
SETTLED = 8  # before this step rollouts come from the base model or nearly so: drift and budget are looked at from here on
TIE = 0.005  # a setting this close to the highest mean is preferred if it stands further left
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


# What a cell of the study is decided by: key -> (text, function to one value for each run). The first is looked at first.
METRICS = {"late": ("late reward", late_rewards), "final": ("held-out", held_out)}
METRIC_NOTE = (
    f"Points. Late reward: training reward, mean over the last {LATE_STEPS} steps; held-out: last evaluation, levels alike."
)


@dataclass(frozen=True)
class Grid:
    """The tuning's settings: for each rule its presets, the published one first; and the seeds."""

    presets: dict[str, list[str]]
    seeds: list[int]


@cache
def grid() -> Grid:
    """As conf/experiment/tuning.yaml has it: a preset named as the one that begins the row, with a suffix, stays in the row."""
    text = (files("conf") / "experiment" / f"{TUNING}.yaml").read_text(encoding="utf-8")
    params = yaml.safe_load(text)["hydra"]["sweeper"]["params"]
    return Grid(rows(params["method"].split(",")), [int(seed) for seed in str(params["seed"]).split(",")])


def rows(presets: list[str]) -> dict[str, list[str]]:
    """["ppo", "ppo_eps01", "grpo"] -> {"ppo": ["ppo", "ppo_eps01"], "grpo": ["grpo"]}"""
    found: dict[str, list[str]] = {}
    for preset in presets:
        head = next(reversed(found), None)
        if head is None or not preset.startswith(f"{head}_"):
            head, found[preset] = preset, []
        found[head].append(preset)
    return found
