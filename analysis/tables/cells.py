"""Writes numbers for tables and the verdict. Scores are shown in points: percent of samples that are correct."""

from __future__ import annotations

import math

from analysis.compare import Comparison
from analysis.runs import Run
from analysis.scores import GroupScores, Method
from analysis.stats import Interval
from analysis.tables.table import Cell, ids

MISSING = "missing"
NONE = Cell("–")


def points(value: float) -> str:
    """A score in [0, 1] as points: 0.123 -> 12.3"""
    return minus(f"{100 * value:.1f}")


def signed(value: float) -> str:
    return minus(f"{100 * value:+.1f}")


def minus(text: str) -> str:
    return text.replace("-", "−")


def plus_minus(interval: Interval) -> str:
    return points(interval.estimate) + (f" ± {points(interval.half_width)}" if interval.df else "")


def span(low: float, high: float, write=points) -> str:
    return "–" if math.isnan(low) else f"{write(low)} to {write(high)}"


def significant(value: float) -> str:
    """A number such as 0.0123, 41,234 or 1.2e−07: three significant digits from 0.001 to 1,000, whole numbers from there to ten
    million, else two digits with a power of ten."""
    if math.isnan(value):
        return "–"
    rounded = abs(float(f"{value:.3g}"))
    if value == 0 or 1e-3 <= rounded < 1000:
        return minus(f"{value:.3g}")
    return minus(f"{value:,.0f}" if rounded >= 1000 and abs(value) < 1e7 else f"{value:.1e}")


def seed_counts(method: Method, group: GroupScores) -> str:
    """The seeds that a method lacks, such as "2/3 seeds: 1 running"; empty if every seed of the group is scored."""
    expected = len(group.seeds)
    if len(method.runs) >= expected:
        return ""
    states = [run.state if not run.finished else "without evaluations" for run in method.others]
    states += [MISSING] * (expected - len(method.runs) - len(states))
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(method.runs)}/{expected} seeds: {counts}"


def collapse_step(run: Run) -> int:
    return run.step if run.collapse_step is None else run.collapse_step


def collapse_text(method: Method) -> str:
    """The collapsed runs and their steps, such as "collapse 2/3 @ 9–12"; empty without any."""
    steps = sorted(map(collapse_step, method.collapsed))
    if not steps:
        return ""
    at = f"{steps[0]}" if steps[0] == steps[-1] else f"{steps[0]}–{steps[-1]}"
    return f"collapse {len(steps)}/{len(method.runs)} @ {at}"


def score_cell(name: str, comparison: Comparison) -> Cell:
    """`plain_cell`, marked as best, second, or not told apart from the best (†)."""
    plain = plain_cell(name, comparison)
    if name not in comparison.means:
        return plain
    dagger = "†" if name in comparison.not_told_from_best else ""
    text = plain.text.replace(" (", f"{dagger} (", 1) if " (" in plain.text else plain.text + dagger
    return Cell(text, plain.values | standing_values(name, comparison), plain.run_ids, emphasis(name, comparison.by_mean))


def plain_cell(name: str, comparison: Comparison) -> Cell:
    """Mean ± interval, collapses and missing seeds; without scored runs the states of the method's runs."""
    method = comparison.group.methods.get(name)
    if method is None:
        return Cell(MISSING)
    if not method.runs:
        return Cell(f"{MISSING} ({seed_counts(method, comparison.group)})", run_ids=ids(method.others))
    remarks = ", ".join(filter(None, (collapse_text(method), seed_counts(method, comparison.group))))
    counts = {"num_seeds": len(method.runs), "num_collapsed": len(method.collapsed)}
    text = plus_minus(comparison.means[name]) + (f" ({remarks})" if remarks else "")
    return Cell(text, interval_values(comparison.means[name]) | counts, ids(method.runs))


def emphasis(name: str, best_first: list[str]) -> str:
    """The mark of a name in a ranking: "best", "second" or "". A method that stands alone is not marked."""
    rank = best_first.index(name)
    return ("best", "second")[rank] if rank < 2 and len(best_first) > 1 else ""


def standing_values(name: str, comparison: Comparison) -> dict:
    return {
        "is_best": name == comparison.best,
        "told_from_best": name != comparison.best and name not in comparison.not_told_from_best,
        "rank_low": comparison.ranks[name][0],
        "rank_high": comparison.ranks[name][1],
    }


def interval_values(interval: Interval) -> dict:
    """The unrounded numbers of an interval. Without a spread it is the mean alone, since JSON has no nan."""
    if not interval.df:
        return {"mean": interval.estimate}
    return {"mean": interval.estimate, "low": interval.low, "high": interval.high, "se": interval.se, "df": float(interval.df)}
