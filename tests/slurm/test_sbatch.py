"""The batch script, line by line, and how a sweep becomes arrays. No SLURM needed."""

import shlex
import sys

import pytest

from harness.files import write_json
from harness.settings.compose import compose_plan
from slurm import scheduler
from slurm.job import seconds_to_safe_point, too_short
from slurm.record import Submission
from slurm.submit import batches, live_runs, preview, require_slurm, script

FIRST = ["method=dppo", "cluster=slurm", "cluster.submitit_folder=/jobs"]


def made(*overrides: str, runs: int = 1) -> list[str]:
    """The lines of the script for that many runs; what changes between launches is cut out."""
    plans = [compose_plan([*FIRST, f"seed={seed}", *overrides]) for seed in range(runs)]
    (batch,) = batches(plans, [[]] * runs, max_size=1000)
    return script(batch).replace(batch.folder.name, "LAUNCH").replace(shlex.quote(sys.executable), "python").splitlines()


def test_an_array_line_by_line():
    lines = made("cluster.partition=gpu", "cluster.gpus_per_node=1", "cluster.cpus_per_task=8", "cluster.mem_gb=64", runs=3)
    assert [line for line in lines if line] == [
        "#!/bin/bash",
        "# Parameters",
        "#SBATCH --array=0-2%3",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --error=/jobs/LAUNCH/%A_%a_0_log.err",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --job-name=harness",
        "#SBATCH --mem=65536M",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=/jobs/LAUNCH/%A_%a_0_log.out",
        "#SBATCH --partition=gpu",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@180",
        "#SBATCH --time=240",
        "#SBATCH --wckey=submitit",
        "# setup",
        "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-$((SLURM_CPUS_ON_NODE / 1))}",
        "export MKL_NUM_THREADS=$OMP_NUM_THREADS",
        "export TOKENIZERS_PARALLELISM=false",
        "export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}",
        "export HARNESS_OOM_KILLS=$(awk '/^oom_kill /{print $2}' /proc/vmstat)",
        "# command",
        "export SUBMITIT_EXECUTOR=slurm",
        "srun --unbuffered --output /jobs/LAUNCH/%A_%a_%t_log.out --error /jobs/LAUNCH/%A_%a_%t_log.err --cpus-per-task=8 "
        "python -u -m submitit.core._submit /jobs/LAUNCH",
        "# teardown",
        "python -m slurm.requeue /jobs/LAUNCH/runs.json $?",
    ]


CASES = {
    "account": (["cluster.account=lab"], ["#SBATCH --account=lab"]),
    "qos": (["cluster.qos=long"], ["#SBATCH --qos=long"]),
    "constraint": (["cluster.constraint=a100|h100"], ["#SBATCH --constraint='a100|h100'"]),
    "exclude": (["cluster.exclude='n[1-3]'"], ["#SBATCH --exclude='n[1-3]'"]),
    "gres": (["cluster.gres='gpu:a100:2'"], ["#SBATCH --gres=gpu:a100:2"]),
    "memory": (["cluster.mem_gb=1.5"], ["#SBATCH --mem=1536M"]),
    "memory per gpu": (["cluster.mem_per_gpu=32G"], ["#SBATCH --mem-per-gpu=32G"]),
    "time": (["cluster.timeout_min=90", "cluster.signal_delay_s=300"], ["#SBATCH --time=90", "#SBATCH --signal=USR2@300"]),
    "any option": (["+cluster.additional_parameters.nice=100"], ["#SBATCH --nice=100", "#SBATCH --requeue"]),
    "threads": (["cluster.threads=4"], ["export OMP_NUM_THREADS=4"]),
    "offline": (["cluster.offline=true"], ["export HF_HUB_OFFLINE=1", "export WANDB_MODE=offline"]),
    "setup": (["cluster.setup=['module load cuda']"], ["module load cuda"]),
    "two nodes": (
        ["cluster.nodes=2", "cluster.tasks_per_node=8", "cluster.gpus_per_node=8"],
        ["#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=8", "#SBATCH --gpus-per-node=8"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_option_is_a_line(name):
    overrides, lines = CASES[name]
    assert set(lines) <= set(made(*overrides))


def test_arguments_of_srun():
    (line,) = [line for line in made("cluster.nodes=2", "cluster.srun_args=['--mpi=none']") if line.startswith("srun")]
    assert "--kill-on-bad-exit=0 --wait=120 --mpi=none" in line


def test_at_most_so_many_at_a_time():
    assert "#SBATCH --array=0-3%2" in made("cluster.array_parallelism=2", runs=4)


def test_one_run_is_no_array():
    assert not [line for line in made() if "array" in line] and "#SBATCH --output=/jobs/LAUNCH/%j_0_log.out" in made()


def test_above_the_sites_limit_there_are_more_arrays():
    plans = [compose_plan([*FIRST, f"seed={seed}"]) for seed in range(7)]
    parts = batches(plans, [[str(seed)] for seed in range(7)], max_size=3)
    assert [len(part.plans) for part in parts] == [3, 3, 1] and len({part.folder for part in parts}) == 3
    assert [words for part in parts for words in part.overrides] == [[str(seed)] for seed in range(7)]


def test_other_resources_are_another_array():
    plans = [compose_plan([*FIRST, f"seed={i}", f"cluster.partition={name}"]) for i, name in enumerate(["a", "b", "a"])]
    parts = batches(plans, [["0"], ["1"], ["2"]], max_size=1000)
    assert [part.overrides for part in parts] == [[["0"], ["2"]], [["1"]]]


def test_a_dry_run_needs_no_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "#SBATCH --array=0-1%2" in preview([compose_plan([*FIRST, f"seed={seed}"]) for seed in (1, 2)], [[], []])


def test_without_slurm_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no sbatch, srun, squeue, scontrol, scancel here"):
        require_slurm()


def test_the_examples_compose():
    for name in ("slurm_gpu", "slurm_node8", "slurm_multinode", "slurm_cpu"):
        assert compose_plan([f"cluster={name}"]).config_hash == compose_plan([]).config_hash


def test_the_measured_time_to_a_safe_point(tmp_path):
    folder = compose_plan([f"runs_dir={tmp_path}"]).folder
    assert seconds_to_safe_point(folder) is None
    folder.append("metrics", [{"step": 1, "time/step": 50.0}])
    assert too_short(folder, 60) is None, "no checkpoint has been measured yet"
    folder.append("metrics", [{"step": 2, "time/step": 70.0, "time/checkpoint": 20.0}, {"step": 3, "time/step": 40.0}])
    assert seconds_to_safe_point(folder) == 90.0
    assert too_short(folder, 91) is None and "cluster.signal_delay_s=136" in too_short(folder, 60)


@pytest.mark.parametrize("job, slurm_job_id, expected", [(None, "70", 0), ("RUNNING", "70", 1), (None, None, 1)])
def test_what_is_live_is_not_submitted(tmp_path, monkeypatch, job, slurm_job_id, expected):
    """A young heartbeat of another host: of a job that has ended, of one that runs, of a process without SLURM."""
    plan = compose_plan([*FIRST, f"runs_dir={tmp_path}"])
    owner = {"host": "elsewhere", "pid": 5}
    plan.folder.update_status(state="running", slurm_job_id=slurm_job_id, **owner)
    write_json(plan.folder.lock.path, owner | {"namespace": None, "born": "1"})
    Submission("7_0", "/jobs", [], "/", "2026-01-01").write(plan.folder)
    monkeypatch.setattr(scheduler, "look_up", lambda ids: {"7_0": scheduler.Job(job)} if job else {})
    assert len(live_runs([plan])) == expected


def test_outside_jobs_hides_the_job_and_keeps_the_way_to_slurm(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SBATCH_PARTITION", "SLURM_CONF", "RANK"):
        monkeypatch.setenv(name, "x")
    import os

    with scheduler.outside_jobs():
        assert [name for name in os.environ if name.startswith(("SLURM", "SBATCH", "RANK"))] == ["SLURM_CONF"]
    assert os.environ["SLURM_JOB_ID"] == os.environ["SLURM_CONF"] == "x"
