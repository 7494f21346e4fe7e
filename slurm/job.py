"""Defines what a SLURM job executes: one attempt at one run, in each of the run's processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import submitit

from harness.distributed import current_ranks, init_ranks
from harness.importing import importing
from harness.lock import STALE_SECONDS
from harness.runs.attempt import BUSY, StopRequest, attempt
from harness.settings.compose import compose_plan
from harness.settings.identity import RunPlan
from harness.store import RunFolder
from slurm.scheduler import address_of_first_node

log = logging.getLogger("harness.slurm")

TAKEOVER_SECONDS = 3 * STALE_SECONDS  # longest wait for a lost node's lock, until it is stale and has been watched
RETRY_SECONDS = 5
REASONS = {"SIGUSR2": "SIGUSR2: time limit or preemption", "SIGTERM": "SIGTERM: SLURM ended the job"}


class SlurmStop(StopRequest):
    """A stop request also made by SLURM's signal before a time limit or preemption. Warns once if that signal comes too late."""

    def __init__(self, folder: RunFolder, signal_delay_s: int):
        super().__init__()
        self.folder, self.signal_delay_s, self.warned = folder, signal_delay_s, False

    def __call__(self) -> bool:
        if not self.warned and (problem := too_short(self.folder, self.signal_delay_s)):
            log.warning("%s", problem)
            self.warned = True
        return super().__call__()

    @property
    def why(self) -> str:
        return REASONS.get(self.signalled, super().why)


def seconds_to_safe_point(folder: RunFolder, steps: int = 50) -> float | None:
    """Longest time from a signal to a saved checkpoint, from the last `steps` steps; None before the first checkpoint."""
    rows = folder.tail("metrics", steps)
    checkpoints = [row["time/checkpoint"] for row in rows if "time/checkpoint" in row]
    return max(row["time/step"] for row in rows) + max(checkpoints) if checkpoints else None


def too_short(folder: RunFolder, signal_delay_s: int) -> str | None:
    """Message if the time between signal and kill is too short for the speed of this run so far, else None."""
    seconds = seconds_to_safe_point(folder)
    if seconds is None or seconds <= signal_delay_s:
        return None
    return (
        f"cluster.signal_delay_s={signal_delay_s}: a step and its checkpoint took up to {seconds:.0f} s in {folder.path}, "
        f"so the job would be killed before it has saved: set cluster.signal_delay_s={int(1.5 * seconds) + 1} or more"
    )


def run(overrides: list[str], run_id: str, launch: str) -> None:
    """Attempt one run inside its SLURM job. submitit calls this function; its arguments are plain values."""
    logging.getLogger("harness").setLevel(logging.INFO)  # so that "resuming after step 7" is in the attempt's log
    join_torch()
    plan = compose_plan(overrides)
    if plan.run_id != run_id:
        raise ValueError(f"submitted as {run_id}, but code or conf now make it {plan.run_id}: python -m slurm resubmit")
    stop = SlurmStop(plan.folder, plan.config.cluster.signal_delay_s)
    stop.listen(signal.SIGUSR2)
    set_threads()
    init_ranks(plan.config.cluster.device)
    if attempt_when_free(plan, stop, launch) == BUSY:
        log.warning("%s is owned by another process: %s", run_id, plan.folder.lock.owner())


def attempt_when_free(plan: RunPlan, stop: StopRequest, launch: str) -> str:
    """Attempt the run; retry while another process owns it, since the lock of a lost node has to become stale first."""
    end = time.monotonic() + TAKEOVER_SECONDS
    while (state := attempt(plan, train, stop, launch)) == BUSY and not current_ranks().any(stop() or time.monotonic() > end):
        time.sleep(RETRY_SECONDS)
    return state


def train(plan: RunPlan, stop: StopRequest) -> str:
    """Call harness.run.train, with all output of this attempt in a separate file."""
    with importing():
        from harness.run import train

    number, ranks = plan.folder.num_attempts(), current_ranks()
    name = f"attempt_{number}.out" if ranks.is_first else f"attempt_{number}.rank{ranks.rank}.out"
    with output_to(plan.folder.path / "logs" / name):
        return train(plan, stop)


@contextmanager
def output_to(path: Path):
    """Context in which standard output and errors of this process and its children are appended to a file."""
    sys.stdout.flush(), sys.stderr.flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    before = [os.dup(1), os.dup(2)]
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for number, saved in enumerate(before, 1):
            os.dup2(saved, number)
            os.close(saved)


def join_torch() -> None:
    """Set RANK, WORLD_SIZE, MASTER_ADDR, … for torch.distributed if the run has several processes."""
    environment = submitit.JobEnvironment()
    if environment.num_tasks == 1:
        return
    os.environ["MASTER_PORT"] = str(20000 + int(os.environ["SLURM_JOB_ID"]) % 20000)
    submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    os.environ["MASTER_ADDR"] = address_of_first_node(os.environ["SLURM_JOB_NODELIST"])


def set_threads() -> None:
    """Set torch's threads to the number that the batch script counted; torch's default is all cores of the node."""
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
