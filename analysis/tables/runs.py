"""Tables about the runs rather than their scores: stability, cost, and the list of runs."""

from __future__ import annotations

import numpy as np

from analysis.load import Sweep
from analysis.results import Results
from analysis.runs import Run
from analysis.stats import interval
from analysis.tables.cells import NONE, significant
from analysis.tables.scores import make, row_label
from analysis.tables.table import Cell, Table, ids

# (column, metric, reduction of a run's steps to one number: a key of REDUCE)
STABILITY = [
    ("masked", "trust/mask_frac", "mean"),
    ("by token cap", "trust/mask_frac_token", "mean"),
    ("by budget", "trust/mask_frac_budget", "mean"),
    ("responses rejected", "trust/seq_rejected_frac", "mean"),
    ("divergence", "trust/div_mean", "mean"),
    ("divergence, max", "trust/div_max", "max"),
    ("entropy, end", "actor/entropy", "end"),
    ("gradient norm", "actor/grad_norm", "mean"),
    ("mismatch k3", "mismatch/k3", "mean"),
    ("length, end", "response_length/mean", "end"),
    ("truncated", "response_length/clip_ratio", "mean"),
    ("skipped updates", "health/updates_skipped", "sum"),
]
COST = [
    ("rollout tokens/s", "time/tokens_per_s_rollout", "median"),
    ("learner tokens/s", "time/tokens_per_s_learner", "median"),
    ("s per step", "time/step", "median"),
    ("response tokens", "cost/response_tokens", "sum"),
]
REDUCE = {
    "mean": np.mean,
    "median": np.median,
    "max": np.max,
    "sum": np.sum,
    "end": lambda values: np.mean(values[-max(1, len(values) // 10) :]),
}


def per_run(sweep: Sweep, run: Run, metric: str, reduction: str) -> float:
    """One number for a run; nan where the run has no such metric."""
    _, values = sweep.metric(run, metric)
    return float(REDUCE[reduction](values)) if len(values) else float("nan")


def mean_cell(runs: list[Run], values: list[float]) -> Cell:
    """Mean over seeds ± the half-width of its 95 % interval."""
    known = np.array([value for value in values if value == value])
    if not len(known):
        return NONE
    result = interval([known[:, None]], np.zeros(1, dtype=int))
    spread = f" ± {significant(result.half_width)}" if result.df else ""
    return Cell(significant(result.estimate) + spread, {"mean": result.estimate, "num_seeds": len(known)}, ids(runs))


def metric_cells(results: Results, runs: list[Run], entries: list[tuple[str, str, str]]) -> list[Cell]:
    return [mean_cell(runs, [per_run(results.sweep, run, metric, how) for run in runs]) for _, metric, how in entries]


def finished_runs(results: Results):
    """Yields (row label, finished runs) for every main method that has some."""
    for group in results.groups:
        for name in results.main_methods(group):
            if group.methods[name].finished:
                yield row_label(results, group, name), group.methods[name].finished


def table_stability(results: Results) -> Table:
    """A row for each method: masking, divergence, entropy and other signs of stability, means over seeds."""
    rows = [(text, metric_cells(results, runs, STABILITY)) for text, runs in finished_runs(results)]
    notes = ["Mean over steps (end: over the last tenth of the steps), then mean over seeds ± 95 % interval. Shares are of 1."]
    notes += ["; ".join(f"{column}: {metric}, {how} over steps" for column, metric, how in STABILITY) + "."]
    return make("table_stability", "Stability", [column for column, _, _ in STABILITY], rows, notes, results)


def table_cost(results: Results) -> Table:
    """A row for each method: device-hours, speeds and tokens of a run, means over seeds."""
    rows = []
    for text, runs in finished_runs(results):
        hours = mean_cell(runs, [float("nan") if run.device_hours is None else run.device_hours for run in runs])
        rows.append((text, [hours, *metric_cells(results, runs, COST)]))
    notes = [
        "Per run, mean over seeds ± 95 % interval; speeds are medians over steps. Device-hours count every attempt of a run."
    ]
    return make("table_cost", "Cost", ["device-hours", *(column for column, _, _ in COST)], rows, notes, results)


def table_runs(results: Results) -> Table:
    """A row for every run that was found, whatever its state."""
    columns = ["state", "step", "collapse @", "reason", "attempts", "device-hours", "settings", "commit"]
    rows = [(run.run_id, [Cell(text, run_ids=[run.run_id]) for text in run_texts(run)]) for run in results.sweep.runs]
    notes = [
        "Only completed and collapsed runs are scored; the others are listed. settings: fingerprint of what runs must share."
    ]
    return make("table_runs", "Runs", columns, rows, notes, results, corner="run")


def run_texts(run: Run) -> list[str]:
    status = run.status
    commit = (status.get("git_sha") or "–")[:10] + ("+changes" if status.get("git_dirty") else "")
    at = "–" if run.collapse_step is None else str(run.collapse_step)
    hours = "–" if run.device_hours is None else significant(run.device_hours)
    reason, attempts = status.get("reason") or "–", str(status.get("attempts", "–"))
    return [run.state, f"{run.step}/{run.steps}", at, reason, attempts, hours, run.fingerprint[:8], commit]
