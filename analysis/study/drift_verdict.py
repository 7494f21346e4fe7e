"""The drift testbed in words: which rules and ablations differ there, and what prefix drift predicts."""

from __future__ import annotations

import numpy as np

from analysis.study.cells import Family
from analysis.study.drift import NO_DRIFT, ablation_pairs, budget_cell, number
from analysis.study.mechanism import BUDGET, Estimate, Mechanism
from analysis.study.protocol import METRICS
from analysis.study.verdict import collapses, gap, told_apart
from analysis.style import label
from analysis.tables.cells import plus_minus, span
from analysis.verdict import join


def drift_texts(families: list[Family], answers: dict[str, Mechanism]) -> list[str]:
    rules, variants = families
    if not rules.cells and not variants.cells:
        return [NO_DRIFT]
    parts = [part for metric in METRICS for part in told_apart(rules, metric)] if rules.cells else []
    parts += [collapses(rules)] if rules.cells else []
    parts += ["## Ablations on the drift testbed", *(ablation_text(variants, metric) for metric in METRICS)]
    known = {name: one for name, one in answers.items() if one.rules}
    return [*parts, "## Does prefix drift predict failure?", *(mechanism_text(name, one) for name, one in known.items())]


def ablation_text(variants: Family, metric: str) -> str:
    found = ablation_pairs(variants, metric)
    text = METRICS[metric][0].capitalize()
    if not found:
        return f"{text}: no runs of CPPO to compare with."
    apart = [pair for pair in found if pair.told_apart]
    each = [f"{label(pair.one)} {plus_minus(variants.cells[pair.one].mean(metric))} ({difference(pair)})" for pair in found]
    told = join([label(pair.one) for pair in apart]) or "none"
    return (
        f"{text}: CPPO {plus_minus(variants.cells[found[0].other].mean(metric))}; told apart from it: {told}. {join(each)}; "
        "in brackets the difference and the interval that holds for all of them together."
    )


def difference(pair) -> str:
    """A gap without the other's name, with its sign."""
    text = gap(pair, pair.other).removeprefix(f"{label(pair.other)} (").removesuffix(")")
    return text if pair.gap.estimate >= 0 else text.replace("+", "−", 1)


def mechanism_text(name: str, answers: Mechanism) -> str:
    supports = [f"{question}: {'yes' if holds else 'no'}" for question, holds in answers.supports.items()]
    budget = [f"{of} {budget_cell(answers, of).text}" for of in BUDGET]
    return (
        f"**On the {name}: {answers.verdict}** ({', '.join(supports)}). Within runs {estimate(answers.within)}; across runs, "
        f"inside rules, {estimate(answers.across)}; over all at once {estimate(answers.confounded)}. Suffix: "
        f"{estimate(answers.suffix)}, spread behind drifted prefixes over calm ones {estimate(answers.ratio)}. With the budget "
        f"less without: {join(budget)}."
    )


def estimate(found: Estimate) -> str:
    if np.isnan(found.value):
        return "not known"
    return f"{number(found.value)} (from {span(found.low, found.high, number)}, {len(found.run_ids)} runs)"
