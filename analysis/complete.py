"""Whether a run folder holds what its run wrote. A finished run that lacks rows would change the scores of all runs silently:
they are compared at the steps and on the problems that they have in common."""

from __future__ import annotations

import pandas as pd

from analysis.runs import InputError, Run
from harness.store import RunFolder


def require_complete(run: Run, folder: RunFolder, metrics: pd.DataFrame, evals: pd.DataFrame) -> None:
    """InputError if rows of a finished run are missing, or count different numbers of samples."""
    if not run.finished:
        return
    if run.step > run.steps or (run.state == "completed" and run.step < run.steps):
        refuse(folder, "status.json", f"{run.state} at step {run.step} (there or in metrics.jsonl) of {run.steps} in config.json")
    if missing := sorted(set(range(1, run.step + 1)) - set(metrics["step"])):
        refuse(folder, "metrics.jsonl", f"no row of steps {listed(missing)}{damaged(folder, 'metrics')}")
    if missing := incomplete_evaluations(run, folder, evals):
        refuse(folder, "evals.jsonl", f"rows are missing of the evaluations at steps {listed(missing)}{damaged(folder, 'evals')}")
    sizes = evals.groupby("benchmark")["n"].unique()
    for benchmark, counts in sizes[sizes.map(len) > 1].items():
        refuse(folder, "evals.jsonl", f"{benchmark} has {listed(sorted(counts))} samples a problem: a run has one number of them")


def incomplete_evaluations(run: Run, folder: RunFolder, evals: pd.DataFrame) -> list[int]:
    """Planned steps whose evaluation lacks a problem that another evaluation of the run has."""
    counts = evals.groupby("step").size()
    num_problems = len(evals[["benchmark", "problem_id"]].drop_duplicates())
    return sorted(step for step in folder.planned_evaluations(run.step) if counts.get(step, 0) < max(num_problems, 1))


def damaged(folder: RunFolder, name: str) -> str:
    lines = folder.damaged_lines(name)
    return f" (lines {listed(lines)} are half-written or damaged)" if lines else ""


def listed(numbers: list[int]) -> str:
    """At most eight of them."""
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown} and {len(numbers) - 8} more" if len(numbers) > 8 else shown


def refuse(folder: RunFolder, name: str, what: str) -> None:
    remedy = "leave the run out, restore the file, or move the folder away and run it again"
    raise InputError(f"{folder.path / name}: {what}: {remedy}")
