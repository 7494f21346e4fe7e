"""Makes curves over training from evaluation scores and metrics, for each run and for a method's mean. Pure functions."""

from __future__ import annotations

from functools import reduce

import numpy as np

from analysis.distributions import t_quantile
from analysis.figures.plot import Line, Series
from analysis.load import Sweep
from analysis.results import Results
from analysis.runs import Run
from analysis.scores import GroupScores, Method
from analysis.stats import LEVEL
from analysis.style import label
from analysis.tables.cells import collapse_step

MAX_POINTS = 60  # a metric is averaged over windows of steps so that a curve has about this many points


def band(values_SX: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high) of each column, bounds at 95 % over seeds by Student's t; they are nan for one seed."""
    mean = values_SX.mean(0)
    if len(values_SX) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = t_quantile(0.5 + LEVEL / 2, len(values_SX) - 1) * values_SX.std(0, ddof=1) / len(values_SX) ** 0.5
    return mean, mean - half, mean + half


def series(name: str, look: tuple[str, str], x: np.ndarray, values_SX: np.ndarray, lines: list[Line]) -> Series:
    """A method's Series from its finished runs' values [S, X] at x [X]. Without finished runs there are lines but no mean."""
    nothing = np.array([])
    x, mean, low, high = (x, *band(values_SX)) if len(values_SX) else (nothing,) * 4
    return Series(label(name), *look, x, mean, low, high, lines)


def run_line(run: Run, steps: np.ndarray, x: np.ndarray, y: np.ndarray) -> Line:
    """A run's line through (x, y), where x are the positions of `steps` on the axis. A cross marks the run's collapse."""
    at = collapse_step(run) if run.collapse_step is not None or run.stopped_early else None
    cross = None if at is None or not len(steps) else (float(np.interp(at, steps, x)), float(np.interp(at, steps, y)))
    return Line(run.run_id, x, y, cross, run.finished)


def score_series(results: Results, group: GroupScores, names: list[str], looks: dict, axis: str = "step", k: int | None = None):
    """Evaluation curves of the named methods, in points: the summary, or benchmark k. axis: a key of AXES."""
    out = []
    for name in names:
        method = group.methods[name]
        lines = [
            score_line(results.sweep, group, run, axis, k) for run in method.all_runs if run.run_id in group.curves
        ]
        if lines:
            out.append(series(name, looks[name], *mean_scores(results.sweep, group, method, axis, k), lines))
    return out


def score_line(sweep: Sweep, group: GroupScores, run: Run, axis: str, k: int | None) -> Line:
    steps, scores_EK = group.curves[run.run_id]
    y = 100 * (scores_EK.mean(1) if k is None else scores_EK[:, k])
    return run_line(run, steps, position(sweep, run, steps, axis), y)


def mean_scores(sweep: Sweep, group: GroupScores, method: Method, axis: str, k: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(x [E], values [S, E]); where x differs between the runs, as with time, it is their mean."""
    scores_SEK = group.by_benchmark(method.scores_SEP)
    values_SE = 100 * (scores_SEK.mean(2) if k is None else scores_SEK[:, :, k])
    if not method.runs:
        return group.steps_E, values_SE
    return np.mean([position(sweep, run, group.steps_E, axis) for run in method.runs], axis=0), values_SE


AXES = {  # name: (label, metric that is summed over steps, scale)
    "step": ("step", "", 1.0),
    "tokens": ("response tokens (millions)", "cost/response_tokens", 1e-6),
    "hours": ("hours of training steps", "time/step", 1 / 3600),
    "minutes": ("minutes of training steps", "time/step", 1 / 60),
}


def position(sweep: Sweep, run: Run, steps: np.ndarray, axis: str) -> np.ndarray:
    """The positions of evaluation steps on an axis: the steps themselves, or the axis's metric summed up to each of them."""
    if axis == "step":
        return steps.astype(float)
    _, key, scale = AXES[axis]
    at, values = sweep.metric(run, key)
    total = np.concatenate([[0.0], np.cumsum(values) * scale])
    return total[np.searchsorted(at, steps, side="right")]


def windowed(steps: np.ndarray, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) averaged over windows of `width` steps: 1 to `width`, and so on. A window without values has no entry."""
    _, starts, counts = np.unique((steps - 1) // width, return_index=True, return_counts=True)
    mean = lambda of_steps: np.add.reduceat(of_steps.astype(float), starts) / counts if len(steps) else of_steps
    return mean(steps), mean(values)


def window_width(group: GroupScores) -> int:
    planned = max(run.steps for method in group.methods.values() for run in method.all_runs)
    return max(1, planned // MAX_POINTS)


def metric_series(
    results: Results, group: GroupScores, names: list[str], looks: dict, key: str, scale: float = 1.0, width: int | None = None
) -> list[Series]:
    """Curves of one metric for the named methods. The mean is given in windows where all finished runs have a value. `width` of
    a window in steps; by default from the length of the runs."""
    curve = lambda run: tuple(np.asarray(a) for a in results.sweep.metric(run, key))
    return curves_of(group, names, looks, lambda run: (lambda at, values: (at, scale * values))(*curve(run)), width)


def curves_of(group: GroupScores, names: list[str], looks: dict, curve, width: int | None = None) -> list[Series]:
    """Series from `curve`, a function run -> (steps, values), averaged over windows of steps."""
    width, out = width or window_width(group), []
    for name in names:
        method = group.methods[name]
        runs = [(run, *windowed(*curve(run), width)) for run in method.all_runs]
        runs = [entry for entry in runs if len(entry[1])]
        if runs:
            x, values_SX = at_common_windows([(x, y) for run, x, y in runs if run.finished], width)
            out.append(series(name, looks[name], x, values_SX, [run_line(run, x, x, y) for run, x, y in runs]))
    return out


def at_common_windows(curves: list[tuple[np.ndarray, np.ndarray]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """(x [X], values [S, X]) of all curves in the windows that each of them has; x is that of the first curve."""
    windows = [(x - 1) // width for x, _ in curves]
    common = reduce(np.intersect1d, windows) if curves else np.array([])
    values_SX = np.array([y[np.isin(has, common)] for has, (_, y) in zip(windows, curves, strict=True)])
    return (curves[0][0][np.isin(windows[0], common)] if curves else common), values_SX.reshape(len(curves), len(common))
