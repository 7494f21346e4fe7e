"""Choose a testbed without seeing which rule wins: a row of measures for each setting tried, without rules' names and scores.

python -m analysis.study.selection PILOT/*      a folder of runs for each setting; a row has its folder's name
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

import numpy as np

from analysis.load import Sweep, load
from analysis.options import folder
from analysis.results import Results, analyse
from analysis.runs import InputError, Run
from analysis.scores import GroupScores
from analysis.study.cells import only_group
from analysis.study.protocol import SETTLED, late_rewards
from analysis.tables.table import Cell, Table, markdown

COLUMNS = ["tokens", "entropy", "mean TV", "masked by budget", "δ_b over steps", "base", "headroom", "seed noise", "s a run"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.study.selection", description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="+", type=folder, metavar="RUNS", help="run folders of the pilot, or folders of them")
    pilots = {root.name: analyse(load([root])) for root in parser.parse_args(argv).roots}
    print(markdown(table_selection(pilots)), end="")


def table_selection(pilots: dict[str, Results]) -> Table:
    rows = [(name, [Cell(text) for text in measured(results, only_group(results))]) for name, results in pilots.items()]
    notes = [
        f"Means over runs and steps; lengths, entropy, TV and budget from step {SETTLED} on. Masked by budget: "
        "dropped by rules with a prefix budget where their token bound alone would keep. Points: base model; "
        "headroom, the best evaluation of any run less the base; seed noise, of the late reward, pooled over "
        "rules.",
    ]
    return Table("table_selection", "Testbeds tried, rules hidden", COLUMNS, rows, notes, corner="setting")


def runs_of(group: GroupScores) -> list[Run]:
    return [run for method in group.methods.values() for run in method.runs]


def measured(results: Results, group: GroupScores) -> list[str]:
    """The texts of a row, in the order of COLUMNS. InputError if no rule among the runs has a prefix budget."""
    sweep, runs = results.sweep, runs_of(group)
    budgeted = [run for run in runs if run.method_settings.get("prefix_budget")]
    if not budgeted:
        raise InputError(f"{group.group.label}: no run of a rule with a prefix budget, add method=cppo to the pilot")
    rates = settled(sweep, budgeted, "trust/delta_b_eff")
    base = np.mean([scores_EK[steps == 0].mean() for steps, scores_EK in group.curves.values()])
    best = max(scores_EK.mean(1).max() for _, scores_EK in group.curves.values())
    return [
        f"{settled(sweep, runs, 'response_length/mean').mean():.0f}",
        f"{settled(sweep, runs, 'actor/entropy').mean():.3f}",
        f"{settled(sweep, runs, 'trust/div_mean').mean():.4f}",
        f"{settled(sweep, budgeted, 'trust/mask_frac_budget').mean():.1%}",
        f"{rates.min():.4f} to {rates.max():.4f}",
        f"{100 * base:.1f}",
        f"{100 * (best - base):.1f}",
        f"{100 * pooled_sd(late_rewards(results, group, method) for method in group.methods.values()):.1f}",
        f"{np.mean([total(sweep, run, 'time/step') for run in runs]):.0f}",
    ]


def settled(sweep: Sweep, runs: list[Run], key: str) -> np.ndarray:
    """Values of a metric at the steps from 8 on, of all runs one after another."""
    curves = [sweep.metric(run, key) for run in runs]
    return np.concatenate([values[steps >= SETTLED] for steps, values in curves])


def total(sweep: Sweep, run: Run, key: str) -> float:
    return float(sweep.metric(run, key)[1].sum())


def pooled_sd(samples: Iterable[np.ndarray]) -> float:
    """Square root of the mean variance of the samples that have two values or more; nan without any."""
    variances = [sample.var(ddof=1) for sample in samples if len(sample) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else float("nan")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"analysis: {error}")
