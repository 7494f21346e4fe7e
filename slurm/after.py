"""`python -m slurm.after RUNS.JSON STATUS`: the last line of every batch script. Decides whether the run gets another attempt.

It comes after the run's processes have ended, whatever ended them, and so also judges the deaths that a process cannot report
itself. It does not come when SLURM ends the whole job (scancel, time limit, node failure), which is then SLURM's decision.
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

OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # no fault of the run
MAX_FRUITLESS = 2  # attempts that the run itself ended without a new checkpoint
OOM_VARIABLE = "HARNESS_OOM_KILLS"
OOM_STATUS = 125  # how srun reports that a step was killed by its memory limit


@dataclass(frozen=True)
class Death:
    """How an attempt ended that could not write it itself."""

    reason: str
    own: bool  # the run's own doing, which may happen again


@dataclass(frozen=True)
class Verdict:
    requeue: bool
    reason: str


def death(code: int, out_of_memory: bool) -> Death:
    if out_of_memory or code == OOM_STATUS:
        remedy = "raise cluster.mem_gb, or lower train.token_budget, rollout.max_rows or eval.max_rows"
        return Death(f"out of memory: killed by the kernel ({remedy})", own=True)
    if code - 128 in OUTSIDE:
        return Death(f"killed by {signal.Signals(code - 128).name}", own=False)
    return Death(f"its process ended with exit status {code}", own=True)


def judge(folder: RunFolder, code: int, out_of_memory: bool, max_signals: int | None = None) -> Verdict:
    """Look at how this job's attempt ended, write down what it could not, and say whether to try again."""
    if folder.finished:
        return Verdict(False, folder.state)
    if not folder.lock.acquire():
        return Verdict(False, "another process works on it")
    try:
        return _judge(folder, code, out_of_memory, max_signals)
    finally:
        folder.lock.release()


def _judge(folder: RunFolder, code: int, out_of_memory: bool, max_signals: int | None) -> Verdict:
    latest = (folder.attempts() or [{}])[-1]
    began = is_of_this_job(latest) and latest.get("slurm_restarts") == restarts()
    if not began:
        return before_it_began(folder, code, out_of_memory)
    in_the_wake = latest["state"] == "failed" and code - 128 in OUTSIDE  # of another rank, which was killed
    if latest["state"] == "running" or in_the_wake:
        latest |= bury(folder, latest["number"], death(code, out_of_memory))
    if latest["state"] == "preempted":
        return after_a_signal(folder, latest, max_signals)
    if latest["state"] == "failed":
        return after_a_failure(folder, latest)
    return Verdict(True, latest["reason"])


def before_it_began(folder: RunFolder, code: int, out_of_memory: bool) -> Verdict:
    """The job ended while it was starting: nothing of the run was touched."""
    if code == 0:
        return Verdict(False, "nothing to do")
    ended = death(code, out_of_memory)
    if ended.own:
        folder.update_status(state="failed", reason=f"the job ended before the run began: {ended.reason} (python -m slurm logs)")
    return Verdict(not ended.own, ended.reason)


def bury(folder: RunFolder, number: int, ended: Death) -> dict:
    """Write the end of an attempt that died without a word. Returns what its record says now."""
    facts = {"state": "failed" if ended.own else "killed", "reason": ended.reason, "step": folder.last_step()}
    seconds, hours = folder.spent_before()
    folder.end_attempt(number, **facts)
    folder.update_status(seconds=seconds, device_hours=hours, **(facts if ended.own else {}))
    return facts


def after_a_signal(folder: RunFolder, latest: dict, max_signals: int | None) -> Verdict:
    count = sum(is_of_this_job(one) and one.get("signal") == "SIGUSR2" for one in folder.attempts())
    if max_signals is not None and count > max_signals:
        return Verdict(False, f"stopped {count} times by SIGUSR2 (cluster.max_num_timeout={max_signals})")
    return Verdict(True, latest["reason"])


def after_a_failure(folder: RunFolder, latest: dict) -> Verdict:
    """Once more, unless it has failed from this very checkpoint before."""
    newest = folder.newest_checkpoint()
    failed = [one for one in folder.attempts() if is_of_this_job(one) and one["state"] == "failed"]
    fruitless = [one for one in failed if one.get("checkpoint") == newest]
    if len(fruitless) < MAX_FRUITLESS:
        return Verdict(True, latest["reason"])
    numbers = " and ".join(str(one["number"]) for one in fruitless)
    reason = f"{latest['reason']} (attempts {numbers} ended without a new checkpoint)"
    folder.update_status(state="failed", reason=reason)
    return Verdict(False, reason)


def is_of_this_job(attempt: dict) -> bool:
    return attempt.get("slurm_job_id") == os.environ["SLURM_JOB_ID"]


def restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def oom_kills() -> int:
    """By the kernel of this node since it booted, of any process. 0 where that is not told."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def main(arguments: list[str]) -> int:
    """Returns the exit status of the run's processes, so that the job's own state follows it."""
    code = int(arguments[1])
    jobs = read_json(Path(arguments[0])) or {}
    folder = RunFolder(Path(jobs["runs"][int(os.environ.get("SLURM_ARRAY_TASK_ID", 0))]))
    out_of_memory = code != 0 and oom_kills() > int(os.environ.get(OOM_VARIABLE) or oom_kills())
    verdict = judge(folder, code, out_of_memory, jobs["max_num_timeout"])
    print(f"{'requeued' if verdict.requeue else 'not requeued'}: {verdict.reason}", file=sys.stderr, flush=True)
    if verdict.requeue:
        scheduler.requeue(job_here())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
