"""Runs -> packs -> runs: nothing is lost but digits and the machine, equal runs give equal bytes."""

import gzip
import json
import shutil

import pytest
from made_up import write_run

from analysis.__main__ import main
from analysis.load import load
from analysis.packs import decode, own_budget, pack, pack_files, portable, rounded, to_columns, to_rows, unpack
from analysis.runs import InputError
from harness.store import RunFolder


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "runs", "cppo", 1, [0.5] * 5)
    write_run(tmp_path / "runs", "grpo", 2, [0.5] * 3, state="collapsed", step=14, collapse_step=14)
    write_run(tmp_path / "runs", "dppo", 1, [0.5] * 2, state="running", step=9)
    return tmp_path / "runs"


def test_only_finished_runs_are_packed_and_each_once(runs, tmp_path):
    made = list(pack([runs], tmp_path / "packs"))
    assert [path.parent.name for path in made] == ["cppo", "grpo"]
    before = {path: path.stat().st_mtime_ns for path in made}
    assert list(pack([runs], tmp_path / "packs")) == []
    assert {path: path.stat().st_mtime_ns for path in pack_files(tmp_path / "packs")} == before


def test_a_run_that_lost_rows_is_not_packed(runs, tmp_path):
    (next(runs.rglob("cppo/*")) / "evals.jsonl").unlink()
    with pytest.raises(InputError, match="cppo/.*evals.jsonl: rows are missing of the evaluations at steps 0, 7"):
        list(pack([runs], tmp_path / "packs"))


def test_equal_runs_give_equal_bytes_wherever_they_stand(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "elsewhere" / "runs")
    one, other = (list(pack([root], tmp_path / root.parent.name)) for root in (runs, tmp_path / "elsewhere" / "runs"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_unpacked_runs_are_read_as_the_packed_ones(runs, tmp_path):
    folders = [folder for folder, _ in unpack_all(runs, tmp_path)]
    assert all(RunFolder(path).finished for path in folders)
    before, after = (load([root]) for root in (runs, tmp_path / "back"))
    assert after.runs == [run for run in before.runs if run.finished]
    of_finished = before.evals["run_id"].isin([run.run_id for run in after.runs])
    assert after.evals.drop(columns="run_id").equals(before.evals[of_finished].drop(columns="run_id").reset_index(drop=True))
    for run in after.runs:
        assert after.metric(run, "reward/mean")[1] == pytest.approx(before.metric(run, "reward/mean")[1], rel=1e-6)


def unpack_all(runs, tmp_path):
    list(pack([runs], tmp_path / "packs"))
    return list(unpack(tmp_path / "packs", tmp_path / "back"))


def test_packs_of_unpacked_runs_are_the_same_bytes(runs, tmp_path):
    unpack_all(runs, tmp_path)
    again = list(pack([tmp_path / "back"], tmp_path / "again"))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in pack_files(tmp_path / "packs")]


def test_unpacking_leaves_finished_and_living_folders_alone_and_completes_torn_ones(runs, tmp_path):
    (first, pack_of_first), (second, _) = unpack_all(runs, tmp_path)
    assert list(unpack(tmp_path / "packs", tmp_path / "back")) == []
    (first / "status.json").unlink()
    (second / "status.json").unlink()
    assert RunFolder(second).lock.acquire()
    assert list(unpack(tmp_path / "packs", tmp_path / "back")) == [(first, pack_of_first)]


def test_rows_come_back_with_what_they_had_and_lacked():
    rows = [{"step": 1, "a": 0.5, "b": None}, {"step": 2, "a": 1.0}, {"step": 3, "b": 2}]
    table = to_columns(rows)
    assert table == {
        "num_rows": 3,
        "columns": {"step": [1, 2, 3], "a": [0.5, 1.0], "b": [None, 2]},
        "at": {"a": [0, 1], "b": [0, 2]},
    }
    assert to_rows(table) == rows
    assert to_rows(to_columns([])) == []


def test_six_digits():
    assert [rounded(value) for value in (0.2760416567325592, 5.450307799037546e-05, 10692, None)] == [
        0.276042, 5.45031e-05, 10692, None,
    ]  # fmt: skip


def test_nothing_of_the_machine_is_packed():
    command = "python -m harness -m method=cppo data.path=/home/me/x.jsonl runs_dir=runs seed=1"
    record = {"host": "vm", "pid": 3, "cpu": "EPYC", "command": command, "paths": {"model": "builtin:chain", "data": "/x"}}
    assert portable(record) == {
        "cpu": "EPYC", "command": "python -m harness -m method=cppo seed=1", "paths": {"model": "builtin:chain"},
    }  # fmt: skip


def test_a_trace_is_kept_for_a_rule_with_a_prefix_budget():
    budget = {"aux": {"c": [1], "w": [1], "S_prev": [0], "Z": [0]}}
    trace = lambda own: {
        "step": 7,
        "rules": {"own": {"rule": "cppo"}, "ppo": {}},
        "responses": [{"token_ids": [5], "rules": {"own": own, "ppo": {}}}],
    }
    assert own_budget(trace(budget)) == {
        "step": 7,
        "rules": {"own": {"rule": "cppo"}},
        "responses": [{"token_ids": [5], "rules": {"own": budget}}],
    }
    assert own_budget(trace({"aux": {"c": [1]}})) is None and own_budget(None) is None


def test_commands(runs, tmp_path, capsys):
    main(["pack", str(runs), "--out", str(tmp_path / "packs")])
    assert "2 packs in" in capsys.readouterr().out
    main(["unpack", str(tmp_path / "packs"), str(tmp_path / "back")])
    assert capsys.readouterr().out == f"2 runs unpacked into {tmp_path / 'back'}\n"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="python -m analysis pack"):
        main(["unpack", str(tmp_path / "empty"), str(tmp_path / "back")])


def test_another_format_is_refused(runs, tmp_path):
    unpack_all(runs, tmp_path)
    path = pack_files(tmp_path / "packs")[0]
    path.write_bytes(gzip.compress(json.dumps({"format": 0}).encode()))
    with pytest.raises(InputError, match="format 0"):
        decode(path)
