"""Compare two sweeps: which settings differ, and by how much the scores do.

python -m analysis diff runs_a runs_b
"""

from __future__ import annotations

import argparse

from analysis.load import load
from analysis.options import folder
from analysis.pairs import difference
from analysis.results import Results, analyse
from analysis.runs import differing
from analysis.scores import PRIMARY_RULE, SELECTION_RULES, GroupScores
from analysis.stats import interval
from analysis.style import label, ordered
from analysis.tables.cells import plus_minus, signed, span


def main(argv: list[str]) -> None:
    options = parse(argv)
    one, other = (analyse(load([root], allow_mixed=options.allow_mixed), options.select) for root in options.sweeps)
    print(report(one, other, [str(root) for root in options.sweeps]), end="")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis diff", description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", nargs=2, type=folder, metavar="SWEEP", help="a folder of runs")
    parser.add_argument("--select", choices=list(SELECTION_RULES), default=PRIMARY_RULE, help="score of a run")
    parser.add_argument("--allow-mixed", action="store_true", help="allow runs of one sweep whose shared settings differ")
    return parser.parse_args(argv)


def report(one: Results, other: Results, names: list[str]) -> str:
    """Markdown. Groups are matched by model and stress point; experiments may have other names."""
    lines = [f"# {names[0]} (A) and {names[1]} (B), {SELECTION_RULES[one.rule].label}", ""]
    lines += [warning for results in (one, other) if (warning := results.warning)]
    pairs = matched(one, other)
    for a, b in pairs:
        lines += [f"## {a.group.label} and {b.group.label}", "", *settings_lines(a, b), "", *score_lines(a, b, one.rule), ""]
    for results, name, known in ((one, "A", [a for a, _ in pairs]), (other, "B", [b for _, b in pairs])):
        lines += [f"Only in {name}: {group.group.label}." for group in results.groups if group not in known]
    return "\n".join(lines) + "\n"


def matched(one: Results, other: Results) -> list[tuple[GroupScores, GroupScores]]:
    """Pairs of groups, one of each sweep: equal groups if there are any, else groups with equal model and stress point where
    each sweep has only one such group."""
    same_place = lambda a, b: (a.group.model, a.group.stress) == (b.group.model, b.group.stress)
    pairs = []
    for a in one.groups:
        candidates = [b for b in other.groups if b.group == a.group] or [b for b in other.groups if same_place(a, b)]
        rivals = [c for c in one.groups if same_place(a, c)]
        if candidates and (candidates[0].group == a.group or len(rivals) == len(candidates) == 1):
            pairs.append((a, candidates[0]))
    return pairs


def runs_of(group: GroupScores, method: str | None = None):
    return [run for name, m in group.methods.items() if method in (None, name) for run in m.all_runs]


def settings_lines(a: GroupScores, b: GroupScores) -> list[str]:
    """Lines of a table: the shared settings that differ, then for each common method its own settings that differ."""
    lines = ["| setting | A | B |", "|---|---|---|"]
    shared = [run.shared_settings for group in (a, b) for run in runs_of(group)[:1]]
    lines += [f"| {key} | {shared[0].get(key)} | {shared[1].get(key)} |" for key in differing(shared)]
    for name in ordered(set(a.methods) & set(b.methods)):
        mine = [runs_of(group, name)[0].method_settings for group in (a, b)]
        lines += [f"| {label(name)}: {key} | {mine[0].get(key)} | {mine[1].get(key)} |" for key in differing(mine)]
    return lines if len(lines) > 2 else ["All settings are the same."]


def score_lines(a: GroupScores, b: GroupScores, rule: str) -> list[str]:
    lines = ["| method | A | B | B − A | 95 % interval | p |", "|---|---|---|---|---|---|"]
    for name in ordered({*a.methods, *b.methods}):
        lines.append(f"| {label(name)} | " + " | ".join(score_texts(a, b, name, rule)) + " |")
    if a.scored and b.scored and not same_problems(a, b):
        lines.append("\nThe sweeps were asked different problems: their scores are not compared.")
    return lines


def same_problems(a: GroupScores, b: GroupScores) -> bool:
    return a.benchmarks == b.benchmarks and a.problem_ids == b.problem_ids


def score_texts(a: GroupScores, b: GroupScores, name: str, rule: str) -> list[str]:
    """The cells of a method's row: A, B, B − A, its 95 % interval, p."""
    have = [name in group.scored for group in (a, b)]
    scores = [group.selected(name, rule) if there else None for group, there in zip((a, b), have, strict=True)]
    texts = [
        plus_minus(interval([s], g.benchmark_P)) if s is not None else "missing" for s, g in zip(scores, (a, b), strict=True)
    ]
    if not all(have) or not same_problems(a, b):
        return [*texts, "–", "–", "–"]
    gap = difference(scores[1], scores[0], (b.methods[name].seeds, a.methods[name].seeds), a.benchmark_P)
    return [*texts, signed(gap.estimate), span(gap.low, gap.high, signed), f"{gap.p_value:.2g}" if gap.known else "–"]
