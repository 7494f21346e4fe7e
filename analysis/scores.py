"""Turns evaluation rows into score arrays, and selects one score for each problem from a run's curve by a selection rule.

Axes in names: S seeds, E evaluations, P problems (all benchmarks side by side), K benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.load import Sweep
from analysis.runs import Group, InputError, Run, by_group
from analysis.stats import ROUNDING

PRIMARY_RULE = "last3"
NUM_LAST = 3


@dataclass(frozen=True, eq=False)
class Method:
    """All runs of one method in one group. The arrays hold the scored `runs` only, in order of their seeds."""

    name: str
    runs: list[Run]  # finished, with a complete evaluation at every common step
    others: list[Run]  # running, preempted, failed, missing, or without evaluations: listed, not scored
    scores_SEP: np.ndarray  # share of correct samples, in [0, 1]
    num_samples_SEP: np.ndarray  # samples behind each score

    @property
    def all_runs(self) -> list[Run]:
        return self.runs + self.others

    @property
    def finished(self) -> list[Run]:
        """The finished runs, whose training can be reported: the scored ones, and those of a sweep without evaluations."""
        return [run for run in self.all_runs if run.finished]

    @property
    def settings(self) -> dict:
        """The rule's own settings, which all runs of a method share."""
        return self.all_runs[0].method_settings

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]

    @property
    def collapsed(self) -> list[Run]:
        return [run for run in self.runs if run.collapse_step is not None or run.stopped_early]


@dataclass(frozen=True, eq=False)
class GroupScores:
    """The scores of one comparison group on its common grid: the steps and problems that every scored run has."""

    group: Group
    methods: dict[str, Method]
    steps_E: np.ndarray
    benchmarks: list[str]
    benchmark_P: np.ndarray  # index into benchmarks
    problem_ids: list[str]
    seeds: list[int]  # all seeds seen in the group, finished or not
    curves: dict[str, tuple[np.ndarray, np.ndarray]]  # run id -> its own steps [E'] and scores [E', K], unfinished runs too

    @cached_property
    def weights_P(self) -> np.ndarray:
        """Weight of each problem in the summary: benchmarks count alike, problems alike inside one."""
        counts_K = np.bincount(self.benchmark_P, minlength=len(self.benchmarks))
        return 1.0 / (len(self.benchmarks) * counts_K[self.benchmark_P])

    def summary(self, scores: np.ndarray) -> np.ndarray:
        """Mean over benchmarks of the mean over problems; the last axis is P."""
        return scores @ self.weights_P

    def by_benchmark(self, scores: np.ndarray) -> np.ndarray:
        """Mean over each benchmark's problems: the last axis P becomes K."""
        return np.stack([scores[..., self.benchmark_P == k].mean(-1) for k in range(len(self.benchmarks))], -1)

    def selected(self, method: str, rule: str) -> np.ndarray:
        """[S, P]: the score of each run on each problem under a selection rule."""
        select = SELECTION_RULES[rule].select
        curves_SEP = self.methods[method].scores_SEP
        return (
            np.stack([select(curve, self) for curve in curves_SEP]) if len(curves_SEP) else np.empty((0, len(self.problem_ids)))
        )

    def last(self, most: int) -> slice:
        """The last `most` evaluations. That before any training says nothing of a rule: it is one of them only if it is alone."""
        return slice(-max(1, min(most, np.count_nonzero(self.steps_E))), None)

    def num_samples(self, method: str, rule: str) -> np.ndarray:
        """[S, P]: samples behind each selected score."""
        return self.methods[method].num_samples_SEP[:, self.last(SELECTION_RULES[rule].num_averaged)].sum(1)

    @property
    def scored(self) -> list[str]:
        return [name for name, method in self.methods.items() if method.runs]


@dataclass(frozen=True)
class SelectionRule:
    """How one run's curve [E, P] becomes one score for each problem [P]."""

    label: str
    meaning: str
    select: Callable[[np.ndarray, GroupScores], np.ndarray]
    num_averaged: int = 1  # evaluations whose samples stand behind a score


def best_step(curve_EP: np.ndarray, weights_P: np.ndarray) -> int:
    """The evaluation with the highest weighted score, the first of equal ones."""
    scores_E = curve_EP @ weights_P
    return int(np.argmax(scores_E > scores_E.max() - ROUNDING))


def best(curve_EP: np.ndarray, group: GroupScores) -> np.ndarray:
    return curve_EP[best_step(curve_EP, group.weights_P)]


def final(curve_EP: np.ndarray, group: GroupScores) -> np.ndarray:
    return curve_EP[-1]


def last3(curve_EP: np.ndarray, group: GroupScores) -> np.ndarray:
    return curve_EP[group.last(NUM_LAST)].mean(0)


def area(curve_EP: np.ndarray, group: GroupScores) -> np.ndarray:
    """Mean over the window of steps: the area under the curve by trapezoids, divided by the window's length."""
    if len(curve_EP) == 1:
        return curve_EP[0]
    steps_E = group.steps_E
    return np.trapezoid(curve_EP, steps_E, axis=0) / (steps_E[-1] - steps_E[0])


def split_half(curve_EP: np.ndarray, group: GroupScores) -> np.ndarray:
    """Problems are split into halves, alternately in each benchmark. Each half is scored at the step that is best for the other
    half, so that no score takes part in choosing its own step."""
    half_P = np.zeros(len(group.problem_ids), dtype=bool)
    for k in range(len(group.benchmarks)):
        half_P[np.flatnonzero(group.benchmark_P == k)[::2]] = True
    chosen_by_half = best_step(curve_EP, group.weights_P * half_P)
    chosen_by_rest = best_step(curve_EP, group.weights_P * ~half_P)
    return np.where(half_P, curve_EP[chosen_by_rest], curve_EP[chosen_by_half])


SELECTION_RULES = {
    "best": SelectionRule("best", "best summary in [0, T_stop], as in the paper; optimistic", best),
    "final": SelectionRule("final", "last evaluation", final),
    "last3": SelectionRule("mean of last 3", "mean of the last three evaluations of trained weights", last3, NUM_LAST),
    "auc": SelectionRule("area under curve", "mean over the window, trapezoids over steps", area),
    "split_half": SelectionRule(
        "split-half best", "step chosen on half of the problems, scored on the other, swapped", split_half
    ),
}


def group_scores(sweep: Sweep, t_stop: int | None = None) -> list[GroupScores]:
    """The scores of every comparison group at steps in [0, t_stop]; t_stop defaults to the group's shortest planned run."""
    evals = sweep.evals.assign(share=sweep.evals["num_correct"] / sweep.evals["n"])
    tables = dict(list(evals.groupby("run_id", observed=True)))
    return [one_group(group, runs, tables, t_stop) for group, runs in by_group(sweep.runs).items()]


def one_group(group: Group, runs: list[Run], tables: dict, t_stop: int | None) -> GroupScores:
    asked = [run for run in runs if run.run_id in tables]
    finished = [run for run in asked if run.finished]
    problems = common_problems(group, [tables[run.run_id] for run in finished or asked])
    curves = {run.run_id: complete_evaluations(tables[run.run_id], problems) for run in asked}
    limit = t_stop if t_stop is not None else min((run.steps for run in finished), default=0)
    steps = common_steps([(run, curves[run.run_id][0]) for run in finished], limit)
    scored = {run.run_id: carried(curves[run.run_id], steps) for run in finished}
    names = dict.fromkeys(run.method for run in runs)
    shape = len(steps), len(problems)
    methods = {name: one_method(name, [run for run in runs if run.method == name], scored, shape) for name in names}
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in problems))
    codes_P = np.array([benchmarks.index(benchmark) for benchmark, _ in problems], dtype=int)
    seeds = sorted({run.seed for run in runs})
    result = GroupScores(group, methods, np.array(steps, dtype=int), benchmarks, codes_P, [p for _, p in problems], seeds, {})
    result.curves.update({key: (np.array(at), result.by_benchmark(scores)) for key, (at, scores, _) in curves.items() if at})
    return result


def one_method(name: str, runs: list[Run], scored: dict[str, tuple | None], shape: tuple[int, int]) -> Method:
    mine = sorted((run for run in runs if scored.get(run.run_id)), key=lambda run: (run.seed, run.run_id))
    others = [run for run in runs if run not in mine]
    scores, counts = (np.array([scored[run.run_id][i] for run in mine]).reshape(len(mine), *shape) for i in (0, 1))
    return Method(name, mine, others, scores, counts)


def common_problems(group: Group, tables: list) -> list[tuple[str, str]]:
    """(benchmark, problem) pairs that all runs were asked, sorted. InputError if no pair is common to all."""
    asked = [set(zip(table["benchmark"], table["problem_id"], strict=True)) for table in tables]
    common = sorted(set.intersection(*asked)) if asked else []
    if asked and not common:
        raise InputError(f"the runs of {group.label} were asked no common problem: give them as different experiments")
    return common


def complete_evaluations(table, problems: list[tuple[str, str]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """(steps, scores [E, P], samples [E, P]) of a run; an evaluation that lacks a problem, as after a crash, is left out."""
    index = {problem: i for i, problem in enumerate(problems)}
    columns = np.array([index.get(pair, -1) for pair in zip(table["benchmark"], table["problem_id"], strict=True)])
    steps, rows = np.unique(table["step"].to_numpy(), return_inverse=True)
    scores, counts = np.full((2, len(steps), len(problems)), np.nan)
    known = columns >= 0
    scores[rows[known], columns[known]] = table["share"].to_numpy()[known]
    counts[rows[known], columns[known]] = table["n"].to_numpy()[known]
    complete = ~np.isnan(scores).any(axis=1)
    return steps[complete].tolist(), scores[complete], counts[complete]


def common_steps(runs: list[tuple[Run, list[int]]], limit: int) -> list[int]:
    """Steps up to the limit at which every run was evaluated, except those stopped early; of these all steps if there are no
    other runs."""
    full = [set(steps) for run, steps in runs if not run.stopped_early and steps]
    grid = set.intersection(*full) if full else set().union(*(steps for _, steps in runs))
    return sorted(step for step in grid if step <= limit)


def carried(curve: tuple[list[int], np.ndarray, np.ndarray], grid: list[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """(scores, samples) of a run on the grid: at each step those of the run's last evaluation up to it. Only runs stopped by the
    collapse rule lack evaluations of the grid, and so keep their last one. None if the grid is empty, or begins before the run's
    first evaluation."""
    steps, scores, counts = curve
    rows = np.searchsorted(steps, grid, side="right") - 1
    if not len(rows) or rows.min() < 0:
        return None
    return scores[rows], counts[rows]
