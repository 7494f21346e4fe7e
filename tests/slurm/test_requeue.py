"""The last line of every batch script: whether a run gets another attempt, from how its last one ended."""

import os
import signal

import pytest

from harness.files import write_json
from harness.lock import me
from harness.store import RunFolder
from slurm import requeue

KILLED, SEGFAULT = 128 + signal.SIGKILL, 128 + signal.SIGSEGV


@pytest.fixture(autouse=True)
def job(monkeypatch):
    """Job 7, requeued once already."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def attempt(folder, number, state, checkpoint=0, job="7", restarts=1, **more):
    facts = {"number": number, "state": state, "checkpoint": checkpoint, "slurm_job_id": job, "slurm_restarts": restarts}
    write_json(folder.path / "logs" / f"attempt_{number}.json", facts | {"reason": f"{state} {number}"} | more)
    folder.update_status(state=state, attempts=number, seconds=10.0)


def save(folder, step):
    write_json(folder.path / "checkpoints" / f"step={step}" / "manifest.json", {})


def decide(folder, code=0, out_of_memory=False, **more):
    return requeue.decide(folder, code, out_of_memory, **more)


def test_why_a_run_could_not_begin_is_kept(folder):
    folder.update_status(state="failed", reason="ValueError: model.path", launch="LAUNCH")
    assert decide(folder, 1, launch="LAUNCH").reason == "ValueError: model.path"
    assert folder.read_status()["reason"] == "ValueError: model.path"
    assert "before the run began" not in folder.read_status()["reason"]
    decide(folder, 1, launch="ANOTHER")
    assert "the job ended before the run began" in folder.read_status()["reason"]


@pytest.mark.parametrize("state", ["completed", "collapsed"])
def test_a_finished_run_is_left_alone(folder, state):
    attempt(folder, 1, state)
    assert not decide(folder, KILLED).requeue


def test_a_signal_that_the_run_heard_means_another_attempt(folder):
    for number in (1, 2, 3):
        attempt(folder, number, "preempted", signal="SIGUSR2")
        assert decide(folder).requeue


def test_as_many_signals_as_were_allowed(folder):
    attempt(folder, 1, "preempted", signal="SIGUSR2")
    assert decide(folder, max_signals=1).requeue
    attempt(folder, 2, "preempted", signal="SIGUSR2")
    decision = decide(folder, max_signals=1)
    assert not decision.requeue and "cluster.max_num_timeout=1" in decision.reason


def test_the_same_failure_twice_is_enough(folder):
    attempt(folder, 1, "failed", restarts=0)
    attempt(folder, 2, "failed", reason="ValueError: no")
    decision = decide(folder, 1)
    assert not decision.requeue
    assert folder.read_status()["reason"] == "ValueError: no (attempts 1 and 2 ended without a new checkpoint)"


def test_a_first_failure_gets_another_attempt(folder):
    attempt(folder, 1, "failed")
    assert decide(folder, 1).requeue


def test_failures_with_progress_between_them_go_on(folder):
    attempt(folder, 1, "failed", restarts=0)
    save(folder, 3)
    attempt(folder, 2, "failed", checkpoint=3)
    assert decide(folder, 1).requeue


def test_what_came_from_outside_does_not_count(folder):
    attempt(folder, 1, "failed", restarts=0)
    attempt(folder, 2, "preempted", signal="SIGUSR2")
    attempt(folder, 3, "killed")
    attempt(folder, 4, "running")
    assert decide(folder, KILLED).requeue
    attempt(folder, 5, "failed")
    assert not decide(folder, 1).requeue


def test_failures_of_an_earlier_submission_do_not_count(folder):
    attempt(folder, 1, "failed", job="6")
    attempt(folder, 2, "failed")
    assert decide(folder, 1).requeue


def test_an_attempt_that_was_killed_is_written_down(folder):
    attempt(folder, 1, "running")
    write_json(folder.lock.path, me() | {"pid": 0, "seconds": 30.0})
    assert decide(folder, KILLED).requeue
    (record,) = folder.attempts()
    assert (record["state"], record["reason"]) == ("killed", "killed by SIGKILL") and record["ended"]
    status = folder.read_status()
    assert (status["state"], status["seconds"]) == ("running", 40.0), "what it will be when it goes on"
    assert not folder.lock.path.exists(), "another node need not wait for the lock to grow old"


@pytest.mark.parametrize(
    "code, out_of_memory, word", [(KILLED, True, "memory"), (125, False, "memory"), (SEGFAULT, False, "139")]
)
def test_ends_that_the_run_caused_count(folder, code, out_of_memory, word):
    attempt(folder, 1, "running", restarts=0)
    os.environ["SLURM_RESTART_COUNT"] = "0"
    assert decide(folder, code, out_of_memory).requeue
    os.environ["SLURM_RESTART_COUNT"] = "1"
    attempt(folder, 2, "running")
    assert not decide(folder, code, out_of_memory).requeue
    status = folder.read_status()
    assert status["state"] == "failed" and word in status["reason"] and "attempts 1 and 2" in status["reason"]


def test_a_rank_that_was_killed_is_no_failure_of_the_run(folder):
    """The first rank fails in its wake, and srun returns the highest status of all."""
    for number in (1, 2, 3):
        attempt(folder, number, "failed", reason="RuntimeError: connection closed by peer")
        assert decide(folder, KILLED).requeue
    assert {record["state"] for record in folder.attempts()} == {"killed"}


def test_killed_before_it_began(folder):
    attempt(folder, 1, "preempted", restarts=0)
    assert decide(folder, KILLED).requeue
    assert folder.attempts()[0]["state"] == "preempted"


def test_broken_before_it_began(folder):
    assert not decide(folder, 1).requeue
    assert folder.state == "failed" and "before the run began" in folder.read_status()["reason"]


def test_a_run_that_another_process_works_on_is_not_touched(folder):
    attempt(folder, 1, "running")
    other = RunFolder(folder.path)
    assert other.lock.acquire()
    try:
        decision = decide(folder, KILLED)
        assert not decision.requeue and folder.attempts()[0]["state"] == "running"
    finally:
        other.lock.release()


def test_the_job_ends_as_its_processes_did(folder, tmp_path, monkeypatch):
    attempt(folder, 1, "failed")
    asked = []
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setattr(requeue.scheduler, "requeue", asked.append)
    write_json(tmp_path / "runs.json", {"runs": ["a", "b", str(folder.path)], "max_num_timeout": None})
    assert requeue.main([str(tmp_path / "runs.json"), "3"]) == 3 and asked == ["5_2"]
