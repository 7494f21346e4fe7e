"""Who owns a run folder: one process, whatever clocks and hosts do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

import harness.lock as lock_module
from harness.files import read_json
from harness.lock import RunLock, me
from harness.runs.attempt import BUSY, StopRequest, attempt

OTHER = {"host": "another", "namespace": "pid:[1]", "pid": 1, "born": "1"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "lock.json"


@pytest.fixture(autouse=True)
def quick_heartbeats(monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)


def write(path, **lock):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lock))


def make_old(path, seconds: float):
    os.utime(path, (time.time() - seconds,) * 2)


def test_one_owner_at_a_time(path):
    first, second = RunLock(path), RunLock(path)
    assert first.acquire() and not second.acquire()
    assert second.owner()["pid"] == os.getpid()
    first.release()
    assert second.acquire()
    second.release()
    assert not path.exists()


def test_of_many_at_once_one_gets_it(path):
    script = "import sys; from pathlib import Path; from harness.lock import RunLock; "
    script += "got = RunLock(Path(sys.argv[1])).acquire(); print(int(got), flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    rivals = [subprocess.Popen([sys.executable, "-c", script, str(path)], **pipes) for _ in range(4)]
    answers = [rival.stdout.readline().strip() for rival in rivals]
    for rival in rivals:
        rival.communicate("")
    assert sorted(answers) == ["0", "0", "0", "1"]


def test_a_dead_process_of_this_host_loses_it_at_once(path):
    script = "import os, sys; from pathlib import Path; from harness.lock import RunLock; "
    script += "RunLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(path)])
    assert path.exists() and RunLock(path).owner() is None
    lock = RunLock(path)
    assert lock.acquire() and lock.previous["pid"] != os.getpid()
    lock.release()


def test_a_reused_pid_is_not_taken_for_the_owner(path):
    write(path, **me() | {"born": "1"})
    assert RunLock(path).owner() is None


def test_another_host_with_a_young_heartbeat_keeps_it(path):
    write(path, **OTHER)
    assert not RunLock(path).acquire()


def test_a_container_with_this_host_name_is_another_host(path):
    write(path, **me() | {"namespace": "pid:[1]"})
    assert not RunLock(path).acquire()


@pytest.mark.parametrize("age", [3600, -3600])
def test_a_silent_lock_of_another_host_is_taken_over_whatever_its_clock(path, age):
    write(path, **OTHER)
    make_old(path, age)
    lock = RunLock(path)
    assert lock.acquire() and lock.previous["host"] == "another"
    lock.release()


@pytest.mark.parametrize("age", [3600, -3600])
def test_a_lock_that_looks_old_but_beats_is_left_alone(path, age):
    """The clock of this host, or of the other, has jumped."""
    write(path, **OTHER)
    make_old(path, age)
    timer = threading.Timer(0.05, lambda: (write(path, **OTHER, seconds=1.0), make_old(path, age + 1)))
    timer.start()
    assert not RunLock(path).acquire()
    timer.join()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": "a'])
def test_a_torn_lock_belongs_to_nobody(path, content):
    path.parent.mkdir(parents=True)
    path.write_text(content)
    lock = RunLock(path)
    assert lock.acquire()
    lock.release()


def test_the_heartbeat_counts_by_a_clock_that_does_not_jump(path, monkeypatch):
    lock = RunLock(path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert lock.acquire()
    deadline = time.monotonic() + 5
    while not (read_json(path) or {}).get("seconds") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert read_json(path)["seconds"] > 0
    lock.release()


def test_who_lost_the_folder_writes_no_more_and_removes_nothing(path):
    lock = RunLock(path)
    assert lock.acquire()
    lock.require()
    write(path, **OTHER)
    time.sleep(0.2)  # some heartbeats: they must not claim the other's lock
    assert read_json(path) == OTHER
    with pytest.raises(RuntimeError, match="taken over"):
        lock.require()
    lock.release()
    assert path.exists()


def test_a_folder_that_was_removed_is_not_called_taken(path):
    lock = RunLock(path)
    assert lock.acquire()
    shutil.rmtree(path.parent)
    with pytest.raises(RuntimeError, match=f"{path.parent} was moved or removed: its lock.json is gone"):
        lock.require()
    lock.release()
    assert not path.parent.exists()


def test_a_host_name_that_changes_meanwhile_loses_nothing(path, monkeypatch):
    lock = RunLock(path)
    assert lock.acquire()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-network")
    lock.require()
    lock.release()
    assert not path.exists()


def test_a_run_that_is_owned_is_busy(tiny_plan, tmp_path):
    plan = tiny_plan(tmp_path)
    write(plan.folder.path / "lock.json", **OTHER)
    assert attempt(plan, lambda plan, stop: pytest.fail("must not train"), StopRequest()) == BUSY
    assert plan.folder.read_status() is None


def test_a_run_finished_by_another_while_we_waited_is_not_run_again(tiny_plan, tmp_path, monkeypatch):
    plan = tiny_plan(tmp_path)
    acquire = RunLock.acquire

    def late(self):
        plan.folder.update_status(state="completed")
        return acquire(self)

    monkeypatch.setattr(RunLock, "acquire", late)
    assert attempt(plan, lambda plan, stop: pytest.fail("must not train"), StopRequest()) == "completed"


@pytest.mark.parametrize("before", ["evaluate", "record"])
def test_a_run_taken_over_while_it_slept_writes_no_more(tiny_plan, tiny_train, tmp_path, monkeypatch, before):
    from harness.parts import Parts

    plan = tiny_plan(tmp_path)
    write_next = getattr(Parts, before)

    def taken_over(self, *arguments):
        with plan.folder.lock._guard():  # as whoever takes a folder over does, between two heartbeats
            write(plan.folder.path / "lock.json", **OTHER)
        plan.folder.update_status(host="another")
        write_next(self, *arguments)

    monkeypatch.setattr(Parts, before, taken_over)
    with pytest.raises(RuntimeError, match="taken over"):
        attempt(plan, tiny_train, StopRequest())
    assert plan.folder.rows("metrics") == [] and bool(plan.folder.rows("evals")) == (before == "record")
    assert plan.folder.read_status()["state"] == "running" and plan.folder.read_status()["host"] == "another"
