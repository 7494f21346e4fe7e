"""Queries and controls SLURM jobs with squeue, sacct (where accounting exists), scontrol and scancel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from submitit.helpers import clean_env, environment_variables

LOCATION = ("SLURM_CONF", "SLURM_CONF_SERVER")  # these say where SLURM is and are the same for all jobs
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT",
}  # fmt: skip
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
TIMEOUT_SECONDS = 60


class SchedulerError(ValueError):
    """SLURM is missing, did not answer, or refused. The message has SLURM's own words."""


class NoAnswer(SchedulerError):
    """SLURM did not answer in time. It may be busy: worth a retry."""


@dataclass(frozen=True)
class Job:
    """One job as the scheduler sees it now."""

    state: str  # PENDING, RUNNING, …
    reason: str = ""  # why it waits, or how it ended
    nodes: str = ""
    seconds: int = 0  # running time so far

    @property
    def active(self) -> bool:
        return self.state not in ENDED

    @property
    def waiting(self) -> bool:
        return self.state in WAITING


@contextmanager
def outside_jobs():
    """Context without the variables that SLURM set if this process is itself a job: a submission would inherit them."""
    kept = {name: os.environ[name] for name in LOCATION if name in os.environ}
    with clean_env(), environment_variables(**kept):
        yield


def call(*words: str) -> str:
    """Run a command. Returns its standard output; SchedulerError with SLURM's own words if it fails."""
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError as error:
        raise SchedulerError(f"no {words[0]} on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{words[0]} gave no answer within {TIMEOUT_SECONDS} s") from error
    if result.returncode:
        raise SchedulerError(f"{words[0]}: {result.stderr.strip() or f'exit status {result.returncode}'}")
    return result.stdout


def available() -> bool:
    return shutil.which("squeue") is not None


def look_up(ids: Iterable[str]) -> dict[str, Job]:
    """The jobs with these ids, by id. Jobs that SLURM has forgotten are absent; empty where there is no SLURM."""
    ids = set(ids)
    if not ids or not available():
        return {}
    jobs = queued(ids)
    if missing := ids - jobs.keys():
        # a job that squeue no longer lists has ended: if accounting calls it running, accounting has missed its end
        jobs = {name: job for name, job in accounted(missing).items() if not job.active} | jobs
    return {name: job for name, job in jobs.items() if name in ids}


def queued(ids: set[str]) -> dict[str, Job]:
    """Jobs that squeue lists: waiting, running, or ended within the last minutes (MinJobAge)."""
    try:
        lines = call("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%N|%M", "-j", arrays(ids))
    except SchedulerError as error:
        if "Invalid job id" in str(error):
            return {}
        raise
    rows = (row for line in lines.splitlines() if len(row := line.split("|")) == 5)  # sites print banners too
    return {row[0]: Job(row[1], "" if row[2] == "None" else row[2], row[3], seconds_of(row[4])) for row in rows}


def seconds_of(text: str) -> int:
    """Seconds of a duration as squeue prints it; 0 for any other text.

    >>> seconds_of("1-02:03:04"), seconds_of("5:06"), seconds_of("INVALID")
    (93784, 306, 0)
    """
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def accounted(ids: set[str]) -> dict[str, Job]:
    """Jobs as sacct records them; none where the site keeps no accounts."""
    try:
        lines = call("sacct", "-X", "-n", "-P", "-o", "JobID,State,NodeList", "-j", arrays(ids))
    except NoAnswer:
        raise
    except SchedulerError:
        return {}
    rows = (row for line in lines.splitlines() if len(row := line.split("|")) == 3)
    return {name: Job(state.split()[0], "", nodes) for name, state, nodes in rows if state}


def arrays(ids: set[str]) -> str:
    return ",".join(sorted({name.partition("_")[0] for name in ids}, key=int))


def max_array_size() -> int:
    """Most jobs that one array may hold at this site."""
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"))
    return int(match[1]) if match else 1001


def requeue(job_id: str) -> None:
    call("scontrol", "requeue", job_id)


def cancel(ids: list[str]) -> None:
    for chunk in chunks(ids, 100):
        call("scancel", *chunk)


def address_of_first_node(nodes: str) -> str:
    """Address of the first of the nodes ("n[1-4]"), as SLURM resolves it."""
    first = call("scontrol", "show", "hostnames", nodes).split()[0]
    match = re.search(r"NodeAddr=(\S+)", call("scontrol", "show", "node", first, "--oneliner"))
    return match[1] if match else first


def chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
