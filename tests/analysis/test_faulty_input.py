"""Sweeps at the edge: variants alone, scores that do not differ, names and reasons that a format could trip over."""

from __future__ import annotations

import json
import shutil

import pytest
from made_up import write_run

from analysis.compare import pooled_spread
from analysis.load import load
from analysis.packs import InputError, encode, unpack
from analysis.power import main as power_command
from analysis.results import analyse
from analysis.runs import read_run
from analysis.serve import state_of
from analysis.tables.table import Cell, Table, latex, markdown
from analysis.verdict import verdict
from harness.store import RunFolder


def sweep(root, scores: dict[str, list[float]]):
    """Results of runs of constant score, a seed for each number."""
    for method, values in scores.items():
        for seed, value in enumerate(values, 1):
            write_run(root, method, seed, [value] * 5)
    return analyse(load([root]))


def test_variants_without_their_rule_are_compared_like_rules(tmp_path):
    results = sweep(tmp_path, {"grpo": [0.4, 0.45, 0.5], "cppo_kl": [0.7, 0.75, 0.8], "cppo_binary": [0.7, 0.7, 0.75]})
    assert set(results.main_methods(results.groups[0])) == {"grpo", "cppo_kl", "cppo_binary"}
    assert "nothing to compare it with" not in verdict(results)


@pytest.mark.parametrize("score", [0.0, 0.175, 0.35, 1.0])
def test_equal_scores_are_not_told_apart_by_rounding(tmp_path, score, capsys):
    results = sweep(tmp_path, {"grpo": [score] * 3, "cppo": [score] * 4, "dppo": [score] * 3})
    comparison = results.comparison(results.groups[0])
    assert set(comparison.not_told_from_best) == comparison.means.keys() - {comparison.best}
    text = verdict(results)
    assert "and so have" in text and "is higher than" not in text and "would need" not in text
    assert pooled_spread(comparison) is None
    power_command([str(tmp_path)])


def test_rows_of_a_table_stay_rows():
    table = Table("t", "T", ["reason"], [("*x", [Cell("first\nsecond\n\nthird | x")]), ("[漢]", [Cell("y")])], [])
    assert "| *x | first second  third \\| x |" in markdown(table).splitlines()
    assert r"{}*x & first second  third $|$ x \\" in latex(table) and r"{}[[U+6F22]] & y \\" in latex(table)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "settings": {}}))
    with pytest.raises(InputError, match="is not a run of this harness.*leave it out"):
        read_run(RunFolder(tmp_path))


def test_a_pack_writes_nowhere_else(tmp_path):
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "x.json.gz").write_bytes(encode({"format": 1, "run_id": "../../elsewhere/x"}))
    with pytest.raises(InputError, match="lies outside of"):
        list(unpack(tmp_path / "packs", tmp_path / "runs" / "here"))


def test_the_live_page_outlives_its_runs(tmp_path):
    folder = write_run(tmp_path / "runs", "grpo", 1, [0.5] * 5)
    before = state_of([tmp_path / "runs"])
    assert before == state_of([tmp_path / "runs"])
    (folder / "metrics.jsonl").write_text("")
    assert state_of([tmp_path / "runs"]) != before
    shutil.rmtree(tmp_path / "runs")
    assert state_of([tmp_path / "runs"])
