"""Figures 1 (right) to 11 of arXiv 2606.10968, redrawn from runs. Each is a pure function of the results."""

from __future__ import annotations

import numpy as np

from analysis.figures.curves import AXES, curves_of, metric_series, score_series, series, window_width
from analysis.figures.plot import Line, Missing, Panel, Plot, Series
from analysis.recordings import TracedResponse, traced_responses
from analysis.results import Results
from analysis.scores import GroupScores
from analysis.style import looks
from harness.metric_table import POSITION_BUCKETS

SWEEP = "python -m harness -m method=cppo,dppo,grpo seed=1,2,3"
SCORE = "score (points)"
BAND_NOTE = (
    "Thick: mean over finished runs; band: 95 % interval over seeds (Student's t; left out above five methods); "
    "thin: each run, dotted if unfinished; cross: collapse."
)


def all_looks(results: Results) -> dict[str, tuple[str, str]]:
    """(colour, line style) of every method of the sweep, so that each looks the same in all figures."""
    return looks({name for group in results.groups for name in group.methods})


def step_label(group: GroupScores) -> str:
    width = window_width(group)
    return "step" if width == 1 else f"step (means of {width})"


def fig1_right(results: Results) -> Plot | Missing:
    """Summary against step for one model: that of the group with the most scored methods."""
    group = max(results.groups, key=lambda group: len(group.scored))
    return score_plot(results, [group], "Score against step, one model", "step")


def fig4(results: Results) -> Plot | Missing:
    """Summary against step, a panel for each group."""
    return score_plot(results, results.groups, "Score against step, each model", "step")


def fig4_tokens(results: Results) -> Plot | Missing:
    return score_plot(results, results.groups, "Score against response tokens", "tokens")


def fig4_device_hours(results: Results) -> Plot | Missing:
    """Summary against the time of training steps: in hours, or in minutes if the longest run took less than an hour."""
    longest = max(results.sweep.metric(run, "time/step")[1].sum() for run in results.sweep.runs)
    return score_plot(results, results.groups, "Score against time", "hours" if longest >= 3600 else "minutes")


def score_plot(results: Results, groups: list[GroupScores], title: str, axis: str) -> Plot | Missing:
    look = all_looks(results)
    panels = []
    for group in groups:
        curves = score_series(results, group, results.main_methods(group), look, axis)
        if curves:
            panels.append(Panel(results.group_label(group), AXES[axis][0], SCORE, curves))
    if not panels:
        return Missing(title, "no run has been evaluated yet", SWEEP)
    return Plot(title, panels, [BAND_NOTE], columns=2)


def fig2(results: Results) -> Plot | Missing:
    """Divergence by relative position, its mean and its highest tenth, with the token threshold δ / w_t of rules that weight
    positions."""
    look, title = all_looks(results), "Divergence by position in the response"
    panels = []
    for group in results.groups:
        names = results.main_methods(group)
        for key, text in (("trust/div_by_pos", "mean"), ("trust/div_top10_by_pos", "highest tenth")):
            curves = [s for name in names if (s := by_position(results, group, name, look[name], key))]
            if curves:
                curves += thresholds(group, names)
                panels.append(
                    Panel(f"{results.group_label(group)}: {text}", "relative position", "divergence", curves, log_y=True)
                )
    if not panels:
        return Missing(title, "no run has divergence by position (metrics trust/div_by_pos/…)", SWEEP)
    return Plot(
        title, panels, ["Mean over steps and seeds. Dashed black: δ / w_t, the token cap on the plain divergence."], columns=2
    )


POSITIONS = (np.arange(POSITION_BUCKETS) + 0.5) / POSITION_BUCKETS


def by_position(results: Results, group: GroupScores, name: str, look: tuple[str, str], key: str) -> Series | None:
    """A method's means over steps for each bucket of relative position, of its finished runs; None if no run has them all."""
    lines = []
    for run in group.methods[name].finished:
        values = [results.sweep.metric(run, f"{key}/{bucket}")[1] for bucket in range(POSITION_BUCKETS)]
        if all(len(v) for v in values):
            lines.append(Line(run.run_id, POSITIONS, np.array([v.mean() for v in values])))
    return series(name, look, POSITIONS, np.array([line.y for line in lines]), lines) if lines else None


def thresholds(group: GroupScores, names: list[str]) -> list[Series]:
    """δ / w_t at each position for the first of these rules whose settings have delta and w_min; empty without one."""
    out = []
    for name in names:
        settings = group.methods[name].settings
        if {"delta", "w_min"} <= settings.keys():
            curve = settings["delta"] / (1 - (1 - settings["w_min"]) * POSITIONS)
            nothing = np.full_like(curve, np.nan)
            out.append(Series("δ / w_t", "#000000", "--", POSITIONS, curve, nothing, nothing))
    return out[:1]


def fig3(results: Results) -> Plot | Missing:
    """Effective token threshold c_t / w_t along two responses: the one with the lowest and the one with the highest drift S_T."""
    panels = []
    for group in results.groups:
        traced = [response for method in group.methods.values() for run in method.finished for response in traced_responses(run)]
        if len(traced) > 1:
            calm, drifting = (extreme(traced, key=lambda response: response.drift) for extreme in (min, max))
            curves = [*traced_series("calm", calm, "#0072B2"), *traced_series("drifting", drifting, "#D55E00")]
            panels.append(Panel(results.group_label(group), "token", "divergence", curves))
    if not panels:
        what = "token traces of runs (traces/), of which the lowest and the highest final prefix drift are drawn"
        return Missing("Effective token threshold along a response", what, f"{SWEEP} record.shadow_every=7")
    note = "Solid: c_t / w_t, up to which an outward token is kept; dotted: the tokens' divergence. From each run's last trace."
    return Plot("Effective token threshold along a response", panels, [note], columns=2)


def traced_series(text: str, traced: TracedResponse, colour: str) -> list[Series]:
    position = np.arange(1, len(traced.threshold_T) + 1)
    nothing = np.full(len(position), np.nan)
    run = [Line(traced.run.run_id, np.array([]), np.array([]))]
    return [
        Series(f"threshold, {text} (S = {traced.drift:.2f})", colour, "-", position, traced.threshold_T, nothing, nothing, run),
        Series(f"divergence, {text}", colour, ":", position, traced.divergence_T, nothing, nothing, run),
    ]


def fig7(results: Results) -> Plot | Missing:
    """Effective prefix budget during training, and the share of masked tokens that the budget masks."""
    look, panels = all_looks(results), []
    title = "The prefix budget during training"
    for group in results.groups:
        prefix = f"{results.group_label(group)}: " if len(results.groups) > 1 else ""
        names = [name for name in results.main_methods(group) if has_budget(results, group, name)]
        if not names:
            continue
        budgets = metric_series(results, group, names, look, "trust/delta_b_eff")
        shares = curves_of(group, names, look, lambda run: budget_share(results, run))
        panels.append(Panel(f"{prefix}effective δ_b", step_label(group), "δ_b", budgets))
        panels.append(Panel(f"{prefix}masked by the budget", step_label(group), "% of masked tokens", shares))
    if not panels:
        return Missing(
            title, "runs of a rule with a prefix budget (metric trust/delta_b_eff)", "python -m harness -m method=cppo seed=1,2,3"
        )
    return Plot(title, panels, [BAND_NOTE], columns=2)


def has_budget(results: Results, group: GroupScores, name: str) -> bool:
    return any(
        len(results.sweep.metric(run, "trust/delta_b_eff")[0]) for run in group.methods[name].all_runs
    )


def budget_share(results: Results, run) -> tuple[np.ndarray, np.ndarray]:
    """(steps, percent of the step's masked tokens that the budget alone masks); steps that mask nothing are left out."""
    steps, masked = results.sweep.metric(run, "trust/mask_frac")
    at, by_budget = results.sweep.metric(run, "trust/mask_frac_budget")
    common, i, j = np.intersect1d(steps, at, return_indices=True)
    some = masked[i] > 0
    return common[some], 100 * by_budget[j][some] / masked[i][some]


def fig8(results: Results) -> Plot | Missing:
    """Score on each benchmark (in the paper AIME24, 25, 26) against step."""
    look, panels = all_looks(results), []
    for group in results.groups:
        for k, benchmark in enumerate(group.benchmarks):
            curves = score_series(results, group, results.main_methods(group), look, k=k)
            title = f"{results.group_label(group)}: {benchmark}" if len(results.groups) > 1 else benchmark
            panels.append(Panel(title, "step", SCORE, curves))
    if not panels:
        return Missing("Each benchmark against step", "no run has been evaluated yet", SWEEP)
    return Plot("Each benchmark against step", panels, [BAND_NOTE])


def fig9(results: Results) -> Plot | Missing:
    return metric_plot(results, "Training reward", "reward/mean", "mean reward")


def fig10(results: Results) -> Plot | Missing:
    return metric_plot(results, "Response length", "response_length/mean", "tokens")


def fig11(results: Results) -> Plot | Missing:
    return metric_plot(
        results, "Log-prob error between learner and engine", "mismatch/rel_error", "|1 − ρ| at equal weights", log_y=True
    )


def metric_plot(results: Results, title: str, key: str, ylabel: str, log_y: bool = False) -> Plot | Missing:
    look, panels = all_looks(results), []
    for group in results.groups:
        curves = metric_series(results, group, results.main_methods(group), look, key)
        if curves:
            panels.append(Panel(results.group_label(group), step_label(group), ylabel, curves, log_y=log_y))
    return Plot(title, panels, [BAND_NOTE], columns=2) if panels else Missing(title, f"no run has recorded {key}", SWEEP)
