"""The study's own figures: every run's late reward, and the reward curves of both families."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.figures.curves import metric_series
from analysis.figures.paper import BAND_NOTE
from analysis.figures.record import Dots, DotSeries, Missing, Panel, Plot
from analysis.results import Results
from analysis.study.cells import Family, only_group
from analysis.study.protocol import COMMAND, LATE_STEPS, METRIC_NOTE, METRICS, STUDY
from analysis.style import label, looks, ordered

COLOURS = ("#777777", "#0072B2")
NOTHING = (float("nan"),) * 3


def fig_study_dots(families: list[Family]) -> Plot | Missing:
    """Published beside tuned, a dot for each run."""
    title = "Every run of the study"
    rules = ordered({rule for family in families for rule in family.cells})
    if not rules:
        return Missing(title, "finished runs of the study", COMMAND.format(STUDY))
    panels = [
        Dots(text, f"{text} (points)", list(map(label, rules)), [dots(*one, rules, key) for one in with_colours(families)])
        for key, (text, _) in METRICS.items()
    ]
    notes = ["Dots: runs; bar: mean and its 95 % interval over seeds (Student's t).", METRIC_NOTE]
    return Plot(title, panels, notes, columns=2)


def with_colours(families: list[Family]) -> list[tuple[Family, str]]:
    return list(zip(families, COLOURS, strict=True))


def dots(family: Family, colour: str, rules: list[str], metric: str) -> DotSeries:
    cells = [family.cells.get(rule) for rule in rules]
    values = [100 * cell.values[metric] if cell else np.array([]) for cell in cells]
    means = [cell.mean(metric) if cell else None for cell in cells]
    bounds = [(100 * m.estimate, 100 * m.low, 100 * m.high) if m else NOTHING for m in means]
    return DotSeries(family.name, colour, values, bounds, [run_id for cell in cells if cell for run_id in cell.run_ids])


def fig_study_curves(results: Results | None, families: list[Family]) -> Plot | Missing:
    """Training reward against step; a rule has one colour in both families."""
    title = "Training reward during the study"
    panels = [reward_panel(results, family) for family in families if family.cells]
    return Plot(title, panels, [BAND_NOTE], columns=2) if panels else Missing(title, "finished runs", COMMAND.format(STUDY))


def reward_panel(results: Results, family: Family) -> Panel:
    group, presets = only_group(results), {cell.preset: rule for rule, cell in family.cells.items()}
    by_rule = looks(family.cells)
    look = {preset: by_rule[rule] for preset, rule in presets.items()}
    texts = {label(preset): label(rule) for preset, rule in presets.items()}
    curves = metric_series(results, group, list(presets), look, "reward/mean", scale=100, width=LATE_STEPS)
    curves = [replace(curve, label=texts[curve.label]) for curve in curves]
    return Panel(family.name, f"step (means of {LATE_STEPS})", "training reward (points)", curves)
