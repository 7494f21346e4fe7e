"""Makes the tables of scores, each by a pure function of the results. Scores are shown in points (percent correct)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from analysis.compare import Comparison, Contrast, compare
from analysis.results import Results
from analysis.runs import differing
from analysis.scores import SELECTION_RULES, GroupScores
from analysis.stats import (
    holm,
    interval,
    iqm,
    percentile_interval,
    prediction_half_width,
    probability_of_improvement,
)
from analysis.style import label, ordered
from analysis.tables.cells import (
    NONE,
    emphasis,
    interval_values,
    plain_cell,
    plus_minus,
    points,
    score_cell,
    signed,
    span,
)
from analysis.tables.published import published_columns
from analysis.tables.table import Cell, Table, ids
from evals.metrics import pass_at_k

DAGGER_NOTE = "Best in bold, second underlined. † cannot be told apart from the best (5 %, all pairs of the column together)."
NEW_SEEDS = 3  # the prediction interval is for the mean of this many further runs


def make(
    name: str, title: str, columns: list[str], rows: list, notes: list[str], results: Results, corner: str = "method"
) -> Table:
    return Table(name, title, columns, rows, notes, corner, results.warning)


def row_label(results: Results, group: GroupScores, method: str) -> str:
    return label(method) if len(results.groups) == 1 else f"{results.group_label(group)}: {label(method)}"


def each_method(results: Results):
    """Yields (row label, group, comparison, name) for every main method that has scores."""
    for group in results.groups:
        comparison = results.comparison(group)
        for name in comparison.means:
            yield row_label(results, group, name), group, comparison, name


def table1(results: Results) -> Table:
    """The main table: a row for each method, a column for each comparison group."""
    comparisons = [results.comparison(group) for group in results.groups]
    names = ordered({name for group in results.groups for name in results.main_methods(group)})
    rows = [(label(name), [score_cell(name, comparison) for comparison in comparisons]) for name in names]
    columns, notes = results.group_labels, main_notes(results)
    if results.paper:
        columns, rows, notes = published_columns("table1", columns, names, rows, notes)
    return make("table1", f"Score by method ({SELECTION_RULES[results.rule].label})", columns, rows, notes, results)


def main_notes(results: Results) -> list[str]:
    notes = [
        f"Points; {SELECTION_RULES[results.rule].meaning}; summary = mean over benchmarks of the mean over problems.",
        "± is the half-width of the 95 % interval over seeds on these problems (Student's t).",
        DAGGER_NOTE,
    ]
    for group in results.groups:
        notes.append(f"{group.group.label}: {group_facts(group)}.")
        if any(run.stopped_early for method in group.methods.values() for run in method.runs):
            notes.append(f"{group.group.label}: runs stopped at their collapse keep their last evaluation, which flatters them.")
    return notes


def group_facts(group: GroupScores) -> str:
    if not group.scored:
        return "no finished run with evaluations"
    sizes = np.bincount(group.benchmark_P)
    counts = ", ".join(f"{name} ({size} problems)" for name, size in zip(group.benchmarks, sizes, strict=True))
    steps = group.steps_E.tolist()
    at = f"steps {', '.join(map(str, steps))}" if len(steps) <= 8 else f"{len(steps)} steps from {steps[0]} to {steps[-1]}"
    return f"{counts}; evaluations at {at}; seeds {', '.join(map(str, group.seeds))}"


def table4(results: Results) -> Table:
    """A column for each benchmark (in the paper each AIME year), every run at the step of its best summary."""
    columns = [
        f"{column} {name}" for column, g in zip(results.group_labels, results.groups, strict=True) for name in g.benchmarks
    ]
    names = ordered({name for group in results.groups for name in results.main_methods(group)})
    by_group = [benchmark_cells(group, results.main_methods(group)) for group in results.groups]
    rows = [(label(name), [cell for cells in by_group for cell in cells(name)]) for name in names]
    notes = ["Points, mean ± 95 % interval over seeds; each run at the step of its best summary in [0, T_stop], as in the paper."]
    if results.paper:
        columns, rows, notes = published_columns("table4", columns, names, rows, notes)
    return make("table4", "Score on each benchmark at the best step", columns, rows, notes, results)


def benchmark_cells(group: GroupScores, methods: list[str]):
    """Returns a function from a method's name to its cells, one for each benchmark."""
    selected = {name: group.selected(name, "best") for name in methods if name in group.scored}
    bests = [
        sorted(selected, key=lambda name: -selected[name][:, group.benchmark_P == k].mean()) for k in range(len(group.benchmarks))
    ]

    def cells(name: str) -> list[Cell]:
        if name not in selected:
            return [Cell("missing")] * len(group.benchmarks)
        return [benchmark_cell(name, k) for k in range(len(group.benchmarks))]

    def benchmark_cell(name: str, k: int) -> Cell:
        member_P = group.benchmark_P == k
        result = interval([selected[name][:, member_P]], np.zeros(member_P.sum(), dtype=int))
        return Cell(plus_minus(result), interval_values(result), group.methods[name].run_ids, emphasis(name, bests[k]))

    return cells


def table_pass_at_k(results: Results) -> Table:
    """pass@k at the last evaluation, for k = 1, 2, 4, … up to the samples of a problem."""
    smallest = min((int(g.num_samples(name, "final").min()) for g in results.groups for name in g.scored), default=1)
    ks = [2**i for i in range(smallest.bit_length()) if smallest > 1]
    rows = []
    for text, group, _, name in each_method(results) if ks else []:
        passed = [interval([pass_rates(group, name, k)], group.benchmark_P) for k in ks]
        run_ids = group.methods[name].run_ids
        rows.append((text, [Cell(plus_minus(result), interval_values(result), run_ids) for result in passed]))
    notes = ["Points at the last evaluation, unbiased over the samples of a problem; mean ± 95 % interval over seeds."]
    if not rows:
        notes = ["missing: pass@k needs several samples a problem. Made by: python -m harness -m method=cppo,dppo,grpo eval.n=8"]
    return make("table_pass_at_k", "pass@k", [f"pass@{k}" for k in ks], rows, notes, results)


def pass_rates(group: GroupScores, name: str, k: int) -> np.ndarray:
    """pass@k of each run on each problem at the last evaluation, [S, P]."""
    samples_SP = group.num_samples(name, "final").astype(int)
    correct_SP = np.rint(group.selected(name, "final") * samples_SP).astype(int)
    rate = lru_cache(lambda n, c: pass_at_k(n, c, k))
    return np.array(
        [[rate(int(n), int(c)) for n, c in zip(*row, strict=True)] for row in zip(samples_SP, correct_SP, strict=True)]
    )


def table_selection(results: Results) -> Table:
    """A column for each selection rule; the last one is the optimism of "best": how much choosing the best step adds by luck."""
    rows = []
    for text, group, _, name in each_method(results):
        comparisons = [results.comparison(group, rule) for rule in SELECTION_RULES]
        gap = group.summary(group.selected(name, "best") - group.selected(name, "split_half"))
        optimism = Cell(signed(gap.mean()), {"mean": float(gap.mean())}, group.methods[name].run_ids)
        rows.append((text, [score_cell(name, comparison) for comparison in comparisons] + [optimism]))
    notes = [f"{rule.label}: {rule.meaning}." for rule in SELECTION_RULES.values()]
    notes.append("Optimism: best minus split-half best, in points. " + DAGGER_NOTE + " Each column is its own comparison.")
    columns = [rule.label for rule in SELECTION_RULES.values()] + ["optimism of best"]
    return make("table_selection", "Score under each selection rule", columns, rows, notes, results)


def table_statistics(results: Results) -> Table:
    """A row for each method with its mean, every kind of interval for it, and its rank."""
    rows = [(text, statistics_cells(comparison, name)) for text, _, comparison, name in each_method(results)]
    columns = ["mean", "95 % over seeds", "95 % seeds × problems", f"95 % for a new mean of {NEW_SEEDS}"]
    columns += ["IQM", "rank", "plain bootstrap"]
    notes = [
        "Over seeds: Student's t on the runs' summaries; it speaks about these problems. Seeds × problems: problems drawn from a "
        "larger set as well, two-way random effects with Satterthwaite's degrees of freedom.",
        f"New mean: where the mean of {NEW_SEEDS} further seeds on these problems will lie. IQM: mean of the middle half of all "
        "run × benchmark scores. Rank: from the pairs that can be told apart.",
        "Plain bootstrap: seeds → problems → samples, percentiles; too narrow for few seeds, for reference only.",
    ]
    return make("table_statistics", "Means, intervals and ranks", columns, rows, notes, results)


def statistics_cells(comparison: Comparison, name: str) -> list[Cell]:
    group, method = comparison.group, comparison.group.methods[name]
    mean, scores = comparison.means[name], comparison.scores_SP[name]
    crossed = interval([scores], group.benchmark_P, "crossed")
    wide = prediction_half_width(mean, len(method.runs), NEW_SEEDS)
    middle = iqm(group.by_benchmark(scores))
    low, high = percentile_interval(comparison.bootstrap_means[name])
    ranks = comparison.ranks[name]
    cells = [
        Cell(points(mean.estimate), {"value": mean.estimate}),
        span_cell(mean.low, mean.high),
        span_cell(crossed.low, crossed.high),
        span_cell(mean.estimate - wide, mean.estimate + wide),
        Cell(points(middle), {"value": middle}),
        Cell("–".join(map(str, dict.fromkeys(ranks))), {"low": ranks[0], "high": ranks[1]}),
        span_cell(low, high) if len(method.runs) > 1 else NONE,
    ]
    return [Cell(cell.text, cell.values, method.run_ids) for cell in cells]


def span_cell(low: float, high: float, write=points) -> Cell:
    return Cell(span(low, high, write), {"low": low, "high": high} if low == low else {})


def table_pairwise(results: Results) -> Table:
    """A row for every pair: the difference, whether it can be told from noise, and how often a run of one beats the other's."""
    rows = []
    for group in results.groups:
        comparison = results.comparison(group)
        prefix = "" if len(results.groups) == 1 else f"{results.group_label(group)}: "
        rows += [(f"{prefix}{label(c.one)} − {label(c.other)}", pair_cells(comparison, c)) for c in comparison.contrasts]
    columns = ["difference", "95 % interval", "95 % all pairs together", "told apart", "p alone", "p together", "p (Holm)"]
    columns += ["P(improvement)", "decided by", "plain bootstrap"]
    notes = [
        "Points. Problems are crossed with seeds and compared one by one. Each pair is decided by Welch's t and, where seeds are "
        "common, paired by seed, at 3 % each; the narrower interval counts (docs/analysis.md). Told apart: the interval that "
        "holds for all pairs together leaves out zero. Holm: step-down correction of the p-values alone.",
        "P(improvement): chance that a run of the first beats a run of the second on a benchmark. "
        "Plain bootstrap: too narrow for few seeds, for reference only.",
    ]
    return make("table_pairwise", "Differences between methods", columns, rows, notes, results, corner="pair")


def pair_cells(comparison: Comparison, c: Contrast) -> list[Cell]:
    group = comparison.group
    one, other = comparison.scores_SP[c.one], comparison.scores_SP[c.other]
    wins = probability_of_improvement(group.by_benchmark(one), group.by_benchmark(other))
    low, high = percentile_interval(comparison.bootstrap_means[c.one] - comparison.bootstrap_means[c.other])
    cells = [
        Cell(signed(c.alone.estimate), {"mean": c.alone.estimate}),
        span_cell(c.alone.low, c.alone.high, signed),
        span_cell(c.together.low, c.together.high, signed),
        Cell("yes" if c.told_apart else "no", {"told_apart": c.told_apart}),
        *(p_cell(p) for p in (c.alone.p_value, c.together.p_value, c.p_holm)),
        Cell(f"{wins:.2f}", {"value": wins}),
        Cell(c.together.decided_by if c.together.known else "–"),
        span_cell(low, high, signed) if min(len(one), len(other)) > 1 else NONE,
    ]
    run_ids = group.methods[c.one].run_ids + group.methods[c.other].run_ids
    return [Cell(cell.text, cell.values, run_ids) for cell in cells]


def p_cell(p: float) -> Cell:
    return Cell("< 0.001" if p < 0.001 else f"{p:.2g}", {"p": p})


def table_ablations(results: Results) -> Table:
    """A row for each rule that has variants, and after it one for each variant with its difference to the rule."""
    rows = [
        row for group in results.groups for base in results.main_methods(group) for row in ablation_rows(results, group, base)
    ]
    columns = ["changed settings", SELECTION_RULES[results.rule].label, "difference", "95 % interval", "p (Holm)"]
    notes = ["Points. Difference to the rule's own preset; p is corrected over the variants of one rule (Holm)."]
    if not rows:
        notes = ["missing: no variants of a rule among these runs. " + ABLATION_COMMAND]
    return make("table_ablations", "Ablations and changed settings", columns, rows, notes, results)


ABLATION_COMMAND = (
    "Make them with: python -m harness -m method=cppo,cppo_no_position_weight,cppo_no_prefix_budget,cppo_shuffled seed=1,2,3"
)


def ablation_rows(results: Results, group: GroupScores, base: str) -> list[tuple[str, list[Cell]]]:
    variants = results.variants(group, base)
    if not variants:
        return []
    comparison = compare(group, results.rule, [base, *variants])
    gaps = {name: comparison.contrast(name, base) for name in variants if {name, base} <= comparison.means.keys()}
    p_values = dict(zip(gaps, holm([c.alone.p_value for c in gaps.values()]), strict=True))
    rows = [(row_label(results, group, base), [NONE, plain_cell(base, comparison), NONE, NONE, NONE])]
    for name in variants:
        gap = gap_cells(comparison, gaps[name], p_values[name]) if name in gaps else [NONE] * 3
        rows.append((row_label(results, group, name), [Cell(changes(group, base, name)), plain_cell(name, comparison), *gap]))
    return rows


def changes(group: GroupScores, base: str, variant: str) -> str:
    """The settings in which a variant differs from its base, such as: w_min: 0.8 → 0.6"""
    settings = [method.settings for method in (group.methods[base], group.methods[variant])]
    return ", ".join(f"{key}: {settings[0].get(key)} → {settings[1].get(key)}" for key in differing(settings))


def gap_cells(comparison: Comparison, c: Contrast, p_holm: float) -> list[Cell]:
    """Difference, interval and p of the first method of a contrast against the second."""
    run_ids = ids(comparison.group.methods[c.one].runs + comparison.group.methods[c.other].runs)
    cells = [Cell(signed(c.alone.estimate), {"mean": c.alone.estimate}), span_cell(c.alone.low, c.alone.high, signed)]
    return [Cell(cell.text, cell.values, run_ids) for cell in [*cells, p_cell(p_holm)]]
