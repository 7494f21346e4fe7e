"""The drift testbed in words: which rules and ablations differ there, and what prefix drift predicts."""

from __future__ import annotations

from analysis.study.cells import Family
from analysis.study.contrasts import Pair
from analysis.study.drift import NO_DRIFT, ablation_pairs, budget_cell, number
from analysis.study.mechanism import BUDGET, Mechanism
from analysis.study.protocol import METRICS
from analysis.study.verdict import collapses, gap_text, told_apart
from analysis.style import label
from analysis.tables.cells import plus_minus
from analysis.verdict import join


def drift_texts(families: list[Family], answers: dict[str, Mechanism]) -> list[str]:
    rules, variants = families
    parts = [part for metric in METRICS for part in told_apart(rules, metric)] + [collapses(rules)] if rules.cells else [NO_DRIFT]
    if variants.cells:
        parts += ["## Ablations on the drift testbed", *(ablation_text(variants, metric) for metric in METRICS)]
    known = {name: one for name, one in answers.items() if one.rules}
    return [*parts, "## Does prefix drift predict failure?", *(mechanism_text(name, one) for name, one in known.items())]


def ablation_text(variants: Family, metric: str) -> str:
    found = ablation_pairs(variants, metric)
    text = METRICS[metric][0].capitalize()
    if not found:
        return f"{text}: no ablation to compare CPPO with."
    apart = join([label(pair.one) for pair in found if pair.told_apart]) or "none"
    each = [f"{label(pair.one)} {plus_minus(variants.cells[pair.one].mean(metric))} ({difference(pair)})" for pair in found]
    return (
        f"{text}: CPPO {plus_minus(variants.cells[found[0].other].mean(metric))}; told apart from it: {apart}. {join(each)}; "
        "in brackets the difference and the interval that holds for all of them together."
    )


def difference(pair: Pair) -> str:
    return gap_text(pair, pair.gap.estimate, pair.low, pair.high)


def mechanism_text(name: str, answers: Mechanism) -> str:
    said = {None: "not asked", True: "yes", False: "no"}
    supports = [f"{question}: {said[holds]}" for question, holds in answers.supports.items()]
    measured = {
        "within runs beyond others": answers.within(),
        "the same with what they share": answers.within_with_shared,
        f"across seeds of a rule ({len(answers.across_by_rule)} rules)": answers.across,
        "suffix": answers.suffix,
        "spread behind drifted prefixes over calm ones": answers.ratio,
    }
    texts = [f"{what} {number(found)}" for what, found in measured.items() if found]
    texts += [f"{of} with the budget less without {budget_cell(answers, of).text}" for of in BUDGET if answers.budget[of]]
    return f"**On the {name}: {answers.verdict}** ({', '.join(supports)}). Measured: {'; '.join(texts) or 'nothing'}."
