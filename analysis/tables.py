"""The tables, each a pure function of the results. Scores are in points (percent correct)."""

from __future__ import annotations

from analysis.compare import Comparison
from analysis.results import Results
from analysis.scores import SELECTION_RULES, GroupScores, Method
from analysis.stats import Interval
from analysis.style import label, ordered
from analysis.table import Cell, Table, ids

MISSING = "missing"
DAGGER_NOTE = "Best in bold, second underlined. † cannot be told apart from the best (two-sided 5 %, Holm over all pairs)."


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def plus_minus(interval: Interval) -> str:
    return points(interval.estimate) + (f" ± {points(interval.half_width)}" if interval.df else "")


def signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{abs(100 * value):.1f}"


def seed_counts(method: Method, group: GroupScores) -> str:
    """ "" when every seed of the group is there; "2/3 seeds: 1 running" otherwise."""
    expected = len(group.seeds)
    if len(method.runs) >= expected:
        return ""
    states = [run.state if not run.finished else "without evaluations" for run in method.others]
    states += [MISSING] * (expected - len(method.runs) - len(states))
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(method.runs)}/{expected} seeds: {counts}"


def collapse_text(method: Method) -> str:
    """ "collapse 2/3 @ 9–12" or "" """
    steps = sorted(run.collapse_step if run.collapse_step is not None else run.step for run in method.collapsed)
    if not steps:
        return ""
    at = f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]}–{steps[-1]}"
    return f"collapse {len(steps)}/{len(method.runs)} @ {at}"


def score_cell(name: str, comparison: Comparison) -> Cell:
    group = comparison.group
    method = group.methods.get(name)
    if method is None:
        return Cell(MISSING)
    if not method.runs:
        return Cell(f"{MISSING} ({seed_counts(method, group)})", run_ids=ids(method.others))
    interval = comparison.means[name]
    dagger = "†" if name in comparison.not_told_from_best else ""
    remarks = ", ".join(part for part in (collapse_text(method), seed_counts(method, group)) if part)
    rank = comparison.by_mean.index(name)
    return Cell(
        plus_minus(interval) + dagger + (f" ({remarks})" if remarks else ""),
        score_values(name, comparison),
        ids(method.runs),
        ("best", "second")[rank] if rank < 2 and len(comparison.means) > 1 else "",
    )


def score_values(name: str, comparison: Comparison) -> dict:
    group, interval = comparison.group, comparison.means[name]
    method = group.methods[name]
    low, high = comparison.ranks[name]
    return {
        "mean": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "se": interval.se,
        "num_seeds": len(method.runs),
        "num_collapsed": len(method.collapsed),
        "told_from_best": name != comparison.best and name not in comparison.not_told_from_best,
        "rank_low": low,
        "rank_high": high,
    }


def table1(results: Results) -> Table:
    """Main table: method × comparison group."""
    comparisons = [results.comparison(group) for group in results.groups]
    names = ordered({name for group in results.groups for name in results.main_methods(group)})
    rows = [(label(name), [score_cell(name, comparison) for comparison in comparisons]) for name in names]
    return Table(
        "table1", f"Score by method, {rule_label(results)}", columns(results), rows, main_notes(results), warning=results.warning
    )


def columns(results: Results) -> list[str]:
    """The model alone where that tells the groups apart."""
    models = [group.group.model for group in results.groups]
    return models if len(set(models)) == len(models) else [group.group.label for group in results.groups]


def rule_label(results: Results) -> str:
    return SELECTION_RULES[results.rule].label


def main_notes(results: Results) -> list[str]:
    notes = [
        f"Points; {SELECTION_RULES[results.rule].meaning}; summary = mean over benchmarks of the mean over problems.",
        "± is the half-width of the 95 % interval over seeds on these problems (Student's t).",
        DAGGER_NOTE,
    ]
    for group in results.groups:
        if group.scored:
            counts = ", ".join(f"{name} ({int((group.benchmark_P == k).sum())})" for k, name in enumerate(group.benchmarks))
            notes.append(
                f"{group.group.label}: {counts}; evaluations at {steps_text(group)}; seeds {', '.join(map(str, group.seeds))}."
            )
        if any(run.stopped_early for method in group.methods.values() for run in method.runs):
            notes.append(f"{group.group.label}: runs stopped at their collapse keep their last evaluation, which flatters them.")
    return notes


def steps_text(group: GroupScores) -> str:
    steps = group.steps_E.tolist()
    return f"steps {', '.join(map(str, steps))}" if len(steps) <= 8 else f"{len(steps)} steps from {steps[0]} to {steps[-1]}"


TABLES = {"table1": table1}
