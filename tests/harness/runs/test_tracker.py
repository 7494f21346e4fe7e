"""The wandb mirror, against the real package offline: what it wrote is read back from its own files."""

from __future__ import annotations

import json
import logging
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import tracker
from harness.runs.attempt import StopRequest, attempt
from harness.tracker import Tracker, WandbTracker, evaluation_summaries, make_tracker

wandb = pytest.importorskip("wandb")

EVALS = [
    {"step": 0, "benchmark": "a", "problem_id": "1", "n": 4, "num_correct": 1},
    {"step": 0, "benchmark": "a", "problem_id": "2", "n": 4, "num_correct": 3},
    {"step": 0, "benchmark": "b", "problem_id": "1", "n": 4, "num_correct": 0},
]


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-own"))


def log_records(data: bytes) -> Iterator[bytes]:
    """Of a .wandb file: LevelDB's log format in blocks of 32 KiB, after a header of 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def records(path: Path, patience_s: float = 30.0) -> list:
    """Of a wandb file, once its run has ended: wandb's own process may still be writing when `finish` returns."""
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + patience_s
    while True:
        found = [wandb_internal_pb2.Record.FromString(data) for data in log_records(path.read_bytes())]
        if any(record.HasField("exit") for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def mirrored(folder: Path) -> tuple[set[str], list[dict]]:
    """(run ids, rows in the order of writing) of all wandb files below a run folder."""
    ids, rows = set(), []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(path):
            if record.run.run_id:
                ids.add(record.run.run_id)
            if record.history.item:
                rows.append({".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item})
    return ids, [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def test_no_tracker_by_default(tiny_plan, tmp_path):
    plan = tiny_plan(tmp_path)
    assert type(make_tracker(plan.config.tracker, plan)) is Tracker


def test_summaries_by_hand():
    assert evaluation_summaries(EVALS) == [{"step": 0, "eval/mean": 0.25, "eval/a": 0.5, "eval/b": 0.0}]


@pytest.fixture(scope="module")
def resumed(tiny_plan, tiny_train, tmp_path_factory):
    """A run with the mirror that was stopped after step 2 and resumed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        plan = tiny_plan(tmp_path_factory.mktemp("mirrored"), "tracker=wandb")
        assert attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2)) == "preempted"
        assert attempt(plan, tiny_train, StopRequest()) == "completed"
    return plan


def test_the_mirror_holds_what_the_store_holds_under_one_id_across_resumes(resumed):
    ids, rows = mirrored(resumed.folder.path)
    assert ids == {json.loads((resumed.folder.path / "wandb.json").read_text())["id"]}
    assert len(list(resumed.folder.path.glob("wandb/offline-run-*"))) == 2
    metrics = [row for row in rows if "reward/mean" in row]
    assert metrics == resumed.folder.rows("metrics")
    evaluations = [row for row in rows if "eval/mean" in row]
    assert evaluations == evaluation_summaries(resumed.folder.rows("evals")) and len(evaluations) == 3


def test_sync_replays_a_finished_run(undisturbed, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.path, folder)
    assert tracker.main(["sync", str(tmp_path)]) == 0
    assert f"synced: {folder} (3 steps, 3 evaluations)" in capsys.readouterr().out
    ids, rows = mirrored(folder)
    assert len(ids) == 1
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    kept = [{key: value for key, value in row.items() if not key.startswith("eval/")} for row in rows[1:]]
    assert kept == undisturbed.rows("metrics")


@pytest.fixture
def online(monkeypatch):
    """What wandb.init was asked for, in place of a server."""
    asked = {}
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "init", lambda **settings: asked.update(settings) or refuse())
    return asked


def test_online_without_a_key_asks_nothing(online, tiny_plan, tiny_train, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)
    plan = tiny_plan(tmp_path, "tracker=wandb", "tracker.mode=online")
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert "no API key (wandb login)" in caplog.text and not online


def test_the_end_waits_for_a_server_for_a_minute_at_most(online, tiny_plan, tiny_train, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    plan = tiny_plan(tmp_path, "tracker=wandb", "tracker.mode=online")
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert online["mode"] == "online"
    assert online["settings"].finish_timeout == 60 and online["settings"].finish_timeout_raises


class Unreachable(Exception):
    pass


def refuse(*_, **__):
    raise Unreachable("no network")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_a_failure_never_stops_training(where, tiny_plan, tiny_train, undisturbed, faults, tmp_path, monkeypatch, caplog):
    if where == "init":
        monkeypatch.setattr(wandb, "init", refuse)
    else:
        monkeypatch.setattr(wandb.sdk.wandb_run.Run, where, refuse)
    plan = tiny_plan(tmp_path, "tracker=wandb")
    with caplog.at_level(logging.WARNING):
        assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert "no network" in caplog.text and "python -m harness.tracker sync" in caplog.text
    assert caplog.text.count("no network") == 1, "said once"
    assert faults.differences(undisturbed, plan.folder) == []


def test_sync_says_which_runs_failed(undisturbed, monkeypatch, capsys):
    monkeypatch.setattr(wandb, "init", refuse)
    assert tracker.main(["sync", str(undisturbed.path)]) == 1
    assert f"failed: {undisturbed.path}" in capsys.readouterr().out


def test_null_is_not_mirrored(tmp_path):
    class Run:
        rows: list[dict] = []
        log = rows.append

    mirror = WandbTracker(None, {}, None)
    mirror.run = Run
    mirror.log({"step": 1, "actor/grad_norm": None, "reward/mean": 0.5})
    assert Run.rows == [{"step": 1, "reward/mean": 0.5}]
