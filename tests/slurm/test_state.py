"""What `python -m slurm status` says, from a run's files and what SLURM says of its job."""

import json
import os
import time

import pytest

from harness.files import write_json
from harness.store import RunFolder
from slurm import __main__ as command
from slurm import scheduler, state
from slurm.record import Submission
from slurm.scheduler import Job

EARLY, LATE = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
GONE = {"host": "elsewhere", "namespace": None, "pid": 5, "born": "1"}  # written on another node


def made(path, run_state=None, job_id="7_0", beat=None, submitted=EARLY, cancelled=None, **status) -> RunFolder:
    """A run's folder. `beat`: seconds since the heartbeat of a process on another node."""
    folder = RunFolder(path / "default" / "chain" / "cppo" / "seed=1-abcdef")
    folder.path.mkdir(parents=True)
    if run_state:
        write_json(folder.path / "status.json", {"state": run_state, "updated": LATE, "slurm_job_id": "70"} | status)
        write_json(folder.path / "config.json", {"settings": {"train": {"steps": 28}}})
    if job_id:
        Submission(job_id, str(path), [], str(path), submitted, cancelled).write(folder)
    if beat is not None:
        write_json(folder.lock.path, GONE)
        os.utime(folder.lock.path, (time.time() - beat,) * 2)
    return folder


CASES = {  # files, SLURM's job, expected state, words of the note
    "waits": ({}, Job("PENDING", "Priority"), "pending", "Priority"),
    "waits again": ({"run_state": "preempted", "reason": "SIGUSR2"}, Job("PENDING", "BeginTime"), "pending", "SIGUSR2"),
    "held": ({"run_state": "running"}, Job("PENDING", "JobHeldAdmin"), "pending", "JobHeldAdmin"),
    "starts": ({}, Job("RUNNING"), "running", "starting"),
    "works": ({"run_state": "running", "beat": 5}, Job("RUNNING", seconds=60), "running", ""),
    "starts after a kill": ({"run_state": "running", "beat": 500}, Job("RUNNING", seconds=20), "running", "starting"),
    "between attempts": ({"run_state": "failed", "reason": "E"}, Job("RUNNING"), "running", "E"),
    "silent": ({"run_state": "running", "beat": 500}, Job("RUNNING", seconds=900), "silent", "no heartbeat"),
    "done": ({"run_state": "completed"}, None, "completed", ""),
    "done, job ends": ({"run_state": "completed"}, Job("COMPLETING"), "completed", ""),
    "done, though SLURM says failed": ({"run_state": "completed"}, Job("FAILED"), "completed", ""),
    "collapsed": ({"run_state": "collapsed"}, None, "collapsed", ""),
    "failed": ({"run_state": "failed", "reason": "ValueError: x"}, Job("FAILED"), "failed", "ValueError: x"),
    "failed, though SLURM says completed": ({"run_state": "failed", "reason": "x"}, Job("COMPLETED"), "failed", "x"),
    "forgotten": ({"run_state": "running"}, None, "lost", "SLURM has no job 7_0"),
    "never began": ({}, Job("NODE_FAIL"), "lost", "NODE_FAIL"),
    "time ran out": ({"run_state": "running", "beat": 5, **{"host": "elsewhere", "pid": 5}}, Job("TIMEOUT"), "lost", "TIMEOUT"),
    "saved, not requeued": ({"run_state": "preempted", "reason": "SIGTERM"}, None, "lost", "SIGTERM"),
    "cancelled": ({"run_state": "preempted", "reason": "SIGTERM"}, Job("CANCELLED"), "cancelled", "SIGTERM"),
    "cancelled by us": ({"run_state": "preempted", "cancelled": LATE}, None, "cancelled", ""),
    "old failure": ({"run_state": "failed", "submitted": "2026-02-01T00:00:00+00:00"}, Job("CANCELLED"), "cancelled", ""),
    "no slurm, stopped": ({"run_state": "preempted", "job_id": None, "reason": "SIGINT"}, None, "preempted", "SIGINT"),
    "no slurm, gone": ({"run_state": "running", "job_id": None}, None, "lost", "gone"),
    "no slurm, works": ({"run_state": "running", "job_id": None, "beat": 5}, None, "running", "outside SLURM"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_combination(name, tmp_path, monkeypatch):
    files, job, expected, words = CASES[name]
    folder = made(tmp_path, **files)
    monkeypatch.setattr(state, "look_up", lambda ids: {"7_0": job} if job else {})
    (seen,) = state.look([folder])
    assert seen.state == expected and words in seen.note, seen
    assert (seen.preset, seen.seed) == ("cppo", "1")
    assert state.is_bad([seen]) == (expected in ("failed", "lost"))


def test_the_command(tmp_path, monkeypatch, capsys):
    made(tmp_path, "failed", reason="ValueError: no")
    monkeypatch.setattr(state, "look_up", lambda ids: {})
    assert command.main(["status", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "1 runs: 1 failed" in printed and "ValueError: no" in printed and "0/28" in printed
    assert command.main(["status", str(tmp_path), "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "failed" and row["job_id"] == "7_0" and row["job_state"] is None and row["steps"] == 28


@pytest.mark.parametrize("damage", [{"jobid": "7_0"}, {"job_id": None}, {"job_id": "x_0"}])
def test_a_damaged_record_hides_no_other_run(damage, tmp_path, monkeypatch):
    good, bad = made(tmp_path / "good"), made(tmp_path / "bad", "failed", reason="E")
    write_json(bad.path / "slurm.json", {"jobs_folder": "", "overrides": [], "cwd": "", "submitted": EARLY} | damage)
    answer(monkeypatch, squeue="7_0|PENDING|Priority||0:00")
    assert [run.state for run in state.look([bad, good])] == ["failed", "pending"]


def test_a_status_without_its_time(tmp_path, monkeypatch):
    folder = made(tmp_path, "failed", reason="E")
    write_json(folder.path / "status.json", {"state": "failed"})
    monkeypatch.setattr(state, "look_up", lambda ids: {})
    assert [run.state for run in state.look([folder])] == ["lost"]


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="no runs in"):
        command.main(["status", str(tmp_path)])
    with pytest.raises(ValueError, match="is not a folder"):
        command.main(["status", str(tmp_path / "nowhere")])


def answer(monkeypatch, **outputs):
    def call(*words):
        if isinstance(outputs.get(words[0]), Exception):
            raise outputs[words[0]]
        return outputs.get(words[0], "")

    monkeypatch.setattr(scheduler, "call", call)
    monkeypatch.setattr(scheduler, "available", lambda: True)


def test_squeue_first_then_sacct(monkeypatch):
    answer(
        monkeypatch,
        squeue="7_0|RUNNING|None|n1|1:05\n7_1|PENDING|Resources||0:00\n",
        sacct="a banner\n\n7_2|CANCELLED by 0|n1\n7_0|COMPLETED|n2\n8|FAILED|n1\n7_3|RUNNING|n1\n",
    )
    found = scheduler.look_up(["7_0", "7_1", "7_2", "7_3", "9"])  # accounts have missed the end of 7_3
    assert found == {"7_0": Job("RUNNING", "", "n1", 65), "7_1": Job("PENDING", "Resources"), "7_2": Job("CANCELLED", "", "n1")}


def test_without_accounting(monkeypatch):
    disabled = scheduler.SchedulerError("sacct: Slurm accounting storage is disabled")
    answer(monkeypatch, squeue=scheduler.SchedulerError("squeue: Invalid job id specified"), sacct=disabled)
    assert scheduler.look_up(["7"]) == {}


def test_a_controller_that_is_down_is_no_lost_job(monkeypatch):
    answer(monkeypatch, squeue=scheduler.SchedulerError("squeue: Unable to contact slurm controller"))
    with pytest.raises(scheduler.SchedulerError, match="controller"):
        scheduler.look_up(["7"])


def test_no_slurm_at_all(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert scheduler.look_up(["7"]) == {}


def test_status_needs_no_torch():
    import subprocess
    import sys

    code = "import sys, slurm.__main__, slurm.requeue; assert not {'torch', 'omegaconf', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
