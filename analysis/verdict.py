"""Writes the result in words: which methods can be told apart, which cannot, and how many seeds that would take."""

from __future__ import annotations

from analysis.compare import Comparison, pooled_spread
from analysis.pairs import detectable_difference, num_seeds_needed
from analysis.results import Results
from analysis.scores import SELECTION_RULES
from analysis.stats import exact
from analysis.style import label
from analysis.tables.cells import collapse_text, plus_minus, points, seed_counts, signed
from analysis.tables.table import red

TARGET = 0.02  # a difference; the verdict names the number of seeds that would find it


def verdict(results: Results) -> str:
    """The text of verdict.md: a paragraph for each comparison group."""
    warning = [red(results.warning)] if results.warning else []
    return (
        "\n\n".join(["# Verdict", *warning, *(paragraph(results, results.comparison(group)) for group in results.groups)]) + "\n"
    )


def paragraph(results: Results, comparison: Comparison) -> str:
    name = f"**{comparison.group.group.label}**"
    if not comparison.means:
        return f"{name}: no finished run has been evaluated, so nothing can be said yet.{unfinished(results, comparison)}"
    if comparison.group.steps_E.max() == 0:
        return f"{name}: the window holds no evaluation but that before any training, so nothing can be said of the rules."
    sentences = [
        opening(comparison),
        standing(comparison),
        collapses(comparison),
        power(comparison),
        other_rules(results, comparison),
    ]
    return (
        f"{name} ({SELECTION_RULES[comparison.rule].label}): "
        + " ".join(filter(None, sentences))
        + unfinished(results, comparison)
    )


def opening(comparison: Comparison) -> str:
    best = comparison.best
    seeds = len(comparison.group.methods[best].runs)
    mean = f"{plus_minus(comparison.means[best])} points"
    if len(comparison.means) == 1:
        return f"only {label(best)} has scored runs: {mean} ({count(seeds, 'seed')}); there is nothing to compare it with."
    top = comparison.means[best].estimate
    equal = [label(name) for name in comparison.by_mean[1:] if not exact(comparison.means[name].estimate - top)]
    also = f", and so {'has' if len(equal) == 1 else 'have'} {join(equal)}" if equal else ""
    return f"{label(best)} has the highest mean, {mean} over {count(seeds, 'seed')}{also}."


def standing(comparison: Comparison) -> str:
    """The methods that cannot be told apart from the one with the highest mean, then those that it is higher than."""
    best, tied = comparison.best, comparison.not_told_from_best
    lower = [name for name in comparison.by_mean[1:] if name not in tied]
    gaps = lambda names: join(f"{label(name)} ({gap(comparison, name)})" for name in names)
    parts = [f"It cannot be told apart from {gaps(tied)}."] if tied else []
    parts += [f"It is higher than {gaps(lower)}."] if lower else []
    if any(comparison.contrast(name, best).together.known for name in comparison.by_mean[1:]):
        together = " together" if len(comparison.means) > 2 else ""
        parts.append(f"In brackets: their difference to it, with intervals that hold at 95 %{together}.")
    return " ".join(parts)


def gap(comparison: Comparison, name: str) -> str:
    """The difference of a method to the best, such as: −0.6, from −3.1 to +1.9."""
    difference = comparison.contrast(name, comparison.best).together
    if not difference.known:
        return f"{signed(difference.estimate)}, no interval from one seed"
    return f"{signed(difference.estimate)}, from {signed(difference.low)} to {signed(difference.high)}"


def collapses(comparison: Comparison) -> str:
    methods = comparison.group.methods
    collapsed = [name for name in comparison.by_mean if methods[name].collapsed]
    return join(f"{label(name)}: {collapse_text(methods[name])}" for name in collapsed) + "." if collapsed else ""


def power(comparison: Comparison) -> str:
    """The difference that the sweep's seeds can find, by the spread of the methods that did not collapse."""
    if len(comparison.means) < 2:
        return ""
    seeds, spread = min(len(comparison.group.methods[name].runs) for name in comparison.means), pooled_spread(comparison)
    if seeds < 2:
        return "One seed says nothing about the noise: run at least three."
    if spread is None:
        return ""
    needed = num_seeds_needed(TARGET, spread)
    price = f"about {needed}" if needed else "more than 10,000"
    return (
        f"With {count(seeds, 'seed')} for each method and noise like this, a single comparison finds a true difference of "
        f"{points(detectable_difference(seeds, spread))} points four times in five; one of {points(TARGET)} points would need "
        f"{price} seeds."
    )


def other_rules(results: Results, comparison: Comparison) -> str:
    """Does the answer depend on the selection rule? Names the rules under which other methods lead."""
    if len(comparison.means) < 2:
        return ""
    leaders = {rule: results.comparison(comparison.group, rule).leaders for rule in SELECTION_RULES}
    others = {rule: names for rule, names in leaders.items() if set(names) != set(comparison.leaders)}
    if not others:
        return "The same methods lead under every selection rule."
    changes = [f"under “{SELECTION_RULES[rule].label}” {leading(names)}" for rule, names in others.items()]
    return f"The selection rule matters: {'; '.join(changes)}."


def leading(names: list[str]) -> str:
    return f"{label(names[0])} leads alone" if len(names) == 1 else f"{join(map(label, names))} lead together"


def unfinished(results: Results, comparison: Comparison) -> str:
    group = comparison.group
    short = [(name, seed_counts(group.methods[name], group)) for name in results.main_methods(group)]
    listed = join(f"{label(name)} has {text}" for name, text in short if text)
    return f" Not complete: {listed}." if listed else ""


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def join(parts) -> str:
    *head, last = list(parts) or [""]
    return f"{', '.join(head)} and {last}" if head else last
