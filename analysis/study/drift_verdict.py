"""Verdict on the drift testbed, in words: which rules and ablations differ there, and whether prefix drift predicts failure."""

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
    known = {name: testbed for name, testbed in answers.items() if testbed.rules}
    texts = (mechanism_text(name, testbed) for name, testbed in known.items())
    return [*parts, "## Does prefix drift predict failure?", *texts]


def ablation_text(variants: Family, metric: str) -> str:
    pairs = ablation_pairs(variants, metric)
    text = METRICS[metric][0].capitalize()
    if not pairs:
        return f"{text}: no ablation to compare CPPO with."
    apart = join([label(pair.one) for pair in pairs if pair.told_apart]) or "none"
    each = [f"{label(pair.one)} {plus_minus(variants.cells[pair.one].mean(metric))} ({difference(pair)})" for pair in pairs]
    return (
        f"{text}: CPPO {plus_minus(variants.cells[pairs[0].other].mean(metric))}; told apart from it: {apart}. {join(each)}; "
        "in brackets the difference and the interval that holds for all of them together."
    )


def difference(pair: Pair) -> str:
    return gap_text(pair, pair.gap.estimate, pair.low, pair.high)


def mechanism_text(name: str, answers: Mechanism) -> str:
    words = {None: "not asked", True: "yes", False: "no"}
    supports = [f"{question}: {words[holds]}" for question, holds in answers.supports.items()]
    measured = {
        "within runs beyond others": answers.within(),
        "the same with what they share": answers.within_with_shared,
        f"across seeds of a rule ({len(answers.across_by_rule)} rules)": answers.across,
        "suffix": answers.suffix,
        "spread behind drifted prefixes over calm ones": answers.ratio,
    }
    texts = [f"{text} {number(interval)}" for text, interval in measured.items() if interval]
    texts += [f"{key} with the budget less without {budget_cell(answers, key).text}" for key in BUDGET if answers.budget[key]]
    return f"**On the {name}: {answers.verdict}** ({', '.join(supports)}). Measured: {'; '.join(texts) or 'nothing'}."
