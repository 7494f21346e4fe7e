"""Determines the state of each run from its own status and heartbeat and from what SLURM knows of its job."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from harness.lock import STALE_SECONDS
from harness.store import FINISHED_STATES, RunFolder
from slurm.record import Submission, read_submission
from slurm.scheduler import Job, look_up

BAD = ("failed", "lost")
RESUBMITTED = ("failed", "lost", "cancelled")


@dataclass(frozen=True)
class RunState:
    """`state`: running | pending | completed | collapsed | failed | lost | silent | cancelled | preempted (outside SLURM)."""

    folder: str
    preset: str
    seed: str
    state: str
    step: int
    steps: int | None  # None before the run has begun
    attempts: int
    job_id: str | None
    job_state: str | None  # None: SLURM has no such job
    nodes: str
    note: str  # why it waits, how it failed, …


def look(folders: list[RunFolder]) -> list[RunState]:
    submissions = [read_submission(folder) for folder in folders]
    jobs = look_up(submission.job_id for submission in submissions if submission)
    return [
        state_of(folder, submission, jobs.get(submission.job_id) if submission else None)
        for folder, submission in zip(folders, submissions, strict=True)
    ]


def state_of(folder: RunFolder, submission: Submission | None, job: Job | None) -> RunState:
    status, config = folder.read_status() or {}, folder.read_config() or {}
    state, note = decide(folder, status, submission, job)
    return RunState(
        folder=str(folder.path),
        preset=status.get("preset", folder.path.parent.name),
        seed=str(status.get("seed", folder.path.name.partition("-")[0].removeprefix("seed="))),
        state=state,
        step=folder.last_step(),
        steps=config.get("settings", {}).get("train", {}).get("steps"),
        attempts=status.get("attempts", 0),
        job_id=submission and submission.job_id,
        job_state=job and job.state,
        nodes=job.nodes if job else "",
        note=note,
    )


def decide(folder: RunFolder, status: dict, submission: Submission | None, job: Job | None) -> tuple[str, str]:
    """(state, note) of a run. A finished run is finished, whatever SLURM says of its job."""
    if status.get("state") in FINISHED_STATES:
        return status["state"], ""
    if job and job.waiting:
        return "pending", " ".join([job.reason, *before(status)])
    if job and job.active:
        return at_work(folder, status, job)
    if beats(folder) and not is_of_ended_job(folder, status, job):
        return "running", "outside SLURM" if submission is None else "by another process than the job"
    if status.get("state") == "failed" and is_news(status, submission):
        return "failed", status.get("reason") or ""
    if submission is None:
        return without_job(status)
    if submission.cancelled or (job and job.state == "CANCELLED"):
        return "cancelled", status.get("reason") or ""
    return "lost", why_lost(status, submission, job)


def is_news(status: dict, submission: Submission | None) -> bool:
    """Whether the status was written since the run was last submitted."""
    return submission is None or (status.get("updated") or "") >= submission.submitted


def at_work(folder: RunFolder, status: dict, job: Job) -> tuple[str, str]:
    """(state, note) while SLURM says that the job runs. A heartbeat from before its start is of an earlier, killed attempt."""
    age = heartbeat_age(folder)
    if age is None or age > job.seconds:
        return "running", " ".join(["starting, or between attempts", *before(status)])
    return ("running", "") if age < STALE_SECONDS else ("silent", f"no heartbeat for {age:.0f} s")


def without_job(status: dict) -> tuple[str, str]:
    """(state, note) of a run that was never submitted and that no process works on."""
    if status.get("state") == "preempted":
        return "preempted", status.get("reason") or ""
    return "lost", "its process is gone"


def why_lost(status: dict, submission: Submission, job: Job | None) -> str:
    job_state = f"job {submission.job_id} is {job.state}" if job else f"SLURM has no job {submission.job_id}"
    return "; ".join([job_state, *before(status)])


def before(status: dict) -> list[str]:
    """Note on how the last attempt ended; empty if its status gives no reason."""
    return [f"(last attempt: {status['reason']})"] if status.get("reason") else []


def heartbeat_age(folder: RunFolder) -> float | None:
    """Seconds since the last heartbeat; None if no lock file is there."""
    try:
        return time.time() - folder.lock.path.stat().st_mtime
    except FileNotFoundError:
        return None


def beats(folder: RunFolder) -> bool:
    return folder.lock.owner() is not None


def is_of_ended_job(folder: RunFolder, status: dict, job: Job | None) -> bool:
    """Whether the heartbeat is that of an ended job. From another host it looks alive for a while; SLURM knows better."""
    owner = folder.lock.owner() or {}
    wrote = all(owner.get(key) == status.get(key) for key in ("host", "pid"))
    return wrote and status.get("slurm_job_id") is not None and not (job and job.active)


def is_bad(states: Iterable[RunState]) -> bool:
    return any(run.state in BAD for run in states)
