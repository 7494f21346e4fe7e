"""Tables of the testbed where prefixes drift: its cells, its pairs, and whether drift predicts failure (docs/study.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.stats import Interval
from analysis.study.cells import Family, StudyCell, of_samples
from analysis.study.contrasts import Pair, pairs
from analysis.study.mechanism import BUDGET, GAINS, RULES, WITH, WITHOUT, Course, Mechanism, over_rules
from analysis.study.protocol import COMMAND, DRIFT, METRIC_NOTE, METRICS, STUDY
from analysis.study.tables import behind, collapse_cell, mean_cell, pair_cells, pair_label
from analysis.style import label
from analysis.tables.cells import NONE, interval_values, minus, plus_minus
from analysis.tables.table import Cell, Table

NOT_ASKED = Cell("not asked")
NO_DRIFT = f"missing: no finished runs of the drift testbed. Made by: {COMMAND.format(DRIFT)}"
ANSWERS = {"default task": STUDY, "drift testbed": DRIFT}  # column of table_mechanism -> experiment


def drift_families(cells: dict[str, StudyCell]) -> list[Family]:
    """Two families: the seven rules, and CPPO with its ablations."""
    rules = {name: cell for name, cell in cells.items() if name in RULES}
    variants = {name: cell for name, cell in cells.items() if cell.rule == WITH}
    return [Family("drift testbed", rules), Family("ablations on it", variants)]


def ablation_pairs(family: Family, metric: str) -> list[Pair]:
    """Variant − CPPO for each variant; by Bonferroni, the intervals of all of them hold together."""
    reference, others = family.cells.get(WITH), [name for name in family.cells if name != WITH]
    if reference is None:
        return []
    value = {name: family.cells[name].values[metric] for name in family.cells}
    return [Pair(family, metric, name, WITH, of_samples(value[name], value[WITH]), len(others)) for name in others]


def drift_pairs(families: list[Family]) -> list[Pair]:
    """For each metric, all pairs of rules, then each ablation against CPPO."""
    rules, variants = families
    return [pair for metric in METRICS for pair in [*pairs(rules, metric), *ablation_pairs(variants, metric)]]


def table_drift(cells: dict[str, StudyCell], answers: Mechanism) -> Table:
    lines = [(label(name), drift_cells(cell, answers.courses.get(name, []))) for name, cell in cells.items()]
    texts = [text for text, _ in METRICS.values()]
    columns = ["seeds", *texts, "collapsed", "tokens masked, %", "by the budget alone, %", "S_T"]
    notes = [
        f"{METRIC_NOTE} Mean ± half-width of the 95 % interval over seeds (Student's t). Collapsed: by the written rule, with "
        "the exact interval of the share. Masked, and S_T, the divergence summed over a response: means over steps from 8 on."
    ]
    return Table("table_drift", "The testbed where prefixes drift", columns, lines, notes if lines else [NO_DRIFT])


def drift_cells(cell: StudyCell, courses: list[Course]) -> list[Cell]:
    shares = [mean_cell(over(courses, lambda course, key=key: course.settled(key))) for key in ("masked", "masked_budget")]
    means = [mean_cell(cell.mean(metric)) for metric in METRICS]
    drift = over(courses, lambda course: course.settled("drift"))
    drifted = Cell(f"{drift.estimate:.2f} ± {drift.half_width:.2f}", interval_values(drift)) if drift else NONE
    return behind([Cell(str(len(cell)), {"value": len(cell)}), *means, collapse_cell(cell), *shares, drifted], cell.run_ids)


def over(courses: list[Course], value: Callable[[Course], float]) -> Interval | None:
    """Mean over the runs whose value is finite, with Student's t; None if there is no such run."""
    values = np.array([number for course in courses if np.isfinite(number := value(course))])
    return of_samples(values) if len(values) else None


def table_drift_pairs(families: list[Family]) -> Table:
    lines = [(pair_label(pair), pair_cells(pair)) for pair in drift_pairs(families)]
    columns = ["difference", "95 % alone", "95 % all pairs together", "verdict", "seeds needed"]
    notes = [f"{METRIC_NOTE} Welch's intervals over seeds; together: by Bonferroni, over pairs of rules, or over ablations."]
    return Table("table_drift_pairs", "Pairs on the drift testbed", columns, lines, notes if lines else [NO_DRIFT], corner="pair")


def table_mechanism(answers: dict[str, Mechanism]) -> Table:
    """The answers: a row for each question, a column for each testbed that has runs. `answers` by the testbed's name."""
    questions = {
        "within runs: S_T and quality after it, beyond other seeds": lambda bed: coefficient(bed, bed.within()),
        **{f"within runs of {label(rule)}": lambda bed, rule=rule: coefficient(bed, bed.within(rule)) for rule in RULES},
        "within runs, the shared course not taken off": lambda bed: coefficient(bed, bed.within_with_shared),
        "across seeds of a rule: early S_T and later gain": lambda bed: across_cell(bed, bed.across_by_rule),
        "across seeds of a rule, the middle score not partialled out": lambda bed: across_cell(bed, bed.across_plain_by_rule),
        "suffix: first half's divergence and |z| of the second": lambda bed: coefficient(bed, bed.suffix),
        "suffix: spread of z behind drifted over calm prefixes": lambda bed: coefficient(bed, bed.ratio),
        **{f"budget, with less without: {name}": lambda bed, name=name: budget_cell(bed, name) for name in BUDGET},
        "the protocol's verdict": lambda bed: Cell(bed.verdict),
    }
    known = {name: bed for name, bed in answers.items() if bed.rules}
    lines = [(text, [ask(bed) for bed in known.values()]) for text, ask in questions.items()] if known else []
    notes = [
        "Rank correlations. 95 %: Student's t over seeds (each the mean of its rules); across seeds of a rule, over rules. "
        "Within runs: step and quality so far partialled out, and the same coefficient with the drift of the rule's other seeds "
        "taken off. Budget: CPPO less CPPO without prefix budget, paired by seed; late reward and held-out in points."
    ]
    title = "Does prefix drift predict failure?"
    return Table("table_mechanism", title, list(known), lines, notes if known else [NO_DRIFT], "question")


def coefficient(answers: Mechanism, interval: Interval | None) -> Cell:
    run_ids = [course.run.run_id for courses in answers.rules.values() for course in courses]
    return NOT_ASKED if interval is None else Cell(number(interval), interval_values(interval), run_ids)


def across_cell(answers: Mechanism, by_rule: dict[str, float]) -> Cell:
    interval = over_rules(by_rule)
    if interval is None:
        return NOT_ASKED
    run_ids = [course.run.run_id for rule in by_rule for course in answers.rules[rule]]
    return Cell(f"{number(interval)} ({len(by_rule)} rules)", interval_values(interval), run_ids)


def budget_cell(answers: Mechanism, name: str) -> Cell:
    interval = answers.budget[name]
    if interval is None:
        return NOT_ASKED
    run_ids = [course.run.run_id for preset in (WITH, WITHOUT) for course in answers.courses[preset]]
    return Cell(plus_minus(interval) if name in GAINS else number(interval), interval_values(interval), run_ids)


def number(interval: Interval) -> str:
    """A coefficient as a table shows it, such as: −0.20 ± 0.25."""
    return minus(f"{interval.estimate:+.2f}") + (f" ± {interval.half_width:.2f}" if interval.df else "")
