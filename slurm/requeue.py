"""`python -m slurm.requeue RUNS.JSON STATUS`: the last line of every batch script. Decides whether the run gets another attempt.

It runs after the run's processes have ended, whatever ended them, so it also handles ends that a process cannot report itself:

| the last attempt of this job | decision |
|---|---|
| is complete, or collapsed and was stopped for it | no |
| was stopped by a signal | yes, up to cluster.max_num_timeout times SIGUSR2 |
| was killed from outside (SIGKILL, SIGTERM, ...) | yes |
| failed, ran out of memory, or exited with another status | once more, unless it has failed from this checkpoint before |
| had not begun | yes if killed from outside, else no |

It does not run when SLURM ends the whole job (scancel, time limit, node failure); then SLURM decides.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.files import read_json
from harness.store import RunFolder
from slurm import scheduler
from slurm.record import job_here

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # signals sent from outside
MAX_FRUITLESS = 2  # failed attempts without a new checkpoint
OOM_VARIABLE = "HARNESS_OOM_KILLS"
OOM_STATUS = 125  # how srun reports that a step was killed by its memory limit


@dataclass(frozen=True)
class ProcessEnd:
    """How the process of an attempt ended, where it could not record that itself."""

    reason: str
    by_run: bool  # True: the run itself ended it, which may happen again; False: something outside the run did


@dataclass(frozen=True)
class Decision:
    requeue: bool
    reason: str


def process_end(code: int, out_of_memory: bool) -> ProcessEnd:
    if out_of_memory or code == OOM_STATUS:
        remedy = "raise cluster.mem_gb, or lower train.token_budget, rollout.max_rows or eval.max_rows"
        return ProcessEnd(f"out of memory: killed by the kernel ({remedy})", by_run=True)
    if code - 128 in OUTSIDE:
        return ProcessEnd(f"killed by {signal.Signals(code - 128).name}", by_run=False)
    return ProcessEnd(f"its process ended with exit status {code}", by_run=True)


def decide(
    folder: RunFolder, code: int, out_of_memory: bool, max_signals: int | None = None, launch: str | None = None
) -> Decision:
    """Decide whether to try again after this job's attempt; record how it ended if it could not do so itself."""
    if folder.finished:
        return Decision(False, folder.state)
    if not folder.lock.acquire():
        return Decision(False, "another process works on it")
    try:
        return _decide(folder, code, out_of_memory, max_signals, launch)
    finally:
        folder.lock.release()


def _decide(folder: RunFolder, code: int, out_of_memory: bool, max_signals: int | None, launch: str | None) -> Decision:
    latest = (folder.attempts() or [{}])[-1]
    began = is_of_this_job(latest) and latest.get("slurm_restarts") == restarts()
    if not began:
        return before_it_began(folder, code, out_of_memory, launch)
    after_a_killed_rank = latest["state"] == "failed" and code - 128 in OUTSIDE  # this rank failed because another was killed
    if latest["state"] == "running" or after_a_killed_rank:
        latest |= record_end(folder, latest["number"], process_end(code, out_of_memory))
    if latest["state"] == "preempted":
        return after_a_signal(folder, latest, max_signals)
    if latest["state"] == "failed":
        return after_a_failure(folder, latest)
    return Decision(True, latest["reason"])


def before_it_began(folder: RunFolder, code: int, out_of_memory: bool, launch: str | None) -> Decision:
    """Decision for a job that ended while it was starting, before it touched the run."""
    if code == 0:
        return Decision(False, "nothing to do")
    ended, status = process_end(code, out_of_memory), folder.read_status() or {}
    if not ended.by_run:
        return Decision(True, ended.reason)
    if launch and status.get("launch") == launch and status.get("state") == "failed":  # it could still write why
        return Decision(False, status.get("reason") or "failed")
    folder.update_status(state="failed", reason=f"the job ended before the run began: {ended.reason} (python -m slurm logs)")
    return Decision(False, ended.reason)


def record_end(folder: RunFolder, number: int, ended: ProcessEnd) -> dict:
    """Record the end of an attempt that could not do so itself. Returns the recorded facts."""
    facts = {"state": "failed" if ended.by_run else "killed", "reason": ended.reason, "step": folder.last_step()}
    seconds, hours = folder.spent_before()
    folder.end_attempt(number, **facts)
    folder.update_status(seconds=seconds, device_hours=hours, **(facts if ended.by_run else {}))
    return facts


def after_a_signal(folder: RunFolder, latest: dict, max_signals: int | None) -> Decision:
    count = sum(is_of_this_job(attempt) and attempt.get("signal") == "SIGUSR2" for attempt in folder.attempts())
    if max_signals is not None and count > max_signals:
        return Decision(False, f"stopped {count} times by SIGUSR2 (cluster.max_num_timeout={max_signals})")
    return Decision(True, latest["reason"])


def after_a_failure(folder: RunFolder, latest: dict) -> Decision:
    """Decision to try once more, unless the run has failed from the same checkpoint before."""
    newest = folder.newest_checkpoint()
    failed = [attempt for attempt in folder.attempts() if is_of_this_job(attempt) and attempt["state"] == "failed"]
    fruitless = [attempt for attempt in failed if attempt.get("checkpoint") == newest]
    if len(fruitless) < MAX_FRUITLESS:
        return Decision(True, latest["reason"])
    numbers = " and ".join(str(attempt["number"]) for attempt in fruitless)
    reason = f"{latest['reason']} (attempts {numbers} ended without a new checkpoint)"
    folder.update_status(state="failed", reason=reason)
    return Decision(False, reason)


def is_of_this_job(attempt: dict) -> bool:
    return attempt.get("slurm_job_id") == os.environ["SLURM_JOB_ID"]


def restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def oom_kills() -> int:
    """Number of processes that the kernel of this node has killed for lack of memory since boot; 0 without /proc/vmstat."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def main(arguments: list[str]) -> int:
    """Decide and requeue. Returns the exit status of the run's processes, from which SLURM sets the job's state."""
    code = int(arguments[1])
    jobs = read_json(Path(arguments[0])) or {}
    folder = RunFolder(Path(jobs["runs"][int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))]))
    out_of_memory = code != 0 and oom_kills() > int(os.environ.get(OOM_VARIABLE) or oom_kills())
    decision = decide(folder, code, out_of_memory, jobs["max_num_timeout"], Path(arguments[0]).parent.name)
    print(f"{'requeued' if decision.requeue else 'not requeued'}: {decision.reason}", file=sys.stderr, flush=True)
    if decision.requeue:
        scheduler.requeue(job_here())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
