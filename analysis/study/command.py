"""Makes every published table and figure of the study from its packs: the same packs give the same bytes.

python -m analysis --study docs/study --out results/study
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from analysis.load import load
from analysis.options import add_formats, folder, new_folder
from analysis.output import Output
from analysis.packs import PACKS, packed_rows, unpack
from analysis.progress import progress
from analysis.publish import publish
from analysis.results import Results, analyse
from analysis.runs import InputError, Run, differing, listing
from analysis.study.cells import families, study_cells
from analysis.study.drift import ANSWERS, drift_families, table_drift, table_drift_pairs, table_mechanism
from analysis.study.drift_figures import fig_drift_dots, fig_mechanism
from analysis.study.drift_verdict import drift_texts
from analysis.study.figures import fig_stress, fig_study_curves, fig_study_dots
from analysis.study.fresh import table_fresh, table_fresh_pairs
from analysis.study.mechanism import mechanism
from analysis.study.protocol import ABLATIONS, DRIFT, EXPERIMENTS, FRESH, STRESS, STUDY, TUNING, incomplete
from analysis.study.stress import stress_map, table_stress, unmatched
from analysis.study.tables import table_study, table_study_collapse, table_study_pairs, table_tuned
from analysis.study.tuning import table_tuning, tuning_rows
from analysis.study.verdict import study_verdict


def main(argv: list[str]) -> None:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as runs_dir:
        experiments = unpacked(options.packs, Path(runs_dir))
        for name, results in experiments.items():
            output = Output(options.out / name, options.formats)
            publish(results, output)
            print(output.summary(), end="")
    output = Output(options.out, options.formats)
    print(study(experiments, output), output.summary(), sep="\n", end="")


def unpacked(packs: Path, runs_dir: Path) -> dict[str, Results]:
    """The packs' results by experiment. Of the tables only `shadow` is written to `runs_dir`: metrics and evaluations, which
    are long, are read straight from the packs."""
    made = dict(progress(unpack(packs, runs_dir, tables=("shadow",)), "unpacking runs"))
    rows = partial(packed_rows, made)
    try:
        return {path.name: analyse(load([path], rows=rows)) for path in sorted(runs_dir.iterdir())}
    except InputError as error:
        raise InputError(naming_packs(str(error), made)) from error


def naming_packs(text: str, packs: dict[Path, Path]) -> str:
    """The text with the packs in place of the folders that were made of them, which nobody can look into any more."""
    for made, pack in packs.items():
        text = text.replace(str(made), str(pack))
    return text


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analysis --study", description=__doc__.splitlines()[0])
    parser.add_argument("packs", nargs="?", type=folder, default=PACKS, metavar="PACKS", help=f"(default: {PACKS})")
    parser.add_argument("--out", type=new_folder, required=True, help="where to write; each experiment gets a folder there")
    add_formats(parser)
    return parser.parse_args(argv)


def study(experiments: dict[str, Results], output: Output) -> str:
    """Write the study's own tables, figures and verdict. Returns the verdict."""
    rows, cells = tuning_rows(experiments.get(TUNING)), study_cells(experiments.get(STUDY))
    compared = families(cells, {row.rule: row.chosen_settings for row in rows})
    fresh, warning = study_cells(experiments.get(FRESH)), mixed(experiments)
    tables = [
        table_tuning(rows), table_study(compared), table_study_pairs(compared), table_study_collapse(compared),
        table_tuned(compared), table_fresh(compared, fresh), table_fresh_pairs(compared, fresh),
    ]  # fmt: skip
    for table in tables:
        output.table(replace(table, warning=warning))
    output.figure("fig_study_dots", fig_study_dots(compared), warning)
    output.figure("fig_study_curves", fig_study_curves(experiments.get(STUDY), compared), warning)
    stress, mixed_stress = stress_map(experiments.get(STRESS)), unmatched(experiments.get(STRESS))
    output.table(replace(table_stress(stress), warning=mixed_stress))
    output.figure("fig_stress", fig_stress(stress), mixed_stress)
    drift = study_drift(experiments, output)
    gaps = [incomplete(name, experiments[name].sweep.runs) for name in EXPERIMENTS if name in experiments]
    text = study_verdict(compared, rows, fresh, stress, drift, " ".join(filter(None, (warning, mixed_stress, *gaps))))
    output.page("study_verdict.md", text)
    output.index(warning)
    return text


def study_drift(experiments: dict[str, Results], output: Output) -> list[str]:
    """Write the drift testbed's tables and figures. Returns its part of the verdict."""
    cells = study_cells(experiments.get(DRIFT))
    compared = drift_families(cells)
    answers = {name: mechanism(experiments.get(experiment)) for name, experiment in ANSWERS.items()}
    testbed = answers["drift testbed"]
    for table in (table_drift(cells, testbed), table_drift_pairs(compared), table_mechanism(answers)):
        output.table(table)
    output.figure("fig_drift_dots", fig_drift_dots(compared), "")
    output.figure("fig_mechanism", fig_mechanism(testbed), "")
    return drift_texts(compared, answers)


def mixed(experiments: dict[str, Results]) -> str:
    """A warning that lists the settings in which study, ablations and fresh seeds differ; empty if all share one fingerprint."""
    runs: list[Run] = [run for name in (STUDY, ABLATIONS, FRESH) if name in experiments for run in experiments[name].sweep.runs]
    if len({run.fingerprint for run in runs}) < 2:
        return ""
    return f"MIXED SETTINGS between {STUDY}, {ABLATIONS} and {FRESH}: {listing(differing([run.shared_settings for run in runs]))}"
