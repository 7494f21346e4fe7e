"""Folders -> tables: what crashes leave behind, mixed settings, the cache."""

import json

import pytest
from made_up import write_run

from analysis.load import load
from analysis.runs import InputError, differing
from harness.store import flatten


def test_reads_every_run_once(sweep_folder):
    sweep = load([sweep_folder, sweep_folder / "default"])
    assert len(sweep.runs) == 11
    assert set(sweep.evals["run_id"].unique()) == {run.run_id for run in sweep.runs}
    assert len(sweep.evals) == 11 * 5 * 24


def test_half_a_line_is_dropped_and_the_last_row_of_a_step_wins(sweep_folder):
    sweep = load([sweep_folder])
    (run,) = [run for run in sweep.runs if (run.method, run.seed) == ("grpo", 1)]
    steps, rewards = sweep.metric(run, "reward/mean")
    assert steps.tolist() == list(range(1, 29))
    assert rewards[9] == pytest.approx(0.3 + 0.1 + 0.001)
    assert sweep.evals.query("run_id == @run.run_id")["step"].max() == 28


def test_unknown_metric_is_empty(sweep_folder):
    sweep = load([sweep_folder])
    steps, values = sweep.metric(sweep.runs[0], "no/such")
    assert len(steps) == len(values) == 0


def test_different_settings_are_refused_with_the_keys(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "grpo", 1, [0.5] * 5, lr=1e-4)
    with pytest.raises(InputError, match=r"train.lr = 0.0002, 0.0001"):
        load([tmp_path])
    assert len(load([tmp_path], allow_mixed=True).mixed) == 1


def test_a_seed_counts_once_under_whatever_settings(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "cppo", 1, [0.5] * 5, lr=1e-4)
    with pytest.raises(InputError, match="are both seed 1 of cppo: give only one of them"):
        load([tmp_path], allow_mixed=True)


def test_a_preset_edited_between_runs_is_refused(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "cppo", 2, [0.5] * 5, changed={"method.delta": 0.2})
    with pytest.raises(InputError, match="default / chain, cppo: delta = 0.15, 0.2"):
        load([tmp_path])


def test_another_experiment_is_another_group(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "grpo", 1, [0.5] * 5, lr=1e-4, experiment="slow")
    assert load([tmp_path]).mixed == []


def test_the_same_run_in_two_places_is_refused(tmp_path):
    write_run(tmp_path / "a", "cppo", 1, [0.5] * 5)
    write_run(tmp_path / "b", "cppo", 1, [0.5] * 5)
    with pytest.raises(InputError, match="hold the same run"):
        load([tmp_path / "a", tmp_path / "b"])


def test_no_runs_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="python -m harness"):
        load([tmp_path])


def test_torn_status_is_a_run_in_state_missing(tmp_path):
    folder = write_run(tmp_path, "cppo", 1, [0.5] * 5)
    (folder / "status.json").write_text('{"state": "comp')
    assert load([tmp_path]).runs[0].state == "missing"


def test_cached_tables_equal_parsed_ones_and_follow_the_files(tmp_path):
    folder = write_run(tmp_path / "runs", "cppo", 1, [0.5] * 5)
    parsed, first = load([tmp_path / "runs"]), load([tmp_path / "runs"], cache=tmp_path / "cache")
    again = load([tmp_path / "runs"], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    for name in ("metrics", "evals"):
        assert getattr(parsed, name).equals(getattr(first, name)) and getattr(first, name).equals(getattr(again, name))
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 28, "reward/mean": 0.875}) + "\n")
    assert load([tmp_path / "runs"], cache=tmp_path / "cache").metrics["reward/mean"].iloc[-1] == 0.875
    entries = list((tmp_path / "cache").iterdir())
    assert len(entries) == 2  # the outdated one is gone
    for entry, damaged in zip(entries, (b"", entries[1].read_bytes()[:100]), strict=True):
        entry.write_bytes(damaged)
    assert load([tmp_path / "runs"], cache=tmp_path / "cache").metrics["reward/mean"].iloc[-1] == 0.875


def test_flatten_and_differing():
    assert flatten({"a": {"b": 1, "c": [2]}, "d": 3}) == {"a.b": 1, "a.c": [2], "d": 3}
    assert differing([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1}]) == {"b": [2, 3, None]}
