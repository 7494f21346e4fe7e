"""The testbed where prefixes drift: its cells, its pairs, and the answers on what drift predicts (docs/study.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.stats import Interval
from analysis.study.cells import Family, StudyCell, of_samples
from analysis.study.contrasts import Pair, pairs
from analysis.study.mechanism import RULES, WITH, Course, Estimate, Mechanism
from analysis.study.protocol import COMMAND, DRIFT, METRIC_NOTE, METRICS, STUDY
from analysis.study.tables import behind, collapse_cell, mean_cell, pair_cells, pair_label
from analysis.style import label
from analysis.tables.cells import MISSING, NONE, minus, plus_minus, span
from analysis.tables.record import Cell, Table

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
    drifted = Cell(f"{drift.estimate:.2f}", {"mean": drift.estimate}) if drift else NONE
    return behind([Cell(str(len(cell)), {"value": len(cell)}), *means, collapse_cell(cell), *shares, drifted], cell.run_ids)


def over(courses: list[Course], value: Callable[[Course], float]) -> Interval | None:
    values = np.array([value(one) for one in courses])
    return of_samples(values) if len(values) and np.isfinite(values).all() else None


def table_drift_pairs(families: list[Family]) -> Table:
    lines = [(pair_label(pair), pair_cells(pair)) for pair in drift_pairs(families)]
    columns = ["difference", "95 % alone", "95 % all pairs together", "verdict", "seeds needed"]
    notes = [f"{METRIC_NOTE} Welch's intervals over seeds; together: by Bonferroni, over pairs of rules, or over ablations."]
    return Table("table_drift_pairs", "Pairs on the drift testbed", columns, lines, notes if lines else [NO_DRIFT], corner="pair")


def table_mechanism(answers: dict[str, Mechanism]) -> Table:
    """Questions down, testbeds across."""
    questions = {
        "within runs: S and the change of reward after it": lambda one: estimate_cell(one.within),
        **{f"within runs of {label(rule)}": lambda one, rule=rule: estimate_cell(one.within_rule(rule)) for rule in RULES},
        "across runs, inside rules: early S and later gain": lambda one: estimate_cell(one.across),
        "across all runs, the rule confounding": lambda one: estimate_cell(one.confounded),
        "suffix: first half's divergence and |z| of the second": lambda one: estimate_cell(one.suffix),
        "suffix: spread of z behind drifted over calm prefixes": lambda one: estimate_cell(one.ratio),
        "budget, with less without: S_T": lambda one: budget_cell(one, "S"),
        "budget, with less without: suffix spread of kept tokens": lambda one: budget_cell(one, "suffix spread, kept tokens"),
        "budget, with less without: late reward (points)": lambda one: budget_cell(one, "late reward"),
        "the protocol's verdict": lambda one: Cell(one.verdict),
    }
    known = {name: one for name, one in answers.items() if one.rules}
    lines = [(text, [ask(one) for one in known.values()]) for text, ask in questions.items()] if known else []
    notes = [
        "Rank correlations, mean over runs or pooled; 95 % by bootstrap over runs. Within runs: step and reward so far "
        "partialled out. Budget: CPPO less CPPO without prefix budget, paired by seed, Student's t."
    ]
    title = "Does prefix drift predict failure?"
    return Table("table_mechanism", title, list(known), lines, notes if known else [NO_DRIFT], "question")


def estimate_cell(found: Estimate) -> Cell:
    if np.isnan(found.value):
        return Cell(MISSING)
    text = f"{number(found.value)} ({span(found.low, found.high, number)}), {len(found.run_ids)} runs"
    return Cell(text, {"mean": found.value, "low": found.low, "high": found.high}, found.run_ids)


def number(value: float) -> str:
    return minus(f"{value:.2f}")


def budget_cell(answers: Mechanism, name: str) -> Cell:
    gap = answers.budget.get(name)
    if gap is None or np.isnan(gap.estimate):
        return Cell(MISSING)
    write = plus_minus if name == "late reward" else lambda one: f"{minus(f'{one.estimate:+.3f}')} ± {one.half_width:.3f}"
    return Cell(write(gap), {"mean": gap.estimate, "low": gap.low, "high": gap.high})
