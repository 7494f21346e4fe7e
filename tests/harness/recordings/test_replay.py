"""Replay: the numbers of the run itself, and rules and settings that it did not know."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hydra.errors import HydraException

from harness.replay import main, split_methods
from harness.telemetry.shadow import OWN
from methods import METHODS


def replayed(recorded, tmp_path, *arguments: str) -> list[dict]:
    out = tmp_path / "out.json"
    assert main([str(recorded.folder.path), "--out", str(out), *arguments]) == 0
    return json.loads(out.read_text())


def test_the_same_numbers_as_in_the_run(recorded, tmp_path):
    rows = {(row["step"], row["rule"]): row for row in replayed(recorded, tmp_path)}
    shadow = {(row["step"], row["rule"]): row for row in recorded.folder.rows("shadow")}
    assert rows.keys() == shadow.keys() == {(step, rule) for step in (1, 2) for rule in (OWN, *METHODS)}
    for key, row in shadow.items():
        assert {name: rows[key][name] for name in row} == row


def test_other_settings_and_presets(recorded, tmp_path, capsys):
    rows = replayed(recorded, tmp_path, "--methods", "cppo,cppo method.delta=1e-9 method.prefix_budget=false,cppo_kl")
    tight = "cppo method.delta=1e-9 method.prefix_budget=false"
    kept = {row["rule"]: row["kept"] for row in rows if row["step"] == 2}
    assert kept.keys() == {OWN, "cppo", tight, "cppo_kl"}
    assert kept["cppo"] == kept[OWN] > kept[tight]
    printed = capsys.readouterr().out
    assert tight in printed and "steps 1, 2; own = cppo" in printed and "tenths" not in printed


def test_the_table_pools_steps_by_their_sums(recorded, tmp_path, capsys):
    rows = replayed(recorded, tmp_path, "--by-position")
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line}
    steps_differ = False
    for name in METHODS:
        of_rule = [row for row in rows if row["rule"] == name]
        pooled = sum(row["kept"] * row["tokens"] for row in of_rule) / sum(row["tokens"] for row in of_rule)
        assert float(lines[name][0]) == pytest.approx(100 * pooled, abs=0.06)
        assert len(lines[name]) == 4 + 10
        steps_differ |= abs(of_rule[0]["kept"] - of_rule[1]["kept"]) > 0.01
    assert steps_differ, "else the last step alone would pass"


def test_commas_inside_brackets_stay():
    assert split_methods("a,b method.x=[1,2], c") == ["a", "b method.x=[1,2]", "c"]


def test_empty_methods_are_skipped():
    assert split_methods("cppo, ,dppo,") == ["cppo", "dppo"]


@pytest.mark.parametrize(
    "methods, said",
    [
        ("cpo", "choose from"),
        ("cppo method.w_min=2", "w_min"),
        ("cppo method.dleta=1", "dleta"),
        ("cppo method.delta=x", "delta"),
    ],
)
def test_what_a_user_gets_wrong_is_named(recorded, methods, said):
    with pytest.raises((ValueError, HydraException), match=said):  # which exit_with makes a line of
        main([str(recorded.folder.path), "--methods", methods])


def test_a_run_without_recordings_says_how_to_get_them(unrecorded):
    with pytest.raises(ValueError, match="record.batches_every"):
        main([str(unrecorded.folder.path)])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="none: no such folder; name run folders"):
        main([str(tmp_path / "none")])


def test_the_command(recorded):
    command = [sys.executable, "-m", "harness.replay", str(recorded.folder.path), "--methods", "dppo"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "dppo" in found.stdout
