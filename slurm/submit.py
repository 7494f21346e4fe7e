"""Submits a sweep to SLURM as one array of jobs (cluster=slurm); with cluster.wait=true it is shown until the jobs have ended."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import submitit

from harness.display import Display
from harness.files import now, write_json, writing
from harness.settings.config import SlurmConfig
from harness.settings.identity import RunPlan
from slurm import scheduler
from slurm.job import run, too_short
from slurm.record import Submission, read_submission
from slurm.requeue import OOM_VARIABLE
from slurm.scheduler import Job, SchedulerError
from slurm.state import is_of_ended_job

POLL_SECONDS = 2.0
WAIT_SECONDS = 120  # from a run's first ended process until srun kills the others; they end by themselves within a minute
PROGRAMS = ("sbatch", "srun", "squeue", "scontrol", "scancel")
SUBMITITS_NAME = {"name": "job_name", "timeout_min": "time", "tasks_per_node": "ntasks_per_node"}
SAME_NAME = (
    "partition", "qos", "account", "nodes", "cpus_per_task", "gpus_per_node", "gpus_per_task", "cpus_per_gpu", "mem_per_gpu",
    "mem_per_cpu", "gres", "constraint", "exclude", "comment", "signal_delay_s", "array_parallelism", "stderr_to_stdout",
)  # fmt: skip
OFFLINE = ("HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "HF_DATASETS_OFFLINE=1", "WANDB_MODE=offline")


@dataclass
class Batch:
    """Runs that share one array."""

    plans: list[RunPlan]
    overrides: list[list[str]]
    folder: Path

    @property
    def cluster(self) -> SlurmConfig:
        return self.plans[0].config.cluster


def submit(plans: list[RunPlan], overrides: list[list[str]]) -> str:
    """Submit the runs that no job and no process works on. Returns a message for the user."""
    require_slurm()
    with submitting(plans[0].config.runs_dir):
        live = live_runs(plans)
        waiting = [(plan, job) for plan, job in zip(plans, overrides, strict=True) if plan.run_id not in live]
        check_signal_delays([plan for plan, _ in waiting])
        lines = [f"{plan.folder.path}: {live[plan.run_id]}, not submitted again" for plan in plans if plan.run_id in live]
        for batch in batches([plan for plan, _ in waiting], [job for _, job in waiting], scheduler.max_array_size()):
            lines += submit_batch(batch)
    root = f"{plans[0].config.runs_dir}/{plans[0].experiment}"
    return "\n".join([*lines, f"next: python -m slurm status {shlex.quote(root)} (or watch, logs, cancel, resubmit)"])


def require_slurm() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise ValueError(f"cluster=slurm: no {', '.join(missing)} here: log in where sbatch works, or leave out cluster=slurm")


@contextmanager
def submitting(runs_dir: str):
    """Context for one process at a time per runs_dir, so that two identical commands cannot both find a run free."""
    path = Path(runs_dir) / ".jobs" / "submit.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def live_runs(plans: list[RunPlan]) -> dict[str, str]:
    """Runs that are already waiting or running: run id → which job or process."""
    submissions = {plan.run_id: read_submission(plan.folder) for plan in plans}
    jobs = scheduler.look_up(submission.job_id for submission in submissions.values() if submission)
    live = {}
    for plan in plans:
        submission, owner = submissions[plan.run_id], plan.folder.lock.owner()
        job = jobs.get(submission.job_id) if submission else None
        if job and job.active:
            live[plan.run_id] = f"job {submission.job_id} is {job.state.lower()}"
        elif owner and not is_of_ended_job(plan.folder, plan.folder.read_status() or {}, job):
            live[plan.run_id] = f"process {owner['pid']} on {owner['host']} is at it"
    return live


def check_signal_delays(plans: list[RunPlan]) -> None:
    for plan in plans:
        if problem := too_short(plan.folder, plan.config.cluster.signal_delay_s):
            raise ValueError(problem)


def batches(plans: list[RunPlan], overrides: list[list[str]], max_size: int) -> list[Batch]:
    """One batch for the whole sweep, unless its runs request different resources or are more than one array may hold."""
    groups: dict[str, list[int]] = {}
    for i, plan in enumerate(plans):
        groups.setdefault(repr(plan.config.cluster), []).append(i)
    parts = [part for group in groups.values() for part in scheduler.chunks(group, max_size)]
    launch = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    result = []
    for n, part in enumerate(parts):
        folder = Path(plans[part[0]].config.cluster.submitit_folder).absolute() / f"{launch}-{n}"
        result.append(Batch([plans[i] for i in part], [overrides[i] for i in part], folder))
    return result


def submit_batch(batch: Batch) -> list[str]:
    """Call sbatch, then write slurm.json into each run's folder. Returns a line on the array and one on each job."""
    runs = [str(plan.folder.path.absolute()) for plan in batch.plans]
    write_json(batch.folder / "runs.json", {"runs": runs, "max_num_timeout": batch.cluster.max_num_timeout})
    jobs = sbatch(batch)
    for plan, overrides, job in zip(batch.plans, batch.overrides, jobs, strict=True):
        Submission(job.job_id, str(batch.folder), overrides, os.getcwd(), now()).write(plan.folder)
    array, at_most = jobs[0].job_id.partition("_")[0], min(len(jobs), batch.cluster.array_parallelism)
    head = f"submitted {len(jobs)} runs as job {array}, at most {at_most} at a time; script and SLURM's logs in {batch.folder}"
    return [head, *[f"  {job.job_id:<10} {plan.folder.path}" for plan, job in zip(batch.plans, jobs, strict=True)]]


def sbatch(batch: Batch) -> list[submitit.Job]:
    executor = submitit.SlurmExecutor(batch.folder)
    executor.update_parameters(**parameters(batch.cluster, batch.folder))
    try:
        with scheduler.outside_jobs(), writing(batch.folder), executor.batch():
            jobs = [
                executor.submit(run, overrides, plan.run_id, batch.folder.name)
                for plan, overrides in zip(batch.plans, batch.overrides, strict=True)
            ]
    except submitit.core.utils.FailedJobError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"sbatch refused the job: {reason} (set cluster.*; docs/slurm.md)") from error
    return jobs


def script(batch: Batch) -> str:
    """The batch script as `submit_batch` would hand it to sbatch; needs no SLURM."""
    executor = _Scribe(batch.folder)
    executor.update_parameters(**parameters(batch.cluster, batch.folder))
    if len(batch.plans) > 1:
        executor.parameters["map_count"] = len(batch.plans)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


class _Scribe(submitit.SlurmExecutor):
    """submitit's executor, able to write scripts on machines without srun."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def preview(plans: list[RunPlan], overrides: list[list[str]]) -> str:
    """Text for a dry run: the batch script of each array."""
    try:
        size = scheduler.max_array_size()
    except SchedulerError:  # no SLURM here: one array
        size = len(plans)
    parts = batches(plans, overrides, size)
    return "\n\n".join(f"sbatch {part.folder}/submission.sh  # {len(part.plans)} runs\n{script(part)}" for part in parts)


def parameters(cluster: SlurmConfig, folder: Path) -> dict:
    """Parameters for submitit. Settings that are null are left out, so that the site's defaults hold."""
    chosen = {name: getattr(cluster, key) for key, name in [*SUBMITITS_NAME.items(), *zip(SAME_NAME, SAME_NAME, strict=True)]}
    chosen["mem"] = None if cluster.mem_gb is None else f"{round(1024 * cluster.mem_gb)}M"
    return {name: value for name, value in chosen.items() if value is not None} | {
        "setup": setup(cluster),
        "teardown": [shlex.join([sys.executable, "-m", "slurm.requeue", str(folder / "runs.json")]) + " $?"],
        "srun_args": [*srun_args(cluster), *(cluster.srun_args or [])],
        "additional_parameters": {"requeue": True} | cluster.additional_parameters,
    }


def setup(cluster: SlurmConfig) -> list[str]:
    """Lines of the batch script before srun. Threads follow the allocation: a process bound to 4 cores with 64 threads crawls."""
    share = f"$((SLURM_CPUS_ON_NODE / {cluster.tasks_per_node}))"
    threads = cluster.threads or f"${{SLURM_CPUS_PER_TASK:-{share}}}"
    variables = [f"OMP_NUM_THREADS={threads}", "MKL_NUM_THREADS=$OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM=false"]
    variables += ["GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}", *(OFFLINE if cluster.offline else ())]
    variables += [f"{OOM_VARIABLE}=$(awk '/^oom_kill /{{print $2}}' /proc/vmstat)"]
    return [*[f"export {variable}" for variable in variables], *(cluster.setup or [])]


def srun_args(cluster: SlurmConfig) -> list[str]:
    """Arguments of srun, which (from SLURM 22.05 on) ignores sbatch's --cpus-per-task and would bind each process to one core."""
    arguments = [f"--cpus-per-task={cluster.cpus_per_task}"] if cluster.cpus_per_task else []
    if cluster.nodes * cluster.tasks_per_node > 1:
        # a site's KillOnBadExit=1 would make a rank's own error look like a kill from outside
        arguments += ["--kill-on-bad-exit=0", f"--wait={WAIT_SECONDS}"]
    return arguments


def wait(plans: list[RunPlan], overrides: list[list[str]], display: Display) -> None:
    """Show the runs until all of their jobs have ended. Ctrl-C ends the display, not the jobs."""
    try:
        while any(job.active for job in jobs_of(plans).values()):
            end = time.monotonic() + POLL_SECONDS
            while time.monotonic() < end:
                display.update()
                time.sleep(0.5)
    except KeyboardInterrupt:
        display.note("no longer watching; the jobs go on (python -m slurm cancel ends them)")


def jobs_of(plans: list[RunPlan]) -> dict[str, Job]:
    submissions = [read_submission(plan.folder) for plan in plans if not plan.folder.finished]
    try:
        return scheduler.look_up(submission.job_id for submission in submissions if submission)
    except SchedulerError:  # a controller that is busy for a moment: the caller asks again
        return {"": Job("UNKNOWN")}
