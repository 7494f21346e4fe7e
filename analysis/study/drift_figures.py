"""Figures of the drift testbed: its runs, and what prefix drift has to do with reward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.figures.curves import metric_series
from analysis.figures.paper import BAND_NOTE
from analysis.figures.record import Dots, DotSeries, Line, Missing, Panel, Plot, Series
from analysis.results import Results
from analysis.study.cells import Family, only_group
from analysis.study.drift import over
from analysis.study.figures import COLOURS, dots
from analysis.study.mechanism import MIDDLE, SETTLED, Course, Mechanism
from analysis.study.protocol import COMMAND, DRIFT, METRIC_NOTE, METRICS
from analysis.style import label, looks

NOTHING = (float("nan"),) * 3
WINDOW = 4  # steps averaged in a curve


def missing(title: str) -> Missing:
    return Missing(title, "finished runs of the drift testbed", COMMAND.format(DRIFT))


def fig_drift_dots(families: list[Family]) -> Plot | Missing:
    """A dot for each run: the rules, then CPPO's ablations."""
    title = "Every run on the drift testbed"
    rules, variants = families
    both = Family("", rules.cells | variants.cells)
    if not both.cells:
        return missing(title)
    names = list(both.cells)
    panels = [
        Dots(text, f"{text} (points)", list(map(label, names)), [replace(dots(both, COLOURS[1], names, key), label="runs")])
        for key, (text, _) in METRICS.items()
    ]
    notes = ["Dots: runs; bar: mean and its 95 % interval over seeds (Student's t).", METRIC_NOTE]
    return Plot(title, panels, notes, columns=2)


def fig_mechanism(results: Results | None, answers: Mechanism) -> Plot | Missing:
    """Drift and reward against step, one against the other across runs, and the suffix behind calm and drifted prefixes."""
    title = "Prefix drift and what follows"
    if not answers.rules:
        return missing(title)
    look, group = looks(answers.rules), only_group(results)
    names, axis = list(answers.rules), f"step (means of {WINDOW})"
    shown = (("S_T", "prefix/drift", 1), ("training reward (points)", "reward/mean", 100))
    curves = [
        Panel(text, axis, text, metric_series(results, group, names, look, key, scale, WINDOW)) for text, key, scale in shown
    ]
    panels = [*curves, across_panel(answers, look), within_panel(answers), suffix_panel(answers)]
    notes = [
        BAND_NOTE,
        f"Across runs: a dot for each, S_T over steps {SETTLED} to {MIDDLE} against late reward less the reward of these steps. "
        "Within runs: a dot for each run, rank correlation of S_T with the change of reward that follows, step and reward so far "
        "partialled out. Suffix: spread of z behind the calmer and the more drifted half of prefixes.",
    ]
    return Plot(title, panels, notes, columns=3)


def across_panel(answers: Mechanism, look: dict[str, tuple[str, str]]) -> Panel:
    empty = np.array([])
    series = [
        Series(label(name), *look[name], *[empty] * 4, [Line(one.run.run_id, *point(one)) for one in runs])
        for name, runs in answers.rules.items()
    ]
    return Panel("across runs", f"S_T, steps {SETTLED} to {MIDDLE}", "later change of reward (points)", series)


def point(one: Course) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one.early_drift]), np.array([100 * one.later_gain])


def within_panel(answers: Mechanism) -> Dots:
    return rule_dots("within runs", "rank correlation", answers, {"S_T, reward after": lambda one: one.within})


def suffix_panel(answers: Mechanism) -> Dots:
    spreads = {"calm prefix": lambda one: one.settled("spread_calm"), "drifted": lambda one: one.settled("spread_drifted")}
    return rule_dots("suffix ratios", "spread of z (nat/√token)", answers, spreads)


def rule_dots(title: str, xlabel: str, answers: Mechanism, values: dict) -> Dots:
    """Rules down, a series for each value."""
    series = []
    for (name, value), colour in zip(values.items(), COLOURS[::-1] if len(values) == 1 else COLOURS, strict=False):
        known = [[one for one in runs if np.isfinite(value(one))] for runs in answers.rules.values()]
        means = [over(runs, value) for runs in known]
        bounds = [(mean.estimate, mean.low, mean.high) if mean else NOTHING for mean in means]
        run_ids = [one.run.run_id for runs in known for one in runs]
        series.append(DotSeries(name, colour, [np.array([value(one) for one in runs]) for runs in known], bounds, run_ids))
    return Dots(title, xlabel, list(map(label, answers.rules)), series)
