"""Writes study_verdict.md: the study's answer in words, made from the same numbers as its tables."""

from __future__ import annotations

from analysis.stats import ALPHA
from analysis.study.cells import Family, StudyCell, share_text
from analysis.study.contrasts import Pair, collapse_pairs, pairs, same_runs, tuned_gaps
from analysis.study.fresh import NO_FRESH, hits, predictions, signs
from analysis.study.protocol import COMMAND, METRICS, TUNING
from analysis.study.stress import StressMap
from analysis.study.stress_verdict import stress_texts
from analysis.study.tables import NO_RUNS
from analysis.study.tuning import Row
from analysis.style import label
from analysis.tables.cells import plus_minus, signed
from analysis.tables.table import red
from analysis.verdict import count, join

FIRST = next(iter(METRICS))  # the metric that is looked at first


def study_verdict(
    families: list[Family], rows: list[Row], fresh: dict[str, StudyCell], stress: StressMap, drift: list[str], warning: str
) -> str:
    published, tuned = families
    parts = ["# The study's verdict", *([red(warning)] if warning else [])]
    if not published.cells and not tuned.cells:
        parts += [NO_RUNS]
    else:
        parts += [answer(published, families, fresh)]
        parts += [part for family in families for metric in METRICS for part in told_apart(family, metric)]
        parts += ["## Collapses", *(collapses(family) for family in families if family.cells)]
        parts += ["## Tuned against published", *(tuned_text(published, tuned, metric) for metric in METRICS)]
        parts += ["## Fresh seeds", fresh_text(families, fresh)]
    parts += ["## Tuning", tuning_text(rows), "## Stress map", *stress_texts(stress)]
    parts += ["# The testbed where prefixes drift", *drift]
    return "\n\n".join(parts) + "\n"


def answer(published: Family, families: list[Family], fresh: dict[str, StudyCell]) -> str:
    """Does the harness tell rules apart? Decided as the protocol's section “What would count as what” says."""
    apart = [sign for sign in signs(families, fresh) if sign.pair.family is published and sign.pair.metric == FIRST]
    text = METRICS[FIRST][0]
    if not apart:
        return f"**The harness does not tell rules apart**: no pair of published cells differs in {text}."
    known = [sign for sign in apart if sign.fresh is not None]
    differ = f"{count(len(apart), 'pair')} of published cells {'differs' if len(apart) == 1 else 'differ'} in {text}"
    if not known:
        return f"**Not decided yet**: {differ}; the fresh seeds are missing."
    kept = sum(sign.kept for sign in known)
    signs_kept = f"{kept} of {len(known)} keep their sign on fresh seeds"
    if kept == len(known):
        return f"**The harness tells rules apart**: {differ}, and {signs_kept}."
    verdict = "The fresh seeds contradict in part" if kept else "The harness does not tell rules apart"
    return f"**{verdict}**: {differ}, but {signs_kept}."


def told_apart(family: Family, metric: str) -> list[str]:
    """Paragraphs: a heading, how many pairs are told apart, and a list of the cells from the highest mean to the lowest. Each
    cell is compared with those below it: which it is higher than, and which it cannot be told apart from."""
    if not family.cells:
        return [f"## {family.name.capitalize()} settings, {METRICS[metric][0]}", "No finished runs."]
    compared = pairs(family, metric)
    apart = sum(pair.told_apart for pair in compared)
    head = f"{len(family.cells)} cells, {count(len(compared), 'pair')}: {apart} told apart, {len(compared) - apart} not."
    absent = f" Missing: {'; '.join(family.absent)}." if family.absent else ""
    bracket = (
        " In brackets: the difference in points with the interval that holds at 95 % for all pairs together, and how many seeds "
        "a true difference of that size would need."
    )
    order = family.by_mean(metric)
    lines = [f"- {line(family, metric, rule, order[i + 1 :], compared)}" for i, rule in enumerate(order)]
    return [f"## {family.name.capitalize()} settings, {METRICS[metric][0]}", head + absent + bracket, "\n".join(lines)]


def line(family: Family, metric: str, rule: str, below: list[str], pairs: list[Pair]) -> str:
    """The list entry of one cell: its mean, and its differences to the cells `below` it, so that each pair stands once."""
    mean = f"**{label(rule)}** {plus_minus(family.cells[rule].mean(metric))}"
    by_other = {other: pair for pair in pairs for other in below if {pair.one, pair.other} == {rule, other}}
    higher = [gap(pair, other) for other, pair in by_other.items() if pair.told_apart]
    open_ = [gap(pair, other) for other, pair in by_other.items() if not pair.told_apart]
    parts = [f"higher than {join(higher)}"] if higher else []
    parts += [f"cannot be told apart from {join(open_)}"] if open_ else []
    return mean + (f": {'; '.join(parts)}." if parts else ".")


def gap(pair: Pair, other: str) -> str:
    """The difference to a lower cell, such as: GRPO (+0.6, from −1.9 to +3.1; 80 seeds)."""
    low, high = (pair.low, pair.high) if pair.one != other else (-pair.high, -pair.low)
    return f"{label(other)} ({gap_text(pair, abs(pair.gap.estimate), low, high)})"


def gap_text(pair: Pair, estimate: float, low: float, high: float) -> str:
    if not pair.gap.df:
        return f"{signed(estimate)}, no interval"
    needed = None if pair.told_apart else pair.seeds_needed
    return f"{signed(estimate)}, from {signed(low)} to {signed(high)}" + (f"; {needed:,} seeds" if needed else "")


def collapses(family: Family) -> str:
    counts = {rule: (cell.num_collapsed, len(cell)) for rule, cell in family.cells.items()}
    collapsed = [f"{label(rule)} {share_text(*count_of)}" for rule, count_of in counts.items() if count_of[0]]
    compared = collapse_pairs(family)
    shares = f"{join(collapsed)}; none of the others." if collapsed else "no run collapsed."
    apart = [f"{label(c.one)} and {label(c.other)} (p = {c.p_holm:.2g})" for c in compared if c.p_holm < ALPHA]
    if not apart and compared:
        p, p_holm = min(c.p for c in compared), min(c.p_holm for c in compared)
        return f"{family.name.capitalize()}: {shares} No two shares can be told apart (smallest p: {p:.2g}, Holm's {p_holm:.2g})."
    return f"{family.name.capitalize()}: {shares}" + (f" Shares differ between {join(apart)}." if apart else "")


def tuned_text(published: Family, tuned: Family, metric: str) -> str:
    """Tuned minus published for each rule whose settings tuning changed, then the rules whose settings it kept."""
    gaps = tuned_gaps(published, tuned, metric)
    texts = [
        f"{label(rule)} {signed(gap.estimate)} (from {signed(gap.low)} to {signed(gap.high)}, p = {change.p_holm:.2g})"
        for rule, change in gaps.items()
        if (gap := change.gap)
    ]
    same = [label(rule) for rule in tuned.cells if rule in published.cells and same_runs(published, tuned, rule)]
    kept = f" The same setting in both: {join(same)}." if same else ""
    return f"{METRICS[metric][0].capitalize()}, paired by seed: {join(texts) if texts else 'no rule to compare'}.{kept}"


def fresh_text(families: list[Family], fresh: dict[str, StudyCell]) -> str:
    if not fresh:
        return NO_FRESH
    made = predictions(families, fresh)
    each = [f"{METRICS[metric][0]} {hits(list(by_preset.values())).text}" for metric, by_preset in made.items()]
    both = hits([prediction for by_preset in made.values() for prediction in by_preset.values()])
    known = [sign for sign in signs(families, fresh) if sign.fresh is not None]
    kept = sum(sign.kept for sign in known)
    return (
        f"Means of fresh seeds inside the study's 95 % prediction intervals: {both.text} ({'; '.join(each)}; two-sided, exact "
        f"binomial). Of {count(len(known), 'pair')} told apart in the study, {kept} keep their sign."
    )


def tuning_text(rows: list[Row]) -> str:
    if not any(row.cells for row in rows):
        return f"missing: no tuning runs. Made by: {COMMAND.format(TUNING)}"
    kept = [label(row.rule) for row in rows if row.winner == row.presets[0]]
    moved = [f"{label(row.rule)} ({row.winner})" for row in rows if row.winner not in (None, row.presets[0])]
    open_ = [label(row.rule) for row in rows if row.winner is None]
    parts = [f"Tuning left the published setting of {join(kept)}."] if kept else []
    parts += [f"It chose another setting for {join(moved)}."] if moved else []
    parts += [f"Not complete: {join(open_)}."] if open_ else []
    return " ".join(parts)
