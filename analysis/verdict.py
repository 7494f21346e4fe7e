"""The result in words: what can be told apart, what cannot, and what it would take."""

from __future__ import annotations

import math

from analysis.compare import Comparison, pooled_sd
from analysis.results import Results
from analysis.scores import SELECTION_RULES
from analysis.stats import detectable_difference, num_seeds_needed
from analysis.style import label
from analysis.tables.cells import collapse_text, p_text, plus_minus, points, seed_counts, signed

TARGET = 0.02  # the difference whose price in seeds is named


def verdict(results: Results) -> str:
    """verdict.md: a paragraph for each comparison group."""
    warning = [f'<span style="color:red">**{results.warning}**</span>'] if results.warning else []
    return (
        "\n\n".join(["# Verdict", *warning, *(paragraph(results, results.comparison(group)) for group in results.groups)]) + "\n"
    )


def paragraph(results: Results, comparison: Comparison) -> str:
    name = f"**{comparison.group.group.label}**"
    if not comparison.means:
        return f"{name}: no finished run has been evaluated, so nothing can be said yet.{unfinished(results, comparison)}"
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
    return f"{label(best)} has the highest mean, {mean} over {count(seeds, 'seed')}."


def standing(comparison: Comparison) -> str:
    """Each other method against the one with the highest mean."""
    best, others = comparison.best, comparison.by_mean[1:]
    tied = [name for name in others if name in comparison.not_told_from_best]
    lower = [name for name in others if name not in tied]
    parts = []
    if tied:
        parts.append(f"{join(map(label, [best, *tied]))} cannot be told apart ({join(difference(comparison, n) for n in tied)}).")
    if lower:
        verb = "is" if len(lower) == 1 else "are"
        parts.append(f"{join(map(label, lower))} {verb} lower ({join(difference(comparison, n) for n in lower)}).")
    return " ".join(parts)


def difference(comparison: Comparison, name: str) -> str:
    """Such as: DPPO −0.6, 95 % from −3.1 to +1.9, p = 0.2."""
    contrast = comparison.contrast(name, comparison.best)
    interval = contrast.interval
    start = f"{label(name)} {signed(interval.estimate)}"
    if not interval.df:
        return f"{start}, no interval from one seed"
    return f"{start}, 95 % from {signed(interval.low)} to {signed(interval.high)}, {p_text(contrast.p_holm)}"


def collapses(comparison: Comparison) -> str:
    methods = comparison.group.methods
    hit = [name for name in comparison.by_mean if methods[name].collapsed]
    return join(f"{label(name)}: {collapse_text(methods[name])}" for name in hit) + "." if hit else ""


def power(comparison: Comparison) -> str:
    """What the sweep can show, judged by the spread of the methods that did not collapse."""
    methods = comparison.group.methods
    calm = [name for name in comparison.means if not methods[name].collapsed]
    sd = pooled_sd(comparison, calm)
    seeds = min((len(methods[name].runs) for name in comparison.means), default=0)
    if len(comparison.means) < 2 or seeds < 2 or math.isnan(sd):
        return "" if len(comparison.means) < 2 else "One seed says nothing about noise: run at least three."
    shown = detectable_difference(seeds, sd)
    needed = num_seeds_needed(TARGET, sd)
    price = f"about {needed}" if needed else "more than 10,000"
    return (
        f"With {count(seeds, 'seed')} a true difference of {points(shown)} points would be found four times in five; "
        f"one of {points(TARGET)} points would need {price}."
    )


def other_rules(results: Results, comparison: Comparison) -> str:
    """Does the answer hang on the selection rule?"""
    if len(comparison.means) < 2:
        return ""
    claims = {rule: told(results.comparison(comparison.group, rule)) for rule in SELECTION_RULES}
    differing = [SELECTION_RULES[rule].label for rule, claim in claims.items() if claim != claims[comparison.rule]]
    if not differing:
        return "All selection rules agree on that."
    return f"Under other selection rules ({join(differing)}) the set that can be told apart differs: see table_selection."


def told(comparison: Comparison) -> set[tuple[str, str]]:
    pairs = [c if c.interval.estimate > 0 else comparison.contrast(c.other, c.one) for c in comparison.contrasts if c.told_apart]
    return {(c.one, c.other) for c in pairs}


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
