"""Sweeps on this machine, through the real command and real worker processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import submitit

from harness.display import Display
from harness.files import WriteError, write_json
from harness.settings.compose import compose_plan
from harness.store import RunFolder, find_runs
from slurm.local import fewest_deaths_first, run_in_workers


def states(root) -> dict[str, str]:
    return {folder.path.parent.name: folder.state for folder in find_runs(root)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, run_harness):
    """Two good rules and one that fails as soon as it runs: it asks for the whole vocabulary, of which 5 ids are recorded."""
    root = tmp_path_factory.mktemp("sweep")
    (root / "conf" / "method").mkdir(parents=True)
    (root / "conf" / "method" / "broken.yaml").write_text("defaults: [dppo, _self_]\ndivergence: full_tv\n")
    arguments = ["--config-dir", str(root / "conf"), "-m", "method=broken,grpo,pg_is", f"runs_dir={root}/runs", "rollout.top_k=5"]
    return root, arguments, run_harness(*arguments)


def test_one_failing_run_stops_no_other(sweep):
    root, _, result = sweep
    assert states(root / "runs") == {"broken": "failed", "grpo": "completed", "pg_is": "completed"}, result.stderr
    assert result.returncode == 1
    assert "2 of 3 runs done" in result.stdout and "full_tv needs all 19 ids" in result.stdout


def test_a_failed_run_keeps_its_traceback(sweep):
    root, _, _ = sweep
    folder = next(folder for folder in find_runs(root / "runs") if folder.state == "failed")
    assert "ValueError: full_tv needs all" in (folder.path / "logs" / "attempt_1.traceback.txt").read_text()
    assert folder.read_status()["attempts"] == 1


def test_rows_are_as_the_design_says(sweep):
    root, _, _ = sweep
    folder = next(folder for folder in find_runs(root / "runs") if folder.path.parent.name == "grpo")
    metrics, evals, status = folder.rows("metrics"), folder.rows("evals"), folder.read_status()
    assert [row["step"] for row in metrics] == [1, 2]
    assert {"reward/mean", "trust/mask_frac", "time/rollout", "mismatch/k3", "trust/div_mean", "cost/response_tokens"} <= set(
        metrics[0]
    )
    assert [row["step"] for row in evals] == [0] * 256 + [2] * 256
    assert set(evals[0]) >= {"step", "benchmark", "problem_id", "n", "num_correct", "num_no_answer", "num_truncated", "grader"}
    keys = (
        "state step reason attempts run_id method preset model experiment seed settings_fingerprint config_hash started updated "
    )
    keys += "ended host pid slurm_job_id git_sha git_dirty versions data_fingerprints seconds device_hours collapse_step"
    assert set(keys.split()) <= set(status)
    assert status["step"] == 2 and status["seconds"] > 0


def test_typed_again_it_runs_only_what_is_not_done(sweep, run_harness):
    root, arguments, _ = sweep
    good = [argument.replace("broken,", "") for argument in arguments]
    contents = lambda: {path: path.read_bytes() for path in (root / "runs").rglob("*.jsonl")}
    before = contents()
    result = run_harness(*good)
    assert result.returncode == 0 and "All 2 runs are done" in result.stdout
    assert before and contents() == before


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"


TWO_RUNS = ["-m", "method=grpo", "seed=1,2", "train.prompts_per_step=2", "train.group_size=4", "train.steps=10"]
TWO_RUNS += ["eval.benchmarks=[chain4]", "eval.every=100"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, run_harness):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_harness(*TWO_RUNS, f"runs_dir={folder}", tiny=False).returncode == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_half_way_it_resumes_to_the_same_result(tmp_path, number, run_harness, undisturbed):
    """Ctrl-C reaches the whole process group; SIGKILL the launcher alone, whose workers must then stop by themselves."""
    command = [sys.executable, "-m", "harness", *TWO_RUNS]
    process = subprocess.Popen([*command, f"runs_dir={tmp_path}/a"], start_new_session=True, stdout=-3, stderr=-3)
    wait_for(
        lambda: sum(folder.last_step() >= 2 for folder in find_runs(tmp_path / "a")) >= 1 if (tmp_path / "a").exists() else False
    )
    pids = [status["pid"] for folder in find_runs(tmp_path / "a") if (status := folder.read_status())]
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    process.wait(60)
    wait_for(lambda: not any(alive(pid) for pid in pids), 30)
    stopped = [folder.read_status() for folder in find_runs(tmp_path / "a")]
    assert all(status["state"] == "preempted" and status["step"] < 10 for status in stopped), stopped

    resumed = run_harness(*TWO_RUNS, f"runs_dir={tmp_path}/a", tiny=False)
    assert resumed.returncode == 0, resumed.stderr
    for one, other in zip(find_runs(tmp_path / "a"), find_runs(undisturbed), strict=True):
        assert without_times(one.rows("metrics")) == without_times(other.rows("metrics"))
        assert one.rows("evals") == other.rows("evals")


def test_a_second_ctrl_c_ends_in_one_line(tmp_path):
    command = [sys.executable, "-m", "harness", *TWO_RUNS, "train.steps=1000", f"runs_dir={tmp_path}"]
    process = subprocess.Popen(command, start_new_session=True, stdout=-3, stderr=subprocess.PIPE, text=True)
    for awaited in (" running ", "Ctrl-C again"):
        assert any(awaited in line for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and rest.splitlines()[-1] == "stopped: the same command goes on from here"
    assert "Traceback" not in rest


def without_times(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def test_a_single_run_needs_no_launcher(tmp_path, run_harness):
    result = run_harness("method=dppo", f"runs_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert states(tmp_path) == {"dppo": "completed"} and "1 of 1 runs done" in result.stdout
    assert json.loads(result.stdout and (next(find_runs(tmp_path)).path / "config.json").read_text())["rule"] == "dppo"


def test_a_terminal_that_lacks_a_letter(tmp_path, run_harness):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = run_harness("method=dppo", f"runs_dir={tmp_path}/zoë", "harness.dry_run=true", env=env)
    assert result.returncode == 0 and r"/zo\xeb/default" in result.stdout, result.stderr


def test_a_folder_that_another_process_owns_is_left_alone(tmp_path, run_harness):
    result = run_harness("method=dppo", f"runs_dir={tmp_path}", "harness.dry_run=true")
    path = next(word for word in result.stdout.split() if word.startswith(str(tmp_path)))
    folder = RunFolder(__import__("pathlib").Path(path))
    assert folder.lock.acquire()
    try:
        result = run_harness("method=dppo", f"runs_dir={tmp_path}")
        assert result.returncode == 1 and not (folder.path / "metrics.jsonl").exists()
    finally:
        folder.lock.release()


def test_a_disk_too_full_for_a_worker_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plan = compose_plan([f"runs_dir={tmp_path}", "method=grpo"])
    monkeypatch.setattr(submitit.LocalExecutor, "submit", full)
    with pytest.raises(WriteError, match=f"{tmp_path}/.jobs.*free some space there, then give the same command again"):
        run_in_workers([plan], [[]], Display([plan], "none"))


def test_a_run_that_kills_its_workers_is_taken_last(tmp_path):
    plans = [compose_plan([f"runs_dir={tmp_path}", "method=grpo", f"seed={seed}"]) for seed in (1, 2, 3)]
    for number, state in ((1, "running"), (2, "running")):
        write_json(plans[0].folder.path / "logs" / f"attempt_{number}.json", {"number": number, "state": state})
    write_json(plans[1].folder.path / "logs" / "attempt_1.json", {"number": 1, "state": "preempted"})
    assert fewest_deaths_first(plans) == [1, 2, 0]
