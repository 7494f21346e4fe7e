"""The run folder's files: what a reader sees after any crash, and what a writer says when it cannot write."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

import harness.files as files
from harness.files import WriteError, append_rows, read_json, read_rows, write_atomic, write_json
from harness.store import RunFolder, complete_steps, find_runs

ROWS = [{"step": 1, "reward/mean": 0.25}, {"step": 2, "reward/mean": 0.5}]


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_every_cut_of_the_last_line_loses_that_row_only(folder):
    folder.append("metrics", ROWS)
    path = folder.path / "metrics.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert folder.rows("metrics") == ROWS[:1]
        assert folder.last_step() == 1
        folder.append("metrics", [{"step": 3, "reward/mean": 1.0}])
        assert [row["step"] for row in folder.rows("metrics")] == [1, 3], cut


def test_half_a_character_at_the_end_is_passed_over(folder):
    folder.append("evals", [{"step": 0, "benchmark": "a", "problem_id": "ü", "n": 1, "num_correct": 0}])
    with open(folder.path / "evals.jsonl", "ab") as file:
        file.write('{"step": 7, "problem_id": "ü'.encode()[:-1])
    assert [row["problem_id"] for row in folder.rows("evals")] == ["ü"]


def test_the_last_row_of_a_step_wins_and_steps_are_in_order(folder):
    folder.append("metrics", [{"step": 2, "x": 1}, {"step": 1, "x": 2}])
    folder.append("metrics", [{"step": 2, "x": 3}])
    assert folder.rows("metrics") == [{"step": 1, "x": 2}, {"step": 2, "x": 3}]


NO_STEPS = ['"1"', "null", "true", "1.5", "-1", "1" + "0" * 30]
NO_NUMBERS = ['"0.5"', "true", "[1]", "{}", "NaN", "Infinity", "1e999", "1" + "0" * 400]
NO_ROWS = [
    *("null", "3", "[1]", '"text"', "{}", '{"step"', "\x00\x00", "[" * 100_000),
    *(f'{{"step": {step}}}' for step in NO_STEPS),
    *(f'{{"step": 1, "x": {value}}}' for value in NO_NUMBERS),
]


@pytest.mark.parametrize("line", NO_ROWS)
def test_lines_that_are_no_rows_are_passed_over(folder, line):
    folder.append("metrics", ROWS)
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    assert folder.rows("metrics") == ROWS


def test_numbers_that_are_not_finite_become_null_and_every_line_is_strict_json(folder):
    deep = {"e": [0.5, float("nan"), {"f": float("inf")}]}
    folder.append("metrics", [{"step": 1, "a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1.5, "deep": deep}])

    def refuse(name):
        raise AssertionError(name)

    line = (folder.path / "metrics.jsonl").read_text()
    row = {"step": 1, "a": None, "b": None, "c": None, "d": 1.5, "deep": {"e": [0.5, None, {"f": None}]}}
    assert json.loads(line, parse_constant=refuse) == row


def test_the_tail_of_a_long_file_is_its_last_rows(folder):
    rows = [{"step": step} | {f"filler/{i}": i / 7 for i in range(10)} for step in range(1, 2001)]
    folder.append("metrics", rows)
    assert folder.tail("metrics", 3) == rows[-3:]
    assert folder.last_step() == 2000


@pytest.mark.parametrize("content", ["", "{", '{"state": "running"', "null", "[]", "\xff"])
def test_an_empty_or_torn_status_is_a_missing_one(folder, content):
    folder.path.mkdir()
    (folder.path / "status.json").write_text(content, encoding="latin-1")
    assert folder.read_status() is None
    assert folder.state == "missing" and not folder.finished
    assert folder.update_status(state="running")["state"] == "running"


def test_attempts_are_counted_from_the_logs_where_the_status_is_lost(folder):
    folder.update_status(attempts=2)
    (folder.path / "logs").mkdir()
    write_json(folder.path / "logs" / "attempt_3.json", {})
    assert folder.num_attempts() == 3
    (folder.path / "status.json").write_text("")
    assert folder.num_attempts() == 3


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    write_json(path, {"step": 1})

    def full(file, data):
        file.write(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "put", full)
    with pytest.raises(WriteError, match="No space left on device.*free some space.*same command again"):
        write_json(path, {"step": 2})
    assert read_json(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_append_loses_no_row_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    append_rows(path, ROWS[:1])

    def full(file, data):
        file.write(data[: len(data) // 2])
        file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "put", full)
        with pytest.raises(WriteError, match=str(path)):
            append_rows(path, ROWS[1:])
    assert read_rows(path, ("step",)) == ROWS[:1]
    append_rows(path, ROWS[1:])
    assert read_rows(path, ("step",)) == ROWS


def test_a_real_full_device_is_named(tmp_path):
    path = Path("/dev/full")
    with pytest.raises(WriteError, match="/dev/full.*No space left"), files.writing(path), open(path, "wb", buffering=0) as file:
        files.put(file, b"x")


def test_a_path_through_a_file_says_what_to_do(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(WriteError, match="choose another runs_dir"):
        write_atomic(tmp_path / "runs" / "status.json", "{}")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder_says_what_to_do(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "read-only")

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(WriteError, match="choose another runs_dir"):
        write_atomic(tmp_path / "status.json", "{}")


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(folder):
    folder.update_status(state="running")
    left = [folder.path / ".status.json.17.tmp", folder.path / "samples" / ".step=0.jsonl.gz.17.tmp"]
    left += [folder.path / "traces" / ".step=7.json.17.tmp", folder.path / "batches" / ".step=14.safetensors.17.tmp"]
    kept = [folder.path / "samples" / "step=0.jsonl.gz", folder.path / "status.json"]
    for path in (*left, kept[0]):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    folder.remove_leftovers()
    assert not any(path.exists() for path in left) and all(path.exists() for path in kept)


def test_a_copy_kept_beside_checkpoints_is_none_of_them(folder):
    for name in ("step=2", "step=10", "step=2.keep", "step=x"):
        (folder.path / "checkpoints" / name).mkdir(parents=True)
        (folder.path / "checkpoints" / name / "manifest.json").touch()
    assert complete_steps(folder.path / "checkpoints") == [2, 10]


def test_device_hours_add_up_each_attempt_with_its_own_ranks(folder):
    folder.update_status(state="preempted", seconds=3600.0, device_hours=4.0, ranks=4)
    assert folder.spent_before() == (3600.0, 4.0)
    folder.update_status(state="running", ranks=2)
    folder.lock.previous = {"seconds": 1800.0}  # what a killed attempt of two ranks left
    assert folder.spent_before() == (5400.0, 5.0)


def test_runs_are_found_in_a_stable_order_and_a_wrong_root_is_named(tmp_path):
    for name in ("b", "a"):
        write_json(tmp_path / name / "config.json", {})
        write_json(tmp_path / name / "status.json", {})
    write_json(tmp_path / "c" / "config.json", {})
    assert [run.path.name for run in find_runs(tmp_path)] == ["a", "b"]
    with pytest.raises(ValueError, match="is not a folder"):
        list(find_runs(tmp_path / "nowhere"))


@pytest.mark.parametrize("cut", range(1, 44))
def test_a_row_torn_anywhere_is_passed_over_and_no_other(tmp_path, cut):
    """Rows are read all at once where they can be: a torn one must not melt into the next."""
    torn = json.dumps({"step": 2, "text": '{"step":9},{"x":"', "n": [1, 2]})[:cut]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([json.dumps({"step": 1}), torn, json.dumps({"step": 3, "text": '"},{"'}), json.dumps({"step": 4})]))
    assert [row["step"] for row in read_rows(path, ("step",))] == [1, 3, 4]
