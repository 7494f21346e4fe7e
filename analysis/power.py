"""Report how many seeds a difference needs and what a sweep can show, by the spread of given runs or by a default.

python -m analysis power runs
python -m analysis power --differences 1,2,5
"""

from __future__ import annotations

import argparse

from analysis.compare import pooled_spread, uncollapsed_methods
from analysis.load import load
from analysis.options import folder
from analysis.pairs import Spread, detectable_difference, num_seeds_needed, power_of_pair
from analysis.results import Results, analyse
from analysis.scores import PRIMARY_RULE, SELECTION_RULES

DEFAULT = Spread(0.018)
DEFAULT_TEXT = (
    "90 problems × 16 samples, sd of one run 1.8 points (0.9 of decoding noise and 1.6 of seeds, at which a z-test of three "
    "seeds finds 2 points one time in four), seeds uncorrelated between methods"
)
SEEDS = (2, 3, 5, 8, 10, 20)


def main(argv: list[str]) -> None:
    options = parse(argv)
    if not options.roots:
        print(report("no runs given, defaults", DEFAULT_TEXT, DEFAULT, options.differences, None))
        return
    results = analyse(load(options.roots, allow_mixed=options.allow_mixed), options.select)
    if results.warning:
        print(results.warning + "\n")
    for group in results.groups:
        print(group_report(results, group, options.differences))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis power", description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="*", type=folder, metavar="RUNS", help="run folders whose spread to use (default: none)")
    parser.add_argument("--differences", type=numbers, default="1,2,5,10", help="true differences in points (default: 1,2,5,10)")
    parser.add_argument("--select", choices=list(SELECTION_RULES), default=PRIMARY_RULE, help="score of a run")
    parser.add_argument("--allow-mixed", action="store_true", help="use runs whose shared settings differ")
    return parser.parse_args(argv)


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def group_report(results: Results, group, differences: list[float]) -> str:
    comparison = results.comparison(group)
    spread = pooled_spread(comparison)
    if spread is None:
        return f"{group.group.label}: needs two finished runs of one method that did not collapse\n"
    problems = f", sd that the problems add to a difference {100 * spread.problems**0.5:.2f}" if spread.problems else ""
    source = (
        f"{SELECTION_RULES[results.rule].label}; sd of one run {100 * spread.sd:.2f} points, correlation between methods at one "
        f"seed {spread.correlation:.2f}{problems}, pooled over {', '.join(uncollapsed_methods(comparison))}"
    )
    present = min(len(group.methods[name].runs) for name in comparison.means)
    return report(group.group.label, source, spread, differences, present)


def report(title: str, source: str, spread: Spread, differences: list[float], present: int | None) -> str:
    """Markdown: for each true difference its power at several numbers of seeds and the seeds that 80 % needs; then the
    difference that the `present` seeds can show. `differences` in points."""
    lines = [f"## {title}", "", source, ""]
    lines += ["| true difference | seeds for 80 % | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |"]
    lines += ["|---" * (2 + len(SEEDS)) + "|"]
    for points in differences:
        needed = num_seeds_needed(points / 100, spread) or "more than 10,000"
        powers = [f"{100 * power_of_pair(points / 100, spread, n):.0f} %" for n in SEEDS]
        lines.append(f"| {points:g} point{'' if points == 1 else 's'} | {needed} | " + " | ".join(powers) + " |")
    lines += ["", "Chance that one comparison at 5 % tells two methods apart."]
    if present and present > 1:
        shown = 100 * detectable_difference(present, spread)
        lines.append(f"The present {present} seeds for each method find {shown:.1f} points four times in five.")
        lines.append("Spread and correlation are themselves estimated from these runs: with few seeds, only roughly.")
    return "\n".join(lines) + "\n"
