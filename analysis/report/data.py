"""Turns results into the page's data: plain JSON values, in which a run is referred to by its place in `runs`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable

import numpy as np

from analysis.figures import FIGURES
from analysis.figures.paper import all_looks
from analysis.figures.plot import Line, Matrix, Missing, Panel, Plot, Series
from analysis.report.thinning import numbers, points_per_curve, thinned
from analysis.report.tokens import embedded_traces
from analysis.results import Results
from analysis.runs import TYPED, Run, differing
from analysis.scores import GroupScores
from analysis.style import label, ordered
from analysis.tables import TABLES
from analysis.tables.table import Cell, Table
from analysis.verdict import paragraph
from harness.metric_table import METRICS, POSITION_BUCKETS

FORMAT = 1
ATTEMPT = (
    "number", "state", "step", "reason", "started", "ended", "checkpoint", "host", "slurm_job_id", "slurm_restarts", "git_sha",
)  # fmt: skip
RATIOS = [f"mismatch/ratio_{quantile}" for quantile in ("min", "p01", "p50", "p99", "max")]
# Metrics that get a curve. Of families (keys with "<…>") only the quantiles of the ratio do; a family by position is shown as a
# mean over the steps.
CURVES = [metric.key for metric in METRICS if "<" not in metric.key] + [*RATIOS, "time/step"]
BY_POSITION = [metric.key.removesuffix("/<bucket>") for metric in METRICS if metric.key.endswith("/<bucket>")]


def page_data(results: Results) -> dict:
    """All data of the page but `live`, which `report` adds."""
    runs = results.sweep.runs
    place = {run.run_id: i for i, run in enumerate(runs)}
    at = lambda run_ids: [place[run_id] for run_id in run_ids]
    return {
        "format": FORMAT,
        "warning": results.warning,
        "verdict": [verdict_data(results, group, at) for group in results.groups],
        "settings": settings_data(results, at),
        "tables": [table_data(make(results), at) for make in TABLES.values()],
        "figures": [{"name": name} | figure_data(make(results), at) for name, make in FIGURES.items()],
        "metrics": {metric.key: {"unit": metric.unit, "meaning": f"{metric.meaning}; {metric.reduction}"} for metric in METRICS},
        "runs": runs_data(results),
        "absent": absent_runs(results),
    }


def verdict_data(results: Results, group: GroupScores, at: Callable) -> dict:
    runs = [run for method in group.methods.values() for run in method.all_runs]
    return {"text": paragraph(results, results.comparison(group)), "runs": at([run.run_id for run in runs])}


# settings: those that all runs share once, then those that differ


def settings_data(results: Results, at: Callable) -> dict:
    """shared: settings with one value in all runs; groups: a table of shared settings that differ, a column for each group;
    methods: a table of all settings of methods, a column for each method."""
    runs = results.sweep.runs
    varying = differing([run.shared_settings for run in runs])
    shared = {key: text_of(value) for key, value in runs[0].shared_settings.items() if key not in varying}
    order = ordered({run.method for run in runs})
    by_label = columns_of(runs, lambda run: run.group.label)
    by_method = columns_of(sorted(runs, key=lambda run: order.index(run.method)), lambda run: label(run.method))
    return {
        "shared": sorted(shared.items()),
        "groups": difference_table(by_label, at, lambda run: run.shared_settings, varying),
        "methods": difference_table(by_method, at, lambda run: run.method_settings),
    }


def columns_of(runs: list[Run], name: Callable[[Run], str]) -> dict[str, list[Run]]:
    columns: dict[str, list[Run]] = {}
    for run in runs:
        columns.setdefault(name(run), []).append(run)
    return columns


def difference_table(columns: dict[str, list[Run]], at: Callable, settings: Callable[[Run], dict], keys=None) -> dict:
    """A table with a row for each key (default: every key that a run has). Where the runs of one column differ, its cell lists
    their values."""
    keys = keys if keys is not None else dict.fromkeys(key for runs in columns.values() for run in runs for key in settings(run))
    cell = lambda runs, key: " | ".join(dict.fromkeys(text_of(settings(run)[key]) for run in runs if key in settings(run))) or "–"
    return {
        "columns": list(columns),
        "runs": [at([run.run_id for run in runs]) for runs in columns.values()],
        "rows": [[key, *(cell(runs, key) for runs in columns.values())] for key in keys],
    }


def text_of(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# tables and figures


def table_data(table: Table, at: Callable) -> dict:
    rows = [[name, [cell_data(cell, at) for cell in cells]] for name, cells in table.rows]
    return {
        "name": table.name, "title": table.title, "corner": table.corner, "columns": table.columns, "notes": table.notes,
        "rows": rows,
    }  # fmt: skip


def cell_data(cell: Cell, at: Callable) -> dict:
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in cell.values.items()}
    return {"text": cell.text, "values": finite(values), "runs": at(cell.run_ids), "emphasis": cell.emphasis}


def finite(values: dict) -> dict:
    return {key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in values.items()}


def figure_data(figure: Plot | Missing, at: Callable) -> dict:
    if isinstance(figure, Missing):
        return {"title": figure.title, "missing": figure.what, "command": figure.command}
    return {"title": figure.title, "notes": figure.notes, "panels": [panel_data(panel, at) for panel in figure.panels]}


def panel_data(panel: Panel | Matrix, at: Callable) -> dict:
    if isinstance(panel, Matrix):
        return matrix_data(panel, at)
    return {
        "title": panel.title, "xlabel": panel.xlabel, "ylabel": panel.ylabel, "log_x": panel.log_x, "log_y": panel.log_y,
        "marks": [[float(x), text] for x, text in panel.marks], "series": [series_data(series, at) for series in panel.series],
    }  # fmt: skip


def series_data(series: Series, at: Callable) -> dict:
    axes = {key: numbers(getattr(series, key)) for key in ("x", "mean", "low", "high")}
    lines = [line_data(line, at) for line in series.lines]
    return {"label": series.label, "colour": series.colour, "dash": series.dash, "lines": lines} | axes


def line_data(line: Line, at: Callable) -> dict:
    collapse = numbers(line.collapse) if line.collapse is not None else None
    (run,) = at([line.run_id])
    return {"run": run, "x": numbers(line.x), "y": numbers(line.y), "collapse": collapse, "finished": line.finished}


def matrix_data(matrix: Matrix, at: Callable) -> dict:
    return {
        "title": matrix.title, "rows": matrix.rows, "columns": matrix.columns, "unit": matrix.unit, "behind": behind(matrix, at),
        "xlabel": matrix.xlabel, "ylabel": matrix.ylabel, "extent": matrix.extent, "limits": matrix.limits,
        "diverging": matrix.diverging, "log": matrix.log, "texts": matrix.texts,
        "values": [numbers(row) for row in matrix.values],
    }  # fmt: skip


def behind(matrix: Matrix, at: Callable) -> dict:
    """The runs behind each cell. `sets`: the distinct sets of runs; `cells`: for each cell its place in `sets`, or None if one
    set is behind all cells."""
    if matrix.cell_ids is None:
        return {"sets": [at(matrix.run_ids)], "cells": None}
    places: dict[tuple, int] = {}
    cells = [[places.setdefault(tuple(at(ids)), len(places)) for ids in row] for row in matrix.cell_ids]
    return {"sets": list(map(list, places)), "cells": cells}


# runs


def runs_data(results: Results) -> list[dict]:
    runs, look = results.sweep.runs, all_looks(results)
    keys, traces = link_keys(runs), embedded_traces(runs)
    budget = points_per_curve(len(runs) * len(CURVES))
    scores = {run_id: curve for group in results.groups for run_id, curve in group.curves.items()}
    return [
        run_data(run, keys[run.run_id], look[run.method])
        | {"curves": run_curves(results, run, budget), "positions": by_position(results, run)}
        | {"scores": score_curve(scores.get(run.run_id))}
        | traces[run.run_id]
        for run in runs
    ]


def link_keys(runs: list[Run]) -> dict[str, str]:
    """The name of each run in links: method/seed=n if only one run has that name, else the whole run id."""
    short = {run.run_id: f"{run.method}/seed={run.seed}" for run in runs}
    names = list(short.values())
    return {run_id: name if names.count(name) == 1 else run_id for run_id, name in short.items()}


def run_data(run: Run, key: str, look: tuple[str, str]) -> dict:
    return {
        "id": run.run_id, "key": key, "method": run.method, "label": label(run.method), "rule": run.rule, "seed": run.seed,
        "group": run.group.label, "state": run.state, "step": run.step, "steps": run.steps, "collapse": run.collapse_step,
        "hours": run.device_hours, "colour": look[0], "dash": look[1], "command": run.command, "warnings": run.warnings,
        "provenance": [(name, text_of(value)) for name, value in run.provenance.items()],
        "attempts": {"columns": ATTEMPT, "rows": [[attempt_text(row.get(key)) for key in ATTEMPT] for row in run.attempts]},
        "settings": [(name, text_of(value)) for name, value in sorted((run.shared_settings | method_of(run)).items())],
        "operation": [(name, text_of(value)) for name, value in run.operational_settings.items()],
    }  # fmt: skip


def method_of(run: Run) -> dict:
    return {f"method.{key}": value for key, value in run.method_settings.items()} | {"seed": run.seed}


def attempt_text(value) -> str:
    return "–" if value is None else text_of(value)


def run_curves(results: Results, run: Run, budget: int) -> dict:
    """{metric: [steps, values]} with about `budget` points each; metrics that the run never recorded are left out."""
    curves = {metric: results.sweep.metric(run, metric) for metric in CURVES}
    return {metric: [numbers(part) for part in thinned(*curve, budget)] for metric, curve in curves.items() if len(curve[0])}


def by_position(results: Results, run: Run) -> dict:
    """{family: [relative positions, mean over steps]}; buckets that the run never recorded are left out."""
    return {family: curve for family in BY_POSITION if (curve := position_curve(results, run, family))[0]}


def position_curve(results: Results, run: Run, family: str) -> list:
    values = [results.sweep.metric(run, f"{family}/{bucket}")[1] for bucket in range(POSITION_BUCKETS)]
    known = [((bucket + 0.5) / POSITION_BUCKETS, recorded.mean()) for bucket, recorded in enumerate(values) if len(recorded)]
    return [numbers(x for x, _ in known), numbers(y for _, y in known)]


def score_curve(curve: tuple | None) -> list | None:
    """[steps, scores in points], means over benchmarks; None for a run that has not been evaluated."""
    return None if curve is None else [numbers(curve[0]), numbers(100 * curve[1].mean(1))]


# absent runs: seeds that a group has and one of its methods lacks


def absent_runs(results: Results) -> list[dict]:
    return [
        {"group": group.group.label, "method": name, "label": label(name), "seed": seed, "command": command_for(runs, name, seed)}
        for group in results.groups
        for name in results.main_methods(group)
        for runs in [group.methods[name].all_runs]
        for seed in group.seeds
        if seed not in {run.seed for run in runs}
    ]


def command_for(siblings: list[Run], method: str, seed: int) -> str:
    """The command that makes a run: that of a sibling, with this method, its changed settings, and this seed in place of those
    that it names."""
    typed = next((run.command for run in siblings if run.command.startswith(TYPED)), f"{TYPED} method= seed=")
    preset, *changed = method_words(method)
    replacements = {"method=": preset, "seed=": f"seed={seed}"}
    kept = [word for word in shlex.split(typed) if not word.startswith("method.")]
    words = [next((new for start, new in replacements.items() if word.startswith(start)), word) for word in kept]
    return shlex.join(words + [new for new in [*replacements.values(), *changed] if new not in words])


def method_words(method: str) -> list[str]:
    """A preset's name with changed settings as words of a command. It is split at commas before "key=" only: values may contain
    commas too.

    >>> method_words("dppo,delta=0.1,layers=[1,2]")
    ['method=dppo', 'method.delta=0.1', 'method.layers=[1,2]']
    """
    preset, *changed = re.split(r",(?=[\w.]+=)", method)
    return [f"method={preset}", *(f"method.{setting}" for setting in changed)]
