"""Runs on this machine: in worker processes side by side (submitit), or one after the other in this process.

A worker goes through all runs of the sweep and takes each that nobody owns: a run's lock is the only arbiter, so workers of
two identical sweeps share the work too. A worker that dies takes only its own run with it; another is started.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import submitit

from harness.display import Display
from harness.runs.attempt import StopRequest, attempt
from harness.settings.identity import RunPlan
from harness.store import born

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
NO_LIMIT_MINUTES = 60 * 24 * 365
MAX_DEATHS = 2  # workers that may die on a sweep's runs, for each run


def run_in_process(plans: list[RunPlan], overrides: list[list[str]], display: Display) -> None:
    """For a debugger and for single runs: errors end up in the run's folder, Ctrl-C stops after the step."""
    import torch

    torch.set_num_threads(plans[0].config.cluster.threads)
    stop = StopRequest()
    stop.listen()
    with display.in_background():
        work_through(plans, stop)


def run_in_workers(plans: list[RunPlan], overrides: list[list[str]], display: Display) -> None:
    cluster = plans[0].config.cluster
    num_workers = min(len(plans), cluster.processes or max(1, (os.cpu_count() or 1) // cluster.threads))
    folder = Path(plans[0].config.runs_dir) / ".jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    sweep = _Sweep(overrides, folder, cluster.threads)
    try:
        sweep.keep_going(plans, num_workers, display)
    except KeyboardInterrupt:
        display.note("stopping: each run saves a checkpoint after its step (Ctrl-C again to stop at once)")
        sweep.stop(display)


class _Sweep:
    """The workers of one launch, their folder, and how they are told to stop."""

    def __init__(self, overrides: list[list[str]], folder: Path, threads: int):
        self.overrides, self.folder, self.threads = overrides, folder, threads
        self.launch_id = folder.name
        self.workers: list[submitit.Job] = []
        self.num_started = 0

    def keep_going(self, plans: list[RunPlan], num_workers: int, display: Display) -> None:
        """Keep num_workers alive while there are runs left to take."""
        limit = num_workers + MAX_DEATHS * len(plans)
        while True:
            self.workers = [worker for worker in self.workers if not worker.done()]
            waiting = [plan for plan in plans if self.is_waiting(plan)]
            while len(self.workers) < min(num_workers, len(waiting)) and self.num_started < limit:
                self.start_worker()
            display.update()
            if not self.workers:
                return
            time.sleep(POLL_SECONDS)

    def is_waiting(self, plan: RunPlan) -> bool:
        """Not finished, and not yet failed in this launch."""
        status = plan.folder.read_status() or {}
        return not plan.folder.finished and not failed_in(status, self.launch_id)

    def start_worker(self) -> None:
        executor = submitit.LocalExecutor(self.folder)
        executor.update_parameters(timeout_min=NO_LIMIT_MINUTES)
        threads = str(self.threads)
        tunables = os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # huge pages: decoding is a fifth faster
        variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
        with _inherited(**variables, GLIBC_TUNABLES=tunables):
            me = (os.getpid(), born(os.getpid()))
            self.workers.append(executor.submit(work, self.overrides, self.threads, str(self.folder), me))
        self.num_started += 1

    def stop(self, display: Display) -> None:
        (self.folder / "stop").touch()
        while any(not worker.done() for worker in self.workers):
            display.update()
            time.sleep(POLL_SECONDS)


def work(overrides: list[list[str]], threads: int, folder: str, launcher: tuple[int, str | None]) -> None:
    """A worker process: all that it is told are plain values."""
    import torch

    from harness.settings.compose import compose_plan

    torch.set_num_threads(threads)
    stop_file = Path(folder) / "stop"
    stop = StopRequest(lambda: stop_file.exists() or born(launcher[0]) != launcher[1])
    stop.listen()
    work_through([compose_plan(job) for job in overrides], stop, launch_id=Path(folder).name)


def work_through(plans: list[RunPlan], stop: StopRequest, launch_id: str | None = None) -> None:
    """Attempt each run that is free; a failure is written into its folder and stops no other."""
    from harness.run import train

    for plan in plans:
        if stop():
            return
        if launch_id and failed_in(plan.folder.read_status() or {}, launch_id):
            continue
        try:
            attempt(plan, train, stop, launch_id)
        except Exception as error:
            log.error("%s failed: %s (traceback in %s/logs)", plan.run_id, error, plan.folder.path)


def failed_in(status: dict, launch_id: str) -> bool:
    return status.get("state") == "failed" and status.get("launch") == launch_id


@contextmanager
def _inherited(**variables: str):
    """What children started inside inherit: variables, and deafness to Ctrl-C, so that only the worker itself hears it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
