"""Check the rules against vector files: `python -m harness.check FILE…`.

Prints a table per file (group, passed, worst error) and every failed case with its reason; the last line reads `591 of 591`.
Exits with 1 on a miss, or on a case that can't be run.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

from harness.settings.command import exit_with
from harness.vectors import Outcome, check_case, load_cases


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.check", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="FILE", help="vector files (JSON)")
    outcomes = []
    for path in parser.parse_args(argv).files:
        file_outcomes = [check_case(case) for case in load_cases(path)]
        print(f"{path}\n{table(file_outcomes)}\n")
        outcomes += file_outcomes
    failures = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failures:
        print(f"FAILED {outcome.name}: {outcome.failure}")
    print(f"{len(outcomes) - len(failures)} of {len(outcomes)}")
    return 1 if failures or not outcomes else 0


def table(outcomes: list[Outcome]) -> str:
    """One line per group, in the file's order."""
    groups = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.group].append(outcome)
    width = max(map(len, groups), default=0)
    lines = [f"{'group':<{width}}  passed      worst error"]
    for group, members in groups.items():
        num_passed = sum(outcome.failure is None for outcome in members)
        worst = max(outcome.error for outcome in members)
        lines.append(f"{group:<{width}}  {num_passed:>4} of {len(members):<4} {worst:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    exit_with(main)
