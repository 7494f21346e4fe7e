"""Sweeps at the edge: variants alone, scores that do not differ, names and reasons that a format could trip over."""

from __future__ import annotations

import json
import shutil

import pytest
from made_up import write_run

from analysis.compare import pooled_spread
from analysis.figures import FIGURES
from analysis.figures.plot import Plot
from analysis.load import load
from analysis.packs import InputError, encode, unpack
from analysis.power import main as power_command
from analysis.recordings import traced_responses
from analysis.results import analyse
from analysis.runs import read_run
from analysis.serve import state_of
from analysis.tables import TABLES
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
    assert "DPPO (+0.0, from +0.0 to +0.0)" in text
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


def test_a_run_without_its_config_is_not_passed_over(tmp_path):
    write_run(tmp_path, "grpo", 1, [0.5] * 5)
    (write_run(tmp_path, "cppo", 1, [0.5] * 5) / "config.json").unlink()
    with pytest.raises(InputError, match="cppo/seed=1-.*/config.json cannot be read"):
        load([tmp_path])


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


def test_a_window_before_any_training_says_nothing_of_the_rules(tmp_path):
    write_run(tmp_path, "grpo", 1, [0.5] * 5)
    write_run(tmp_path, "cppo", 1, [0.6] * 5)
    assert "before any training, so nothing can be said" in verdict(analyse(load([tmp_path]), t_stop=3))


def test_training_is_reported_of_runs_without_evaluations(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "cppo", seed, [], changed={"eval.benchmarks": []})
    results = analyse(load([tmp_path]))
    for table in (TABLES["table_stability"](results), TABLES["table_cost"](results)):
        assert [(row, len(cells[0].run_ids)) for row, cells in table.rows] == [("CPPO", 2)]
    for name in ("fig2", "fig7", "fig9", "fig_position_divergence", "fig_position_masking", "fig_stability"):
        assert isinstance(FIGURES[name](results), Plot), name


def test_a_run_that_failed_at_once_blocks_no_comparison(tmp_path):
    write_run(tmp_path, "grpo", 1, [0.5] * 5)
    write_run(tmp_path, "grpo", 1, [], state="failed", step=0, lr=1.0)
    assert load([tmp_path]).mixed == []


def test_a_damaged_trace_and_a_damaged_pack_are_named(tmp_path):
    folder = write_run(tmp_path, "cppo", 1, [0.5] * 5)
    (folder / "traces").mkdir()
    (folder / "traces" / "step=7.json").write_text('{"step": 7, "responses": [{}]}')
    with pytest.raises(InputError, match="traces is damaged.*move it away"):
        traced_responses(read_run(RunFolder(folder)))
    (tmp_path / "packs").mkdir()
    (tmp_path / "packs" / "x.json.gz").write_bytes(b"text")
    with pytest.raises(InputError, match="x.json.gz is damaged"):
        list(unpack(tmp_path / "packs", tmp_path / "runs"))


def line(name: str, number: int, change):
    """One line of a file changed; None takes it away."""

    def damage(folder):
        lines = (folder / name).read_text().splitlines(keepends=True)
        lines[number] = change(lines[number]) or ""
        (folder / name).write_text("".join(lines))

    return damage


def value(name: str, key: str, new):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        content[key] = new
        (folder / name).write_text(json.dumps(content))

    return damage


def setting(folder):
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["train"]["lr"] = 1.0
    (folder / "config.json").write_text(json.dumps(config))


def other_size(text: str) -> str:
    return json.dumps(json.loads(text) | {"n": 8}) + "\n"


def swap(old: str, new: str):
    return lambda text: text.replace(old, new)


EVALS, METRICS, STATUS, CONFIG = "evals.jsonl", "metrics.jsonl", "status.json", "config.json"
DAMAGES = {
    "a damaged line": (line(EVALS, 100, lambda text: "\x00" + text), "evals.jsonl: rows are missing.*steps 28.*lines 101"),
    "fewer samples than none": (line(EVALS, 100, swap('"n": 4', '"n": -4')), "steps 28.*lines 101"),
    "more right than sampled": (line(EVALS, 1, swap('"num_correct": ', '"num_correct": 9')), "steps 0.*lines 2"),
    "another number of samples": (line(EVALS, 1, other_size), "chain4 has 4, 8 samples a problem"),
    "no row of a problem": (line(EVALS, 1, lambda text: None), "rows are missing of the evaluations at steps 0:"),
    "no row of a step": (line(METRICS, 4, lambda text: None), "metrics.jsonl: no row of steps 5:"),
    "text in a step": (line(METRICS, 4, lambda text: '{"step": 5, "x": "1"}\n'), "no row of steps 5 .lines 5"),
    "no steps": (lambda folder: (folder / METRICS).write_text(""), "no row of steps 1, 2, .* 8 and 20 more"),
    "no evaluations": (lambda folder: (folder / EVALS).unlink(), "evaluations at steps 0, 7, 14, 21, 28"),
    "a state that is none": (value(STATUS, "state", 3), "state is 3"),
    "a step in words": (value(STATUS, "collapse_step", "4"), "collapse_step is '4'"),
    "another seed": (value(CONFIG, "seed", 7), "seed is 7 in config.json and 1 in status.json"),
    "another rule": (value(CONFIG, "rule", "grpo"), "method is 'grpo' in config.json and 'cppo'"),
    "an edited setting": (setting, "its config_hash is not that of its settings"),
}


@pytest.mark.parametrize("damage, said", DAMAGES.values(), ids=DAMAGES)
def test_a_finished_run_that_is_not_as_it_was_written_is_refused(tmp_path, damage, said):
    write_run(tmp_path, "grpo", 1, [0.5] * 5)
    damage(write_run(tmp_path, "cppo", 1, [0.5] * 5))
    with pytest.raises(InputError, match=said) as error:
        load([tmp_path])
    assert "cppo" in str(error.value) and "leave the run out" in str(error.value)
