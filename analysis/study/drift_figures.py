"""Figures of the drift testbed: its runs, and prefix drift beside reward, later gain and suffix ratios."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.figures.curves import run_line, series
from analysis.figures.paper import BAND_NOTE
from analysis.figures.plot import Dots, DotSeries, Line, Missing, Panel, Plot, Series
from analysis.study.cells import Family
from analysis.study.drift import over
from analysis.study.figures import COLOURS, NOTHING, dots
from analysis.study.mechanism import MIDDLE, Course, Mechanism
from analysis.study.protocol import COMMAND, DRIFT, METRIC_NOTE, METRICS, SETTLED
from analysis.style import label, looks

Look = dict[str, tuple[str, str]]


def missing(title: str) -> Missing:
    return Missing(title, "finished runs of the drift testbed", COMMAND.format(DRIFT))


def fig_drift_dots(families: list[Family]) -> Plot | Missing:
    """Late reward and held-out score, a dot for each run: the rules first, then CPPO's ablations."""
    title = "Every run on the drift testbed"
    rules, variants = families
    both = Family("runs", rules.cells | variants.cells)
    if not both.cells:
        return missing(title)
    names = list(both.cells)
    panels = [
        Dots(text, f"{text} (points)", list(map(label, names)), [dots(both, COLOURS[1], names, key)])
        for key, (text, _) in METRICS.items()
    ]
    notes = ["Dots: runs; bar: mean and its 95 % interval over seeds (Student's t).", METRIC_NOTE]
    return Plot(title, panels, notes, columns=2)


def fig_mechanism(answers: Mechanism) -> Plot | Missing:
    """Drift and reward against step, later gain against early drift, each rule's coefficient within runs, and the spread of
    suffix ratios for calm and drifted prefixes."""
    title = "Prefix drift and what follows"
    if not answers.rules:
        return missing(title)
    look = looks(answers.rules)
    panels = [
        replace(curves_panel(answers, look, "S_T", lambda course: course.drift), log_y=True),
        curves_panel(answers, look, "training reward (points)", lambda course: 100 * course.reward),
        across_panel(answers, look),
        rule_dots("within runs", "rank correlation", answers, {"beyond other seeds": answers.beyond_others}),
        rule_dots("suffix ratios", "spread of z (nat/√token)", answers, SPREADS),
    ]
    notes = [
        f"{BAND_NOTE} S_T: divergence summed over a response; no mean where a seed has no learned responses.",
        f"Across runs: a dot for each, S_T over steps {SETTLED} to {MIDDLE}; final held-out score less that of step {MIDDLE}.",
        "Within runs: rank correlation of S_T with the change of quality after it, less that with the drift of the rule's other "
        "seeds. Suffix ratios: spread of z behind the calmer and the more drifted half of prefixes.",
    ]
    return Plot(title, panels, notes, columns=3)


SPREADS = {
    "calm prefix": lambda course: course.settled("spread_calm"),
    "drifted": lambda course: course.settled("spread_drifted"),
}


def curves_panel(answers: Mechanism, look: Look, text: str, values) -> Panel:
    """`values`: a function from a course to its values by step."""
    curves = [course_series(name, look[name], courses, values) for name, courses in answers.rules.items()]
    return Panel(text, "step", text, curves)


def course_series(name: str, look: tuple[str, str], courses: list[Course], values) -> Series:
    shortest = min(len(values(course)) for course in courses)
    steps = np.arange(1, shortest + 1)
    values_SX = np.array([values(course)[:shortest] for course in courses])
    lines = [run_line(course.run, steps, steps, values_X) for course, values_X in zip(courses, values_SX, strict=True)]
    return series(name, look, steps, values_SX, lines)


def across_panel(answers: Mechanism, look: Look) -> Panel:
    empty = np.array([])
    by_rule = [
        Series(label(name), *look[name], *[empty] * 4, [Line(course.run.run_id, *point(course)) for course in courses])
        for name, courses in answers.rules.items()
    ]
    x, y = f"S_T, steps {SETTLED} to {MIDDLE}", f"held-out gained after step {MIDDLE} (points)"
    return Panel("across runs", x, y, by_rule, log_x=True)


def point(course: Course) -> tuple[np.ndarray, np.ndarray]:
    return np.array([course.early_drift]), np.array([100 * course.later_gain])


def rule_dots(title: str, xlabel: str, answers: Mechanism, values: dict) -> Dots:
    """A row for each rule, and in it a series for each entry of `values`: label -> function from a course to a number."""
    dot_series = []
    for (name, value), colour in zip(values.items(), COLOURS[-len(values) :], strict=True):
        known = [[course for course in courses if np.isfinite(value(course))] for courses in answers.rules.values()]
        numbers = [np.array([value(course) for course in courses]) for courses in known]
        means = [over(courses, value) for courses in known]
        bounds = [(mean.estimate, mean.low, mean.high) if mean else NOTHING for mean in means]
        run_ids = [course.run.run_id for courses in known for course in courses]
        dot_series.append(DotSeries(name, colour, numbers, bounds, run_ids))
    return Dots(title, xlabel, list(map(label, answers.rules)), dot_series)
