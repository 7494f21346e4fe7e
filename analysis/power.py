"""How many seeds does a difference need, and what can a sweep show? From runs, or from the defaults without any.

python -m analysis power runs
python -m analysis power --differences 1,2,5
"""

from __future__ import annotations

import argparse
import math

from analysis.compare import pooled_sd
from analysis.load import load
from analysis.options import folder
from analysis.results import Results, analyse
from analysis.scores import PRIMARY_RULE, SELECTION_RULES
from analysis.stats import detectable_difference, num_seeds_needed, power_of_test

DEFAULT_SD = 0.018
DEFAULT_TEXT = (
    "90 problems × 16 samples, sd of one run 1.8 points: 0.9 of decoding noise and 1.6 of seeds, "
    "the values at which three seeds find 2 points about one time in four by a z-test"
)
SEEDS = (2, 3, 5, 8, 10, 20)


def main(argv: list[str]) -> None:
    options = parse(argv)
    differences = [float(text) for text in options.differences.split(",")]
    if not options.roots:
        print(report("no runs given, defaults", DEFAULT_TEXT, DEFAULT_SD, differences, None))
        return
    results = analyse(load(options.roots, allow_mixed=options.allow_mixed), options.select)
    if results.warning:
        print(results.warning + "\n")
    for group in results.groups:
        print(group_report(results, group, differences))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis power", description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="*", type=folder, metavar="RUNS", help="run folders whose spread to use (default: none)")
    parser.add_argument("--differences", default="1,2,5,10", help="true differences in points (default: 1,2,5,10)")
    parser.add_argument("--select", choices=list(SELECTION_RULES), default=PRIMARY_RULE, help="score of a run")
    parser.add_argument("--allow-mixed", action="store_true", help="use runs whose shared settings differ")
    return parser.parse_args(argv)


def group_report(results: Results, group, differences: list[float]) -> str:
    comparison = results.comparison(group)
    calm = [name for name in comparison.means if not group.methods[name].collapsed]
    sd = pooled_sd(comparison, calm)
    if math.isnan(sd):
        return f"{group.group.label}: needs two finished runs of one method that did not collapse\n"
    source = f"{SELECTION_RULES[results.rule].label}; sd of one run {100 * sd:.2f} points, pooled over {', '.join(calm)}"
    return report(group.group.label, source, sd, differences, min(len(group.methods[name].runs) for name in comparison.means))


def report(title: str, source: str, sd: float, differences: list[float], present: int | None) -> str:
    """Markdown: power for numbers of seeds, the number that 80 % needs, and what the present number can show."""
    lines = [f"## {title}", "", source, ""]
    lines += ["| true difference | seeds for 80 % | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |"]
    lines += ["|---" * (2 + len(SEEDS)) + "|"]
    for points in differences:
        needed = num_seeds_needed(points / 100, sd) or "more than 10,000"
        powers = [f"{100 * power_of_test(points / 100, sd, n):.0f} %" for n in SEEDS]
        lines.append(f"| {points:g} points | {needed} | " + " | ".join(powers) + " |")
    lines += ["", "Chance that one two-sided 5 % comparison tells two methods apart; seeds uncorrelated between methods."]
    if present and present > 1:
        shown = 100 * detectable_difference(present, sd)
        lines.append(f"The present {present} seeds for each method find {shown:.1f} points four times in five.")
    return "\n".join(lines) + "\n"
