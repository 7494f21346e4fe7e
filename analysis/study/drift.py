"""The testbed where prefixes drift: its cells, its pairs, and the answers on what drift predicts (docs/study.md)."""

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
    """The seven rules, and CPPO with its ablations."""
    rules = {name: cell for name, cell in cells.items() if name in RULES}
    variants = {name: cell for name, cell in cells.items() if cell.rule == WITH}
    return [Family("drift testbed", rules), Family("ablations on it", variants)]


def ablation_pairs(family: Family, metric: str) -> list[Pair]:
    """Each variant less CPPO; intervals that hold for all of them together."""
    reference, others = family.cells.get(WITH), [name for name in family.cells if name != WITH]
    if reference is None:
        return []
    value = {name: family.cells[name].values[metric] for name in family.cells}
    return [Pair(family, metric, name, WITH, of_samples(value[name], value[WITH]), len(others)) for name in others]


def drift_pairs(families: list[Family]) -> list[Pair]:
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
    shares = [mean_cell(over(courses, lambda one, key=key: one.settled(key))) for key in ("masked", "masked_budget")]
    means = [mean_cell(cell.mean(metric)) for metric in METRICS]
    drift = over(courses, lambda one: one.settled("drift"))
    drifted = Cell(f"{drift.estimate:.2f} ± {drift.half_width:.2f}", interval_values(drift)) if drift else NONE
    return behind([Cell(str(len(cell)), {"value": len(cell)}), *means, collapse_cell(cell), *shares, drifted], cell.run_ids)


def over(courses: list[Course], value: Callable[[Course], float]) -> Interval | None:
    """Mean of the runs that have the value."""
    values = np.array([of for one in courses if np.isfinite(of := value(one))])
    return of_samples(values) if len(values) else None


def table_drift_pairs(families: list[Family]) -> Table:
    lines = [(pair_label(pair), pair_cells(pair)) for pair in drift_pairs(families)]
    columns = ["difference", "95 % alone", "95 % all pairs together", "verdict", "seeds needed"]
    notes = [f"{METRIC_NOTE} Welch's intervals over seeds; together: by Bonferroni, over pairs of rules, or over ablations."]
    return Table("table_drift_pairs", "Pairs on the drift testbed", columns, lines, notes if lines else [NO_DRIFT], corner="pair")


def table_mechanism(answers: dict[str, Mechanism]) -> Table:
    """Questions down, testbeds across."""
    questions = {
        "within runs: S_T and quality after it, beyond other seeds": lambda one: coefficient(one, one.within()),
        **{f"within runs of {label(rule)}": lambda one, rule=rule: coefficient(one, one.within(rule)) for rule in RULES},
        "within runs, the shared course not taken off": lambda one: coefficient(one, one.within_with_shared),
        "across seeds of a rule: early S_T and later gain": lambda one: across_cell(one, one.across_by_rule),
        "across seeds of a rule, the middle score not partialled out": lambda one: across_cell(one, one.across_plain_by_rule),
        "suffix: first half's divergence and |z| of the second": lambda one: coefficient(one, one.suffix),
        "suffix: spread of z behind drifted over calm prefixes": lambda one: coefficient(one, one.ratio),
        **{f"budget, with less without: {name}": lambda one, name=name: budget_cell(one, name) for name in BUDGET},
        "the protocol's verdict": lambda one: Cell(one.verdict),
    }
    known = {name: one for name, one in answers.items() if one.rules}
    lines = [(text, [ask(one) for one in known.values()]) for text, ask in questions.items()] if known else []
    notes = [
        "Rank correlations. 95 %: Student's t over seeds (each the mean of its rules); across seeds of a rule, over rules. "
        "Within runs: step and quality so far partialled out, and the same coefficient with the drift of the rule's other seeds "
        "taken off. Budget: CPPO less CPPO without prefix budget, paired by seed; late reward and held-out in points."
    ]
    title = "Does prefix drift predict failure?"
    return Table("table_mechanism", title, list(known), lines, notes if known else [NO_DRIFT], "question")


def coefficient(answers: Mechanism, found: Interval | None) -> Cell:
    run_ids = [one.run.run_id for runs in answers.rules.values() for one in runs]
    return NOT_ASKED if found is None else Cell(number(found), interval_values(found), run_ids)


def across_cell(answers: Mechanism, by_rule: dict[str, float]) -> Cell:
    found = over_rules(by_rule)
    if found is None:
        return NOT_ASKED
    run_ids = [one.run.run_id for rule in by_rule for one in answers.rules[rule]]
    return Cell(f"{number(found)} ({len(by_rule)} rules)", interval_values(found), run_ids)


def budget_cell(answers: Mechanism, name: str) -> Cell:
    found = answers.budget[name]
    if found is None:
        return NOT_ASKED
    run_ids = [one.run.run_id for preset in (WITH, WITHOUT) for one in answers.courses[preset]]
    return Cell(plus_minus(found) if name in GAINS else number(found), interval_values(found), run_ids)


def number(found: Interval) -> str:
    return minus(f"{found.estimate:+.2f}") + (f" ± {found.half_width:.2f}" if found.df else "")
