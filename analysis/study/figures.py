"""The study's own figures: a dot for every run, the reward curves of both families, the stress map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.figures.curves import metric_series
from analysis.figures.paper import BAND_NOTE
from analysis.figures.plot import Dots, DotSeries, Line, Matrix, Missing, Panel, Plot, Series
from analysis.results import Results
from analysis.study.cells import Family, StudyCell, only_group
from analysis.study.protocol import COMMAND, LATE_STEPS, METRIC_NOTE, METRICS, STRESS, STUDY
from analysis.study.stress import AXES, Axis, Place, StressMap
from analysis.style import TUNED, label, looks, ordered

COLOURS = ("#777777", "#0072B2")
NOTHING = (float("nan"),) * 3
DODGE = 0.4  # width over which the rules stand side by side at a level, in units of the distance between two levels


def fig_study_dots(families: list[Family]) -> Plot | Missing:
    """Late reward and held-out score, a dot for each run, published beside tuned."""
    title = "Every run of the study"
    rules = ordered({rule for family in families for rule in family.cells})
    if not rules:
        return Missing(title, "finished runs of the study", COMMAND.format(STUDY))
    panels = [
        Dots(text, f"{text} (points)", list(map(label, rules)), [dots(*pair, rules, key) for pair in with_colours(families)])
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


def fig_stress(stress: StressMap) -> Plot | Missing:
    """A panel for each axis, and one for the collapsed runs of all levels."""
    title = "The stress map"
    if not stress.presets:
        return Missing(title, "finished runs of the stress map", COMMAND.format(STRESS))
    panels = [*(axis_panel(stress, axis) for axis in AXES), collapse_panel(stress)]
    notes = [
        f"Late reward: mean over the last {LATE_STEPS} steps. Line: mean over seeds; dots: runs, a cross if it collapsed. Rules "
        "stand side by side at a level. Last panel: collapsed of all runs."
    ]
    return Plot(title, panels, notes, columns=2)


def axis_panel(stress: StressMap, axis: Axis) -> Panel:
    places = [(axis.name, text) for text in axis.levels.values()]
    shifts = np.linspace(-DODGE / 2, DODGE / 2, len(stress.presets))
    lines = [stress_series(stress, preset, places, shift) for preset, shift in zip(stress.presets, shifts, strict=True)]
    return Panel(axis.name, f"default: {axis.default_place[1]}", "late reward (points)", lines, ticks=list(axis.levels.values()))


def stress_series(stress: StressMap, preset: str, places: list[Place], shift: float) -> Series:
    """A rule's late reward at the levels of one axis, moved sideways by `shift`. Levels without runs are skipped."""
    at = [(x + shift, stress.cells[place][preset]) for x, place in enumerate(places) if preset in stress.cells[place]]
    x, mean = np.array([x for x, _ in at]), np.array([100 * cell.values["late"].mean() for _, cell in at])
    nothing = np.full(len(at), np.nan)
    look = looks({name.removesuffix(TUNED) for name in stress.presets})[preset.removesuffix(TUNED)]
    return Series(stress.texts[preset], *look, x, mean, nothing, nothing, [dot for point in at for dot in run_dots(*point)])


def run_dots(x: float, cell: StudyCell) -> list[Line]:
    """A dot at x for each run, with a cross if it collapsed."""
    late = zip(cell.run_ids, 100 * cell.values["late"], strict=True)
    return [Line(run_id, np.array([x]), np.array([y]), (x, y) if run_id in cell.collapsed else None) for run_id, y in late]


def collapse_panel(stress: StressMap) -> Matrix:
    """Share of collapsed runs: a row for each rule, a column for each level, the default first."""
    columns = {"default": stress.default} | {" ".join(place): cells for place, cells in stress.away.items()}
    cells = [[by_preset.get(preset) for by_preset in columns.values()] for preset in stress.presets]
    values = np.array([[cell.num_collapsed / len(cell) if cell else np.nan for cell in row] for row in cells])
    texts = [[f"{cell.num_collapsed}/{len(cell)}" if cell else "" for cell in row] for row in cells]
    behind = [[cell.run_ids if cell else [] for cell in row] for row in cells]
    run_ids = [run_id for row in behind for cell_ids in row for run_id in cell_ids]
    rows = [stress.texts[preset] for preset in stress.presets]
    return Matrix("collapsed runs", 100 * values, rows, list(columns), "%", run_ids, texts, limits=(0, 100), cell_ids=behind)
