"""Figures that the paper does not have: pairs, problems, profiles, agreement of rules, position × step maps, stability, power."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from analysis.compare import pooled_spread, uncollapsed_methods
from analysis.figures.curves import metric_series
from analysis.figures.paper import SWEEP, all_looks, step_label
from analysis.figures.plot import Line, Matrix, Missing, Panel, Plot, Series
from analysis.pairs import Spread, power_of_pair
from analysis.recordings import agreement
from analysis.results import Results
from analysis.runs import Run
from analysis.scores import GroupScores
from analysis.style import COMPARED, label, ordered
from analysis.tables.cells import signed
from analysis.tables.table import ids
from harness.metric_table import POSITION_BUCKETS

MAP_COLUMNS = 120  # a position × step map has at most this many windows of steps


def prefix(results: Results, group: GroupScores) -> str:
    return f"{results.group_label(group)}: " if len(results.groups) > 1 else ""


def runs_behind(group: GroupScores, names: Iterable[str]) -> list[str]:
    return [run_id for name in names for run_id in group.methods[name].run_ids]


def fig_pairwise(results: Results) -> Plot | Missing:
    """Differences of all pairs, row minus column, with a star where the pair can be told apart."""
    panels = []
    for group in results.groups:
        comparison = results.comparison(group)
        names = list(comparison.means)
        if len(names) < 2:
            continue
        values, texts = np.full((len(names), len(names)), np.nan), [[""] * len(names) for _ in names]
        for i, one in enumerate(names):
            for j, other in enumerate(names):
                if i != j:
                    c = comparison.contrast(one, other)
                    values[i, j] = 100 * c.together.estimate
                    texts[i][j] = signed(c.together.estimate) + ("*" if c.told_apart else "")
        labels = [label(name) for name in names]
        run_ids = runs_behind(group, names)
        cell_ids = [[runs_behind(group, dict.fromkeys([one, other])) for other in names] for one in names]
        title = f"{prefix(results, group)}row − column"
        panels.append(Matrix(title, values, labels, labels, "points", run_ids, texts, diverging=True, cell_ids=cell_ids))
    if not panels:
        return Missing("Differences between methods", "two methods with finished, evaluated runs", SWEEP)
    widest = max(len(panel.rows) for panel in panels)
    columns = 2 if len(panels) > 1 and widest <= 5 else 1
    notes = ["* told apart (5 %, all pairs together)."]
    return Plot("Differences between methods", panels, notes, columns, wide=widest > 5)


def fig_problems(results: Results) -> Plot | Missing:
    """Score of each method on each problem, problems from hard to easy."""
    panels = []
    for group in results.groups:
        comparison = results.comparison(group)
        for k, benchmark in enumerate(group.benchmarks if comparison.means else []):
            member_P = group.benchmark_P == k
            values = 100 * np.array([scores[:, member_P].mean(0) for scores in comparison.scores_SP.values()])
            order = np.argsort(values.mean(0), kind="stable")
            rows = [label(name) for name in comparison.means]
            run_ids = runs_behind(group, comparison.means)
            cell_ids = [[group.methods[name].run_ids] * len(order) for name in comparison.means]
            title, axis = f"{prefix(results, group)}{benchmark}", "problem, hard to easy"
            panels.append(
                Matrix(title, values[:, order], rows, [], "points", run_ids, xlabel=axis, limits=(0, 100), cell_ids=cell_ids)
            )
    if not panels:
        return Missing("Score on each problem", "a finished, evaluated run", SWEEP)
    return Plot("Score on each problem", panels, ["Mean over seeds; problems in order of their mean over methods."])


def fig_profiles(results: Results) -> Plot | Missing:
    """Performance profiles: the share of problems on which a method's score, mean over seeds, is at least x."""
    look, panels = all_looks(results), []
    thresholds = np.linspace(0, 100, 101)
    for group in results.groups:
        comparison = results.comparison(group)
        curves = [profile(group, name, scores, thresholds, look[name]) for name, scores in comparison.scores_SP.items()]
        if curves:
            panels.append(Panel(results.group_label(group), "score on a problem (points)", "% of problems at or above", curves))
    if not panels:
        return Missing("Performance profiles", "a finished, evaluated run", SWEEP)
    return Plot("Performance profiles", panels, ["Score on a problem: mean over seeds. Benchmarks count alike."], columns=2)


def profile(group: GroupScores, name: str, scores_SP: np.ndarray, thresholds: np.ndarray, look: tuple[str, str]) -> Series:
    mean_P = 100 * scores_SP.mean(0)
    share = 100 * (mean_P[None, :] >= thresholds[:, None] - 1e-9) @ group.weights_P
    nothing = np.full_like(share, np.nan)
    lines = [Line(run_id, np.array([]), np.array([])) for run_id in group.methods[name].run_ids]
    return Series(label(name), *look, thresholds, share, nothing, nothing, lines)


def fig_agreement(results: Results) -> Plot | Missing:
    """Agreement of two rules in what they drop of the same tokens: a row for each running rule, a column for each compared rule
    at its shipped settings."""
    title, panels = "Agreement between rules on the same tokens", []
    for group in results.groups:
        shares = {name: agreement(group.methods[name].finished) for name in results.main_methods(group)}
        shares = {name: row for name, row in shares.items() if row}
        rules = [rule for rule in ordered({rule for row in shares.values() for rule in row}) if rule in COMPARED]
        if not rules:
            continue
        values = np.array([[row.get(rule, np.nan) for rule in rules] for row in shares.values()])
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in values]
        labels = [label(name) for name in shares], [label(rule) for rule in rules]
        by_row = [ids(group.methods[name].finished) for name in shares]
        run_ids, cell_ids = sum(by_row, []), [[behind] * len(rules) for behind in by_row]
        panels.append(
            Matrix(results.group_label(group), values, *labels, "Jaccard", run_ids, texts, limits=(0, 1), cell_ids=cell_ids)
        )
    if not panels:
        what = "decisions of several rules on the tokens of finished runs (shadow.jsonl)"
        return Missing(title, what, f"{SWEEP} record.shadow_every=7")
    notes = ["Jaccard index of the dropped tokens of each step's last minibatch, mean over steps and seeds; 1 if neither drops."]
    return Plot(title, panels, notes, columns=1, wide=True)


def fig_position_divergence(results: Results) -> Plot | Missing:
    return position_map(results, "Divergence by position and step", "trust/div_by_pos", "TV", log=True)


def fig_position_masking(results: Results) -> Plot | Missing:
    return position_map(results, "Masked tokens by position and step", "trust/mask_by_pos", "share", log=False)


def position_map(results: Results, title: str, key: str, unit: str, log: bool) -> Plot | Missing:
    """Maps of a metric by relative position (down) and step (across), a panel for each method, mean over seeds. All panels share
    one colour scale."""
    maps = []
    for group in results.groups:
        for name in results.main_methods(group):
            runs = [run for run in group.methods[name].finished if len(results.sweep.metric(run, f"{key}/0")[0])]
            if runs:
                maps.append((f"{prefix(results, group)}{label(name)}", runs, map_values(results, runs, key)))
    if not maps:
        return Missing(title, f"no finished run has recorded {key}/…", SWEEP)
    everything = np.concatenate([values[np.isfinite(values) & ((values > 0) | (not log))] for _, _, values in maps])
    limits = (
        (float(everything.min()), float(everything.max())) if len(everything) and everything.min() < everything.max() else None
    )
    panels = [
        Matrix(
            text, values, [], [], unit, [run.run_id for run in runs],
            xlabel="step", ylabel="bucket of position", extent=(1, runs[0].steps), limits=limits, log=log,
        )
        for text, runs, values in maps
    ]  # fmt: skip
    return Plot(title, panels, [f"Bucket 0 is the first {100 // POSITION_BUCKETS} % of a response. Mean over seeds."])


def map_values(results: Results, runs: list[Run], key: str) -> np.ndarray:
    """[buckets, windows of steps], mean over runs; nan where nothing was recorded."""
    width = max(1, -(-runs[0].steps // MAP_COLUMNS))
    windows = -(-runs[0].steps // width)
    total, count = np.zeros((2, POSITION_BUCKETS, windows))
    for run in runs:
        for bucket in range(POSITION_BUCKETS):
            steps, values = results.sweep.metric(run, f"{key}/{bucket}")
            inside = steps <= runs[0].steps
            np.add.at(total[bucket], (steps[inside] - 1) // width, values[inside])
            np.add.at(count[bucket], (steps[inside] - 1) // width, 1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def fig_power(results: Results) -> Plot | Missing:
    """Chance of telling two methods apart, against the number of seeds, by the spread of these runs."""
    panels = []
    for group in results.groups:
        comparison = results.comparison(group)
        spread = pooled_spread(comparison)
        if spread is not None and spread.sd > 0:
            run_ids = runs_behind(group, uncollapsed_methods(comparison))
            curves = [power_curve(points, spread, i, run_ids) for i, points in enumerate((1, 2, 5, 10))]
            present = min(len(group.methods[name].runs) for name in comparison.means)
            title = f"{results.group_label(group)}: sd {100 * spread.sd:.1f} points, correlation {spread.correlation:.2f}"
            panels.append(Panel(title, "seeds for each method", "power (%)", curves, marks=[(float(present), f"now: {present}")]))
    if not panels:
        return Missing("Power", "two finished runs of one method that did not collapse", SWEEP)
    note = (
        "One comparison of two methods at 5 %; sd of a run and its correlation between methods, over methods without collapses."
    )
    return Plot("Chance to tell two methods apart", panels, [note], columns=2)


NUM_SEEDS = np.arange(2, 31)


def power_curve(points: float, spread: Spread, i: int, run_ids: list[str]) -> Series:
    power = np.array([100 * power_of_pair(points / 100, spread, int(n)) for n in NUM_SEEDS])
    nothing = np.full_like(power, np.nan)
    colour, dash = ["#0072B2", "#009E73", "#E69F00", "#D55E00"][i], ["-", "--", "-.", ":"][i]
    lines = [Line(run_id, np.array([]), np.array([])) for run_id in run_ids]
    return Series(f"{points} point{'s' if points != 1 else ''}", colour, dash, NUM_SEEDS, power, nothing, nothing, lines)


def fig_stability(results: Results) -> Plot | Missing:
    """Entropy and masking against step, as a check of stability."""
    look, panels = all_looks(results), []
    for group in results.groups:
        for key, text in (("actor/entropy", "entropy (nat)"), ("trust/mask_frac", "share of tokens masked")):
            curves = metric_series(results, group, results.main_methods(group), look, key)
            if curves:
                panels.append(Panel(results.group_label(group), step_label(group), text, curves))
    if not panels:
        return Missing("Entropy and masking", "no run has recorded actor/entropy or trust/mask_frac", SWEEP)
    return Plot("Entropy and masking", panels, columns=2)
