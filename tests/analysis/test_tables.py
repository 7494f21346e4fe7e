"""The made-up sweep's tables, number by number, and their written forms."""

import csv
import io
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from latex import check
from made_up import write_run

from analysis.load import load
from analysis.pairs import difference
from analysis.results import analyse
from analysis.tables import TABLES
from analysis.tables.cells import significant
from analysis.tables.runs import per_run
from analysis.tables.table import Cell, Table, as_csv, latex, latex_escape, markdown


def texts(table) -> dict[str, list[str]]:
    return {label: [cell.text for cell in cells] for label, cells in table.rows}


def cell(table, row: str, column: str) -> Cell:
    return dict(table.rows)[row][table.columns.index(column)]


def test_numbers_of_three_digits_stay_plain_where_rounding_lengthens_them():
    values = [999.4, 999.6, -999.6, 0.0009996, 0.000999, 41200, 1.2e-7, 0]
    assert [significant(value) for value in values] == ["999", "1,000", "−1,000", "0.001", "1.0e−03", "41,200", "1.2e−07", "0"]


def test_main_table_is_exactly_this(results):
    """Means of the last three evaluations: cppo .7083 .6667 .75, grpo .5208 .5417 .5, dppo .6667 .7083, cispo .0625 .0833 .0625.

    cppo: mean 70.8, sd 4.17, half-width 4.303 · 4.17/√3 = 10.4. dppo: two seeds, 12.706 · 2.946/√2 = 26.5.
    """
    table = TABLES["table1"](results)
    assert table.columns == ["chain"]
    assert texts(table) == {
        "GRPO": ["52.1 ± 5.2†"],
        "CISPO": ["6.9 ± 3.0 (collapse 3/3 @ 11–13)"],
        "DPPO": ["68.8 ± 26.5† (2/3 seeds: 1 missing)"],
        "CPPO": ["70.8 ± 10.4"],
    }
    assert [c[0].emphasis for _, c in table.rows] == ["", "", "second", "best"]
    assert cell(table, "CPPO", "chain").run_ids == sorted(cell(table, "CPPO", "chain").run_ids)
    assert len(cell(table, "DPPO", "chain").run_ids) == 2
    assert cell(table, "CISPO", "chain").values["num_collapsed"] == 3


def test_best_step_and_benchmarks(results):
    table = TABLES["table4"](results)
    assert table.columns == ["chain chain4", "chain chain6", "chain chain8"]
    assert cell(table, "CPPO", "chain chain4").text == "75.0 ± 15.5"  # 75, 68.75, 81.25: 4.303 · 6.25/√3


def test_selection_rules_side_by_side(results):
    """Area of grpo's seed 1: (.25/2 + .4375 + .5 + .5625 + .5/2)/4 = .4688; with .4766 and .4531 the mean is 46.6."""
    row = texts(TABLES["table_selection"](results))["GRPO"]
    assert [text.split(" ")[0].rstrip("†") for text in row[:4]] == ["54.2", "52.1", "52.1", "46.6"]


def test_every_pair_once_with_its_interval(results):
    table = TABLES["table_pairwise"](results)
    assert len(table.rows) == 6
    group = results.groups[0]
    seeds = [1, 2, 3], [1, 2, 3]
    reference = difference(group.selected("cispo", "last3"), group.selected("cppo", "last3"), seeds, group.benchmark_P)
    assert cell(table, "CISPO − CPPO", "difference").values["mean"] == pytest.approx(0.0694444 - 0.7083333, abs=1e-6)
    alone, together = (cell(table, "CISPO − CPPO", f"95 % {text}").values for text in ("interval", "all pairs together"))
    assert (alone["low"], alone["high"]) == pytest.approx((reference.low, reference.high))
    assert together["low"] == pytest.approx(replace(reference, num_means=4).low)
    assert cell(table, "CISPO − CPPO", "decided by").text == reference.decided_by
    assert cell(table, "CISPO − CPPO", "P(improvement)").text == "0.00"
    assert cell(table, "CISPO − CPPO", "told apart").text == "yes"


def test_stability_and_cost_average_over_steps_then_seeds(results):
    assert cell(TABLES["table_stability"](results), "GRPO", "masked").text == "0.012 ± 0"
    run = results.groups[0].methods["grpo"].runs[0]
    # reward is .301 at step 0 and rises .01 a step: its mean over steps 1 … 28 is .301 + .145
    assert per_run(results.sweep, run, "reward/mean", "mean") == pytest.approx(0.446)
    assert per_run(results.sweep, run, "reward/mean", "end") == pytest.approx(0.301 + 0.275)  # last two of 28 steps
    assert cell(TABLES["table_cost"](results), "GRPO", "response tokens").text == "308,000 ± 0"
    assert cell(TABLES["table_cost"](results), "GRPO", "device-hours").text == "0.01 ± 0"


def test_run_list_has_every_run_and_state(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "cppo", 2, [0.5] * 2, state="failed", step=9)
    table = TABLES["table_runs"](analyse(load([tmp_path])))
    assert [row[1][0].text for row in table.rows] == ["completed", "failed"]
    assert table.rows[1][1][1].text == "9/28"


def test_method_without_scored_runs_and_group_without_method(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "grpo", 1, [0.5] * 2, state="running", step=9)
    write_run(tmp_path, "cppo", 1, [0.5] * 5, model="other")
    table = TABLES["table1"](analyse(load([tmp_path])))
    assert texts(table) == {"GRPO": ["missing (0/1 seeds: 1 running)", "missing"], "CPPO": ["50.0", "50.0"]}


def test_ablations_stand_beside_their_rule(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path, "cppo", seed, [0.5 + seed / 16] * 5)
        write_run(tmp_path, "cppo_wmin06", seed, [0.25 + seed / 16] * 5)
    results = analyse(load([tmp_path]))
    assert list(texts(TABLES["table1"](results))) == ["CPPO"]
    table = TABLES["table_ablations"](results)
    assert cell(table, "CPPO, w_min = 0.6", "changed settings").text == "w_min: 0.8 → 0.6"
    assert cell(table, "CPPO, w_min = 0.6", "difference").text == "−25.0"


def test_without_variants_the_ablation_table_says_how_to_make_them(results):
    table = TABLES["table_ablations"](results)
    assert table.rows == [] and "python -m harness" in table.notes[0]
    check(latex(table))


def test_published_numbers_are_marked(sweep_folder):
    table = TABLES["table1"](analyse(load([sweep_folder]), paper=True))
    assert cell(table, "CPPO", "published 30B-A3B-Base").text == "54.79"
    assert cell(table, "CISPO", "published 30B-A3B-Base").text == "collapse @ 215"
    assert "single run" in table.notes[-1]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_in_every_form(results, name):
    table = TABLES[name](results)
    rows = check(latex(table))
    assert len(rows) == len(table.rows) + 1
    lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    assert len(lines) == len(table.rows) + 2 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    records = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert len(records) == len(table.rows) * len(table.columns)


def test_csv_numbers_are_unrounded(results):
    records = list(csv.DictReader(io.StringIO(as_csv(TABLES["table1"](results)))))
    assert float(records[-1]["mean"]) == pytest.approx(np.mean([17, 16, 18]) / 24, rel=1e-12)


def test_special_characters_survive_latex():
    assert latex_escape("a_b & 5 % ± {x} − δ") == r"a\_b \& 5 \% $\pm$ \{x\} $-$ $\delta$"
    assert latex_escape("é 漢") == "é [U+6F22]"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(results, tmp_path):
    body = "\n".join(latex(make(results)) for make in TABLES.values())
    preamble = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs,xcolor}"
    (tmp_path / "all.tex").write_text(preamble + r"\begin{document}" + body + r"\end{document}")
    subprocess.run(["pdflatex", "-halt-on-error", "all.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_the_latex_reader_has_teeth():
    good = latex(Table("t", "T", ["a"], [("x", [Cell("1")])]))
    check(good)
    for bad in (good.replace(r"x & 1 \\", r"x & 1 & 2 \\"), good.replace("T", "T_1", 1), good.replace(r"\end{tabular}", "")):
        with pytest.raises((AssertionError, AttributeError)):
            check(bad)


def test_pass_at_k_by_hand(tmp_path):
    """4 samples on 8 problems, all of 4 correct on the first 5 and 2 of 4 on the next (share 22/32): pass@2 = (5 + 5/6)/8."""
    write_run(tmp_path, "cppo", 1, [22 / 32] * 5)
    table = TABLES["table_pass_at_k"](analyse(load([tmp_path])))
    assert table.columns == ["pass@1", "pass@2", "pass@4"]
    assert [cell.values["mean"] for cell in table.rows[0][1]] == pytest.approx([22 / 32, (5 + 5 / 6) / 8, 6 / 8])
    write_run(tmp_path / "single", "cppo", 1, [0.5] * 5, n=1)
    assert "eval.n" in TABLES["table_pass_at_k"](analyse(load([tmp_path / "single"]))).notes[0]
