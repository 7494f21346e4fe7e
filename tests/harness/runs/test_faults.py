"""Faults in the middle of a run: each ends in a clear message, loses nothing acknowledged, and the same command resumes."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import harness.files as files
import harness.runs.checkpoint as checkpoint
from harness.learning.learner import Learner
from harness.lock import me
from harness.parts import Parts
from harness.rollout.decode import TransformersEngine
from harness.runs.attempt import StopRequest, attempt, log_file
from harness.store import find_runs

QUICK = ("train.steps=4", "train.prompts_per_step=2", "eval.every=2", "eval.max_response_length=6", "checkpoint.every=1")


class FullDisk:
    """Stands in for every way in which a run's bytes reach the disk; the n-th call and all after it fail half-way."""

    def __init__(self, patch: pytest.MonkeyPatch, allowed: int):
        self.allowed, self.calls = allowed, 0
        put, write_tensors, replace = files.put, checkpoint.write_tensors, os.replace

        def full_put(file, data):
            if self.is_full():
                file.write(data[: len(data) // 2])
                file.flush()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            put(file, data)

        def full_write(path, tensors):
            if self.is_full():
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write_tensors(path, tensors)

        def full_replace(source, target):
            if self.is_full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        patch.setattr(files, "put", full_put)
        patch.setattr(checkpoint, "write_tensors", full_write)
        patch.setattr(os, "replace", full_replace)

    def is_full(self) -> bool:
        self.calls += 1
        return self.calls > self.allowed


def acknowledged(folder) -> tuple:
    """What a reader could have seen: steps with metrics, evaluated steps, the newest whole checkpoint."""
    found = checkpoint.load_checkpoint(folder.path / "checkpoints")
    evaluated = {(row["step"], row["problem_id"]) for row in folder.rows("evals")}
    return {row["step"] for row in folder.rows("metrics")}, evaluated, found.step if found else 0


def test_a_disk_that_fills_at_any_write(tiny_plan, tiny_train, undisturbed, faults, tmp_path):
    """Attempt n on one folder fails at its n-th write, until one gets through."""
    plan, allowed, state, before = tiny_plan(tmp_path), 0, None, (set(), set(), 0)
    while state != "completed":
        with pytest.MonkeyPatch.context() as patch:
            FullDisk(patch, allowed)
            try:
                state = attempt(plan, tiny_train, StopRequest())
            except files.WriteError as error:
                assert str(tmp_path) in str(error) and "No space left on device" in str(error)
                assert "free some space" in str(error) and "same command again" in str(error)
        after = acknowledged(plan.folder)
        assert all(was <= now for was, now in zip(before, after, strict=True)), allowed
        assert not (plan.folder.path / "lock.json").exists()
        before, allowed = after, allowed + 1
    assert allowed > 15
    assert faults.differences(undisturbed, plan.folder) == []


@pytest.mark.parametrize(
    "number, remedy",
    [(errno.EROFS, "choose another runs_dir"), (errno.EACCES, "choose another runs_dir"), (errno.EFBIG, "ulimit -f")],
)
def test_a_folder_that_takes_no_files(tiny_plan, tiny_train, tmp_path, monkeypatch, number, remedy):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    plan = tiny_plan(tmp_path)
    monkeypatch.setattr(files, "put", refuse)
    with pytest.raises(files.WriteError, match=f"{tmp_path}.*{remedy}"):
        attempt(plan, tiny_train, StopRequest())


class Broken(Exception):
    pass


def fail_at(step: int, method):
    """The method, failing once when it is called with this step."""
    failed = []

    def wrapped(self, at, *rest):
        if at == step and not failed:
            failed.append(at)
            raise Broken("the grader died")
        return method(self, at, *rest)

    return wrapped


def test_a_grader_that_dies_stops_the_run_with_the_reason_and_the_run_resumes(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, monkeypatch
):
    plan = tiny_plan(tmp_path)
    monkeypatch.setattr(Parts, "evaluate", fail_at(2, Parts.evaluate))
    with pytest.raises(Broken):
        attempt(plan, tiny_train, StopRequest())
    status = plan.folder.read_status()
    assert (status["state"], status["reason"], status["step"]) == ("failed", "Broken: the grader died", 1)
    assert "the grader died" in (plan.folder.path / "logs" / "attempt_1.traceback.txt").read_text()
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert plan.folder.read_status()["attempts"] == 2
    assert faults.differences(undisturbed, plan.folder) == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_names_the_settings_to_lower(tiny_plan, tmp_path, error):
    def train(plan, stop):
        raise error

    with pytest.raises(type(error)):
        attempt(tiny_plan(tmp_path), train, StopRequest())
    assert "lower train.token_budget" in tiny_plan(tmp_path).folder.read_status()["reason"]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_request_to_stop_saves_a_checkpoint_and_the_rest_is_as_if_nothing_happened(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, stop_after
):
    plan = tiny_plan(tmp_path, "checkpoint.every=100")
    stop = StopRequest(lambda: plan.folder.last_step() == stop_after)
    assert attempt(plan, tiny_train, stop) == "preempted"
    status = plan.folder.read_status()
    assert (status["state"], status["step"]) == ("preempted", stop_after) and "launcher" in status["reason"]
    assert checkpoint.complete_steps(plan.folder.path / "checkpoints") == [stop_after]
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert faults.differences(undisturbed, plan.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_become_requests_and_a_second_ctrl_c_interrupts(number):
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = StopRequest()
        stop.listen()
        assert not stop()
        signal.raise_signal(number)
        assert stop() and stop.why == signal.Signals(number).name
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def test_stopped_before_it_began_it_evaluates_nothing(tiny_plan, tiny_train, tmp_path):
    plan = tiny_plan(tmp_path)
    assert attempt(plan, tiny_train, StopRequest(lambda: True)) == "preempted"
    assert plan.folder.rows("evals") == []


def test_warnings_stay_on_the_console(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a user's process; pytest has some
    with log_file(tmp_path / "attempt_1.log"):
        logging.getLogger("harness.rollout").warning("beyond the gate")
        logging.getLogger("harness.rollout").info("resuming")
    assert capfd.readouterr().err == "beyond the gate\n"
    assert "beyond the gate" in (tmp_path / "attempt_1.log").read_text()


def test_sigterm_in_a_real_process_ends_preempted_with_a_checkpoint(faults, tmp_path):
    root = Path(faults.__file__).parents[1]
    words = ["method=dppo", f"runs_dir={tmp_path}", *QUICK, "train.steps=1000", "eval.benchmarks=[chain4]"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "harness", *words], cwd=root, **quiet)
    while process.poll() is None and not list(tmp_path.rglob("metrics.jsonl")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 1
    [run] = find_runs(tmp_path)
    status = run.read_status()
    assert (status["state"], status["reason"]) == ("preempted", "stopped before its last step (SIGTERM)")
    assert checkpoint.complete_steps(run.path / "checkpoints")[-1] == status["step"] == run.last_step()


def test_an_interrupt_in_the_middle_of_a_step_is_preempted_and_resumes(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, monkeypatch
):
    plan = tiny_plan(tmp_path)
    save = Parts.save

    def interrupted(self, step):
        if step == 2:
            raise KeyboardInterrupt
        save(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt(plan, tiny_train, StopRequest())
    assert plan.folder.read_status()["state"] == "preempted"
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert faults.differences(undisturbed, plan.folder) == []


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped_counted_and_marked(tiny_plan, tiny_train, tmp_path, monkeypatch, broken, what):
    backward = Learner.backward

    def poisoned(self, decided, logprobs, totals):
        loss = backward(self, decided, logprobs, totals)
        if self.num_updates != 3:
            return loss
        if what == "loss":
            return broken
        next(self.model.parameters()).grad.fill_(broken)
        return loss

    plan = tiny_plan(tmp_path, "method=dppo")
    monkeypatch.setattr(Learner, "backward", poisoned)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    rows, status = plan.folder.rows("metrics"), plan.folder.read_status()
    assert [row["health/updates_skipped"] for row in rows] == [0, 1, 0]
    assert rows[1]["actor/pg_loss" if what == "loss" else "actor/grad_norm"] is None
    assert (status["collapse_step"], status["collapse_reason"]) == (2, "loss or gradient not finite")
    saved = checkpoint.load_checkpoint(plan.folder.path / "checkpoints")
    assert all(tensor.isfinite().all() for tensor in saved.model.values())


@pytest.mark.parametrize("on_collapse, state, steps", [("mark", "completed", 3), ("stop", "collapsed", 1)])
def test_rollout_logprobs_that_are_not_finite_are_left_out_and_the_collapse_rule_decides(
    tiny_plan, tiny_train, tmp_path, monkeypatch, on_collapse, state, steps
):
    generate = TransformersEngine.generate

    def poisoned(self, prompts, seeds, sampling):
        rollout = generate(self, prompts, seeds, sampling)
        if sampling.top_k and self.version == 0:
            rollout.logprobs[5, 3] = float("nan")
        return rollout

    plan = tiny_plan(tmp_path, f"train.on_collapse={on_collapse}")
    monkeypatch.setattr(TransformersEngine, "generate", poisoned)
    assert attempt(plan, tiny_train, StopRequest()) == state
    rows, status = plan.folder.rows("metrics"), plan.folder.read_status()
    assert len(rows) == steps
    assert [row["health/nonfinite_rollout"] for row in rows] == [1, 0, 0][:steps]
    assert rows[0]["health/updates_skipped"] == 0 and rows[0]["actor/grad_norm"] > 0
    assert (status["collapse_step"], status["collapse_reason"]) == (1, "rollout log-probs not finite")
    assert attempt(plan, tiny_train, StopRequest()) == state, "a finished run stays as it is"


def test_a_step_without_any_finite_rollout_learns_nothing_and_the_run_goes_on(tiny_plan, tiny_train, tmp_path, monkeypatch):
    generate = TransformersEngine.generate

    def poisoned(self, prompts, seeds, sampling):
        rollout = generate(self, prompts, seeds, sampling)
        if sampling.top_k and self.version == 0:
            rollout.logprobs.fill_(float("inf"))
        return rollout

    plan = tiny_plan(tmp_path)
    monkeypatch.setattr(TransformersEngine, "generate", poisoned)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    rows = plan.folder.rows("metrics")
    assert [row["health/nonfinite_rollout"] for row in rows] == [24, 24, 24], "no update, so no new version either"
    assert [row["cost/learned_tokens"] for row in rows] == [0, 0, 0]
    assert rows[0]["mismatch/k3"] is None and "staleness/versions" not in rows[0]
    assert plan.folder.read_status()["collapse_step"] == 1


def test_a_run_killed_after_it_had_collapsed_does_not_go_on(tiny_plan, tiny_train, tmp_path, monkeypatch):
    plan = tiny_plan(tmp_path, "train.on_collapse=stop", "train.collapse.truncated_share=0.5")
    assert attempt(plan, tiny_train, StopRequest()) == "collapsed"
    plan.folder.update_status(state="running")  # as if the kill had come before the last status
    assert attempt(plan, tiny_train, StopRequest()) == "collapsed"
    assert [row["step"] for row in plan.folder.rows("metrics")] == [1]


@pytest.mark.parametrize("what", ["model.safetensors", "optimizer.safetensors", "queue.0.safetensors", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, what, how, caplog
):
    plan = tiny_plan(tmp_path)
    attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2))
    path = plan.folder.path / "checkpoints" / "step=2" / what
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if how == "cut" else data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    if (what, how) != ("manifest.json", "gone"):
        assert checkpoint.load_checkpoint(path.parents[1]).step == 1
        assert "step=2" in caplog.text and "damaged" in caplog.text
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert faults.differences(undisturbed, plan.folder) == []


@pytest.mark.parametrize("name", ["metrics", "evals"])
@pytest.mark.parametrize("lost", ["a line", "the file"])
def test_no_run_goes_on_from_a_checkpoint_whose_rows_are_lost(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, name, lost
):
    plan = tiny_plan(tmp_path)
    attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2))
    path = plan.folder.path / f"{name}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(["\x00 \n", *lines[1:]]) if lost == "a line" else "")
    with pytest.raises(ValueError, match=r"rows of step [01] are lost.*step 2 stands on them.*or remove checkpoints/step=N"):
        attempt(plan, tiny_train, StopRequest())
    assert plan.folder.state == "failed"
    for step in (1, 2):
        shutil.rmtree(plan.folder.path / "checkpoints" / f"step={step}")
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert faults.differences(undisturbed, plan.folder) == []


def test_a_config_that_was_changed_is_named_and_written_again(tiny_plan, tiny_train, undisturbed, faults, tmp_path):
    plan = tiny_plan(tmp_path)
    attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2))
    path = plan.folder.path / "config.json"
    path.write_text(path.read_text().replace('"every": 2', '"every": 3'))
    with pytest.raises(ValueError, match=r"config.json was changed.*remove it"):
        attempt(plan, tiny_train, StopRequest())
    path.unlink()
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert faults.differences(undisturbed, plan.folder) == []


def test_a_checkpoint_of_another_run_is_not_taken(tiny_plan, tiny_train, undisturbed, faults, tmp_path, caplog):
    other, plan = tiny_plan(tmp_path / "other", "seed=2"), tiny_plan(tmp_path)
    for each in (other, plan):
        attempt(each, tiny_train, StopRequest(lambda each=each: each.folder.last_step() == 2))
    newest = plan.folder.path / "checkpoints" / "step=2"
    shutil.rmtree(newest)
    shutil.copytree(other.folder.path / "checkpoints" / "step=2", newest)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert "it is a checkpoint of another run" in caplog.text
    assert faults.differences(undisturbed, plan.folder) == []


def test_a_status_of_nonsense_does_not_stop_a_resume(tiny_plan, tiny_train, undisturbed, faults, tmp_path):
    plan = tiny_plan(tmp_path)
    attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2))
    plan.folder.update_status(attempts="x", seconds="x", device_hours=[], ranks=None)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert plan.folder.read_status()["attempts"] == 2 and faults.differences(undisturbed, plan.folder) == []


def test_half_a_line_at_the_end_of_every_file_and_an_empty_status(tiny_plan, tiny_train, undisturbed, faults, tmp_path):
    plan = tiny_plan(tmp_path)
    attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2))
    for name in ("metrics", "evals"):
        path = plan.folder.path / f"{name}.jsonl"
        path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[0][:30])
    (plan.folder.path / "status.json").write_text("")
    samples = plan.folder.path / "samples" / "step=2.jsonl.gz"
    samples.with_name(".step=2.jsonl.gz.1.tmp").write_bytes(samples.read_bytes()[:10])
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert plan.folder.read_status()["attempts"] == 2
    assert faults.differences(undisturbed, plan.folder) == []
    assert all(json.loads(line) for line in gzip.decompress(samples.read_bytes()).splitlines())


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_changes_nothing_but_the_written_times(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, monkeypatch, jump
):
    plan, clock = tiny_plan(tmp_path), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jump * len(plan.folder.rows("metrics")))
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert 0 < plan.folder.read_status()["seconds"] < 600
    assert faults.differences(undisturbed, plan.folder) == []


def test_the_seconds_of_a_killed_attempt_are_counted(tiny_plan, tiny_train, tmp_path):
    plan = tiny_plan(tmp_path)
    plan.folder.update_status(state="running", seconds=100.0, attempts=1)
    (plan.folder.path / "lock.json").write_text(json.dumps(me() | {"born": "0", "seconds": 50.0}))
    attempt(plan, tiny_train, StopRequest())
    assert 150 < plan.folder.read_status()["seconds"] < 300


@pytest.mark.parametrize(
    "changes",
    [
        ("seed=1",),
        ("tracker=wandb",),
        ("eval.every=1", "eval.n=2"),
        ("eval.every=3",),
        ("record.samples=false",),
        ("record.shadow_every=1", "record.batches_every=1"),
        ("record.shadow_every=0", "record.batches_every=0"),
        ("checkpoint.every=100",),
    ],
)
def test_what_is_watched_or_kept_does_not_change_training(
    tiny_plan, tiny_train, undisturbed, faults, tmp_path, monkeypatch, changes
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    plan = tiny_plan(tmp_path, *changes)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    rows = [faults.without_times(row) for row in plan.folder.rows("metrics")]
    assert json.dumps(rows) == json.dumps([faults.without_times(row) for row in undisturbed.rows("metrics")])
    assert faults.last_checkpoint(plan.folder)["files"] == faults.last_checkpoint(undisturbed)["files"]


def test_the_status_says_what_determinism_depends_on(undisturbed):
    status = undisturbed.read_status()
    assert status["cpu"] and status["threads"] == 1 and status["versions"]["torch"] == torch.__version__
    assert status["host"] and status["command"] and status["data_fingerprints"] and status["cores"] == os.cpu_count()
    log = files.read_json(undisturbed.path / "logs" / "attempt_1.json")
    assert (log["number"], log["state"], log["step"]) == (1, "completed", 3) and log["command"] == status["command"]


@pytest.mark.slow
def test_a_short_kill_campaign(faults, tmp_path):
    words = ["--kills", "6", "--methods", "dppo", "--seeds", "1", "--folder", str(tmp_path), *QUICK, "cluster=debug"]
    root, environment = Path(faults.__file__).parents[1], {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.faults", *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 kills" in done.stdout and "as in the undisturbed sweep" in done.stdout


def test_two_identical_sweeps_at_once_share_the_work(faults, tmp_path):
    root, environment = Path(faults.__file__).parents[1], {**os.environ, "OMP_NUM_THREADS": "1"}
    words = faults.command("dppo,grpo", "1", tmp_path, [*QUICK, "cluster=debug"])
    sweeps = [subprocess.Popen(words, cwd=root, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    for sweep in sweeps:
        sweep.wait()
    runs = list(find_runs(tmp_path))
    statuses = [run.read_status() for run in runs]
    assert sorted((status["method"], status["state"], status["attempts"]) for status in statuses) == [
        ("dppo", "completed", 1),
        ("grpo", "completed", 1),
    ]
    for run in runs:
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4], "no step was trained twice"
