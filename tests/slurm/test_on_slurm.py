"""On a real SLURM of two nodes (tests/slurm/cluster.py): what happens to jobs, and that no run loses or changes a number.

Runs are held (SIGSTOP) at a step while a fault comes over them, so that few steps and little computing are enough.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from harness.store import RunFolder, find_runs
from slurm import scheduler
from slurm.record import find_folders, read_submission

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).parents[2]
ON_SLURM = ("cluster=slurm", "cluster.cpus_per_task=1", "harness.display=none")
SMALL = ("train.prompts_per_step=4", "train.group_size=4", "train.updates_per_step=2", "rollout.lag=1", "record.shadow_every=0")
SHORT_EVAL = ("eval.benchmarks=[chain4]", "eval.max_response_length=6", "eval.every=5")
QUICK = (*SMALL, *SHORT_EVAL, "train.steps=3", "checkpoint.every=1")
LONG = (*SMALL, *SHORT_EVAL, "train.steps=12", "checkpoint.every=3")
SEEDS = (1, 2, 3, 4)


def slurm(cluster, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "slurm", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=cluster.env, capture_output=True, text=True, timeout=120)


def status(cluster, runs) -> dict[str, dict]:
    """What `python -m slurm status --json` says, by seed (or method, where seeds are equal)."""
    rows = json.loads(slurm(cluster, "status", runs, "--json").stdout)
    key = "seed" if len({row["seed"] for row in rows}) == len(rows) else "preset"
    return {row[key]: row for row in rows}


def states(cluster, runs) -> dict[str, str]:
    return {name: row["state"] for name, row in status(cluster, runs).items()}


def folder_of(runs, seed: int) -> RunFolder:
    return next(folder for folder in find_folders(runs) if folder.path.name.startswith(f"seed={seed}-"))


def job_of(runs, seed: int) -> str:
    return read_submission(folder_of(runs, seed)).job_id


def attempts(runs, seed: int) -> list[tuple[str, str | None]]:
    return [(one["state"], one.get("signal")) for one in folder_of(runs, seed).attempts()]


@pytest.fixture(scope="module")
def submit(cluster, run_harness):
    def run(*words: str, **options):
        result = run_harness("-m", *words, *ON_SLURM, tiny=False, env=cluster.env, **options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, run_harness):
    """The runs that are disturbed below, trained on this machine without SLURM."""
    runs, seeds = tmp_path_factory.mktemp("undisturbed"), ",".join(map(str, SEEDS))
    result = run_harness("-m", "method=dppo", f"seed={seeds}", f"runs_dir={runs}", *LONG, "harness.display=none", tiny=False)
    assert result.returncode == 0, result.stderr
    return runs


@pytest.fixture
def hold(wait_for):
    """Stop a run's process after its fourth step (its last checkpoint is that of the third). Returns its pid."""

    def stop(runs: Path, seed: int) -> int:
        wait_for(lambda: folder_of(runs, seed).last_step() >= 4, f"step 4 of seed {seed}", 180)
        pid = folder_of(runs, seed).read_status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        return pid

    return stop


def was_sent(pid: int, number: signal.Signals) -> bool:
    """Whether the signal waits for a stopped process to go on; or the process has gone on and ended by now."""
    try:
        lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except FileNotFoundError:
        return True
    return bool(int(lines["ShdPnd"], 16) >> (number - 1) & 1)


def problems(differences, undisturbed: Path, runs: Path) -> list[str]:
    """What differs between the runs there are and their undisturbed twins."""
    pairs = [(RunFolder(undisturbed / run.path.relative_to(runs)), run) for run in find_runs(runs)]
    assert pairs
    return [line for one, other in pairs for line in differences(one, other)]


def all_completed(cluster, runs) -> bool:
    return set(states(cluster, runs).values()) == {"completed"}


def test_a_sweep_is_one_array_and_ends_as_here(cluster, submit, run_harness, tmp_path, differences):
    """The README's sweep, small: submitted and waited for, then the same on this machine without SLURM."""
    sweep = ("method=cppo,dppo,grpo", "seed=1,2,3", *QUICK)
    printed = submit(*sweep, f"runs_dir={tmp_path}/slurm", "cluster.wait=true", "cluster.array_parallelism=3")
    assert "submitted 9 runs as job" in printed and "9 of 9 runs done" in printed
    assert len({read_submission(folder).job_id.partition("_")[0] for folder in find_folders(tmp_path / "slurm")}) == 1
    assert all_completed(cluster, tmp_path / "slurm")
    assert slurm(cluster, "status", tmp_path / "slurm").returncode == 0
    assert "All 9 runs are done" in submit(*sweep, f"runs_dir={tmp_path}/slurm")
    assert "resubmitting 0" in slurm(cluster, "resubmit", tmp_path / "slurm").stdout
    assert run_harness("-m", *sweep, f"runs_dir={tmp_path}/here", tiny=False).returncode == 0
    assert problems(differences, tmp_path / "here", tmp_path / "slurm") == []


def test_faults_change_no_number(undisturbed, cluster, submit, hold, tmp_path, wait_for, differences):
    """scontrol requeue, kill -9, scancel and a preemption's signal, one for each seed; then resubmit."""
    submit("method=dppo", "seed=1,2,3,4", f"runs_dir={tmp_path}", *LONG)
    pids = {seed: hold(tmp_path, seed) for seed in SEEDS}
    assert set(states(cluster, tmp_path).values()) == {"running"}
    assert "is running, not submitted again" in submit("method=dppo", "seed=1", f"runs_dir={tmp_path}", *LONG)

    cluster.check("scontrol", "requeue", job_of(tmp_path, 1))
    os.kill(pids[2], signal.SIGKILL)
    cluster.check("scancel", job_of(tmp_path, 3))
    cluster.check("scancel", "--signal=USR2", job_of(tmp_path, 4))
    os.kill(pids[4], signal.SIGCONT)

    wait_for(lambda: states(cluster, tmp_path)["3"] == "cancelled", "the cancelled run", 60)
    wait_for(lambda: all(len(attempts(tmp_path, seed)) == 2 for seed in (1, 2, 4)), "three second attempts", 120)
    said = slurm(cluster, "resubmit", tmp_path).stdout
    assert "resubmitting 1" in said and str(folder_of(tmp_path, 3).path) in said
    wait_for(lambda: all_completed(cluster, tmp_path), "the end of all", 240)
    assert problems(differences, undisturbed, tmp_path) == []
    assert attempts(tmp_path, 1) == [("preempted", "SIGTERM"), ("completed", None)]
    assert attempts(tmp_path, 2) == [("killed", None), ("completed", None)]
    assert attempts(tmp_path, 3) == [("preempted", "SIGTERM"), ("completed", None)]
    assert attempts(tmp_path, 4) == [("preempted", "SIGUSR2"), ("completed", None)]
    logs = folder_of(tmp_path, 2).path / "logs"
    assert (logs / "attempt_1.out").exists() and "resuming" in (logs / "attempt_2.log").read_text()
    assert "attempt 2: completed" in slurm(cluster, "logs", logs.parent).stdout


def test_time_limit(undisturbed, cluster, submit, hold, tmp_path, wait_for, differences):
    """A real one of a minute: signal, checkpoint, requeue, and the same end as a run that had all the time, byte for byte."""
    limits = ("cluster.timeout_min=1", "cluster.signal_delay_s=25")
    submit("method=dppo", "seed=1", f"runs_dir={tmp_path}", *LONG, *limits)
    pid = hold(tmp_path, 1)
    wait_for(lambda: was_sent(pid, signal.SIGUSR2), "the signal before the time limit", 120)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: states(cluster, tmp_path)["1"] == "pending", "the requeue", 60)
    cluster.check("scontrol", "update", f"JobId={job_of(tmp_path, 1)}", "TimeLimit=60")  # a minute is short on a busy machine
    wait_for(lambda: all_completed(cluster, tmp_path), "the end", 240)
    assert attempts(tmp_path, 1) == [("preempted", "SIGUSR2"), ("completed", None)]
    assert problems(differences, undisturbed, tmp_path) == []


def test_preemption(undisturbed, cluster, submit, hold, tmp_path, wait_for, differences):
    """By a job of a partition above: the run saves, makes room, and goes on afterwards."""
    submit("method=dppo", "seed=2", f"runs_dir={tmp_path}", *LONG)
    hold(tmp_path, 2)  # until the preemption, which SLURM announces with SIGCONT too
    urgent = ["srun", "--partition=urgent", "--nodes=2", "--exclusive", "sleep", "1"]
    other = subprocess.Popen(urgent, env=cluster.env, stdin=-3, stdout=-3, stderr=-3)
    assert other.wait(60) == 0
    wait_for(lambda: all_completed(cluster, tmp_path), "the end", 240)
    assert attempts(tmp_path, 2) == [("preempted", "SIGUSR2"), ("completed", None)]
    assert problems(differences, undisturbed, tmp_path) == []


def test_a_killed_node_and_a_failing_run(undisturbed, cluster, submit, run_harness, hold, tmp_path, wait_for, differences):
    good, bad, method = tmp_path / "good", tmp_path / "bad", tmp_path / "conf" / "method"
    method.mkdir(parents=True)
    (method / "broken.yaml").write_text("defaults: [dppo, _self_]\ndivergence: full_tv\n")
    submit("method=dppo", "seed=1,2", f"runs_dir={good}", *LONG, "+cluster.additional_parameters.nodelist=n1")
    words = ["--config-dir", str(method.parent), "-m", "method=broken,grpo", f"runs_dir={bad}", *QUICK, *ON_SLURM]
    assert run_harness(*words, "rollout.top_k=5", tiny=False, env=cluster.env).returncode == 0

    hold(good, 1), hold(good, 2)
    cluster.kill_node("n1")
    try:
        wait_for(lambda: states(cluster, good) == {"1": "pending", "2": "pending"}, "requeue from the lost node", 120)
        wait_for(lambda: states(cluster, bad) == {"broken": "failed", "grpo": "completed"}, "one to fail twice", 180)
    finally:
        cluster.start_node("n1")
    result = slurm(cluster, "status", bad)
    assert result.returncode == 1 and "1 failed" in result.stdout
    row = status(cluster, bad)["broken"]
    assert row["attempts"] == 2 and "full_tv needs all 19 ids" in row["note"]
    assert "(attempts 1 and 2 ended without a new checkpoint)" in row["note"]
    cluster.check("scontrol", "update", "PartitionName=main", "State=DOWN")  # or the job may fail before it is cancelled
    assert "resubmitting 1" in slurm(cluster, "resubmit", bad).stdout
    assert "cancelled 1 jobs" in slurm(cluster, "cancel", bad).stdout
    wait_for(lambda: states(cluster, bad)["broken"] == "cancelled", "the cancelled job", 60)
    cluster.check("scontrol", "update", "PartitionName=main", "State=UP")

    wait_for(lambda: all_completed(cluster, good), "the end of both", 240)
    told = [state for state, _ in attempts(good, 1)]  # on a busy machine the returning node may end the second attempt too
    assert (told[0], told[-1]) == ("running", "completed"), told
    assert "attempt 1: lost with its node" in slurm(cluster, "logs", folder_of(good, 1).path).stdout
    assert problems(differences, undisturbed, good) == []


@pytest.fixture
def starve():
    """Give a process no more memory than it has and 10 MB, by a control group of the kernel; it kills what asks for more."""
    groups = []

    def limit(pid: int) -> None:
        old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        root, name = (old, "memory.limit_in_bytes") if old.is_dir() else (new, "memory.max")
        group = root / f"harness-test-{pid}"
        try:
            group.mkdir()
            (group / name).write_text(str(10_000_000))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            pytest.skip(f"no control groups of one's own here: {error}")
        groups.append(group)

    yield limit
    for group in groups:
        group.rmdir()


def test_a_run_on_two_nodes(cluster, submit, run_harness, hold, tmp_path, wait_for, differences):
    """One process on each; stopped once on the way. The same as two processes on this machine, byte for byte."""
    words = ("method=dppo", "seed=1", *LONG)
    lo = "cluster.setup=['export GLOO_SOCKET_IFNAME=lo']"
    submit(*words, f"runs_dir={tmp_path}/slurm", "cluster.nodes=2", "cluster.tasks_per_node=1", lo)
    pid = hold(tmp_path / "slurm", 1)
    assert status(cluster, tmp_path / "slurm")["1"]["nodes"] == "n[1-2]"
    cluster.check("scancel", "--signal=USR2", job_of(tmp_path / "slurm", 1))
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: all_completed(cluster, tmp_path / "slurm"), "the end", 240)
    told = attempts(tmp_path / "slurm", 1)
    assert [state for state, _ in told] == ["preempted", "completed"]
    logs = folder_of(tmp_path / "slurm", 1).path / "logs"
    assert {path.name for path in logs.glob("*.out")} >= {"attempt_2.out", "attempt_2.rank1.out"}
    local = ("cluster.ranks=2", "cluster.device=cpu", "harness.display=none", f"runs_dir={tmp_path}/here")
    result = run_harness(*words, *local, tiny=False, env=cluster.env | {"GLOO_SOCKET_IFNAME": "lo"})
    assert result.returncode == 0, result.stderr
    assert problems(differences, tmp_path / "here", tmp_path / "slurm") == []


def test_out_of_memory_twice_is_the_end(cluster, submit, tmp_path, starve, wait_for):
    """The kernel kills it, twice, before it has saved anything."""
    submit("method=dppo", "seed=1", f"runs_dir={tmp_path}", *LONG)
    folder = folder_of(tmp_path, 1)
    for number in (1, 2):
        wait_for(lambda number=number: folder.num_attempts() == number, f"attempt {number}", 60)
        starve(folder.attempts()[number - 1]["pid"])
        wait_for(lambda number=number: folder.attempts()[number - 1]["state"] == "failed", "the kernel to kill it", 60)
    wait_for(lambda: states(cluster, tmp_path)["1"] == "failed", "the verdict", 60)
    note = status(cluster, tmp_path)["1"]["note"]
    assert note.startswith("out of memory") and "cluster.mem_gb" in note and "(attempts 1 and 2 ended" in note
    assert slurm(cluster, "status", tmp_path).returncode == 1


def test_submitted_from_within_a_job(cluster, tmp_path, wait_for):
    """A job of 2 cores and 500 MB submits jobs of 1 core: none of its variables may reach them."""
    words = [sys.executable, "-m", "harness", "-m", "method=dppo,grpo", f"runs_dir={tmp_path}", *QUICK, *ON_SLURM]
    outer = ["srun", "--nodes=1", "--cpus-per-task=2", "--mem=500", "--job-name=outer", *words]
    result = subprocess.run(outer, cwd=ROOT, env=cluster.env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    jobs = [cluster.jobs()[read_submission(folder).job_id] for folder in find_folders(tmp_path)]
    assert [(job["JobName"], job["NumCPUs"], job["NumTasks"]) for job in jobs] == [("harness", "1", "1")] * 2
    assert not any("mem=500" in job["TRES"] for job in jobs)
    wait_for(lambda: all_completed(cluster, tmp_path), "both", 180)
    assert [folder.read_status()["threads"] for folder in find_folders(tmp_path)] == [1, 1]


def cpu_seconds() -> float:
    """Of all commands run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_hundred_runs(cluster, submit, tmp_path):
    """Held, so that none begins. The limits are on seconds of computing: other work on this machine does not count."""
    held = ("+cluster.additional_parameters.hold=true", f"runs_dir={tmp_path}")
    start, computed = time.monotonic(), cpu_seconds()
    printed = submit("method=cppo,dppo", f"seed={','.join(map(str, range(50)))}", *QUICK, *held)
    print(f"100 runs submitted in {time.monotonic() - start:.1f} s, {cpu_seconds() - computed:.1f} s computing")
    assert cpu_seconds() - computed < 15
    assert "submitted 100 runs as job" in printed
    assert {line.split("_")[0] for line in cluster.call("squeue", "-h", "-r", "-o", "%i").split()} == {
        job_of(tmp_path, 7).split("_")[0]
    }
    start, computed = time.monotonic(), cpu_seconds()
    rows = json.loads(slurm(cluster, "status", tmp_path, "--json").stdout)
    print(f"looked at in {time.monotonic() - start:.2f} s, {cpu_seconds() - computed:.2f} s computing")
    assert cpu_seconds() - computed < 2
    assert [(row["state"], row["note"]) for row in rows] == [("pending", "JobHeldUser")] * 100
    assert "cancelled 100 jobs" in slurm(cluster, "cancel", tmp_path).stdout


def test_with_accounting(accounting_cluster, run_harness, tmp_path, wait_for, monkeypatch):
    """Where sacct works, what it remembers is what squeue said before it forgot."""
    cluster = accounting_cluster
    words = ("-m", "method=dppo,grpo", f"runs_dir={tmp_path}", *QUICK, *ON_SLURM)
    assert run_harness(*words, tiny=False, env=cluster.env).returncode == 0
    wait_for(lambda: set(states(cluster, tmp_path).values()) == {"running"}, "both to run", 60)
    jobs = {folder.path.parent.name: read_submission(folder).job_id for folder in find_folders(tmp_path)}
    cluster.check("scancel", jobs["dppo"])
    os.kill(cluster.batch_script(jobs["grpo"]), signal.SIGKILL)
    wait_for(lambda: states(cluster, tmp_path) == {"dppo": "cancelled", "grpo": "lost"}, "the end of both", 120)
    assert slurm(cluster, "status", tmp_path).returncode == 1
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    remembered = lambda: {name: job.state for name, job in scheduler.accounted(set(jobs.values())).items()}
    wait_for(lambda: remembered() == {jobs["dppo"]: "CANCELLED", jobs["grpo"]: "FAILED"}, "the accounts", 60)


def test_a_run_divided_over_two_nodes(cluster, submit, tmp_path, wait_for):
    """Both nodes are this machine, which gloo has to be told."""
    ranks = ("cluster.nodes=2", "cluster.tasks_per_node=1", "cluster.setup=['export GLOO_SOCKET_IFNAME=lo']")
    submit("method=dppo", "seed=1", f"runs_dir={tmp_path}", *QUICK, *ranks)
    wait_for(lambda: all_completed(cluster, tmp_path), "the end of the run", 180)
    assert folder_of(tmp_path, 1).read_status()["ranks"] == 2
