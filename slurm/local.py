"""Executes runs on this machine: in worker processes side by side (submitit), or one after the other in this process.

A worker goes through all runs of the sweep and takes each that no process owns. Only a run's lock decides who owns it, so workers
of two identical sweeps share the work too. A worker that dies stops only its own run; another worker is started.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import submitit
from submitit.helpers import TorchDistributedEnvironment

from harness.display import Display
from harness.distributed import current_ranks, init_ranks
from harness.files import writing
from harness.importing import importing
from harness.lock import born
from harness.runs.attempt import StopRequest, attempt, traceback_note
from harness.settings.config import ClusterConfig
from harness.settings.identity import RunPlan

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
NO_LIMIT_MINUTES = 60 * 24 * 365
LAST_WORDS = re.compile(r" failed: |^\w+(Error|Exception)\b")
MAX_DEATHS = 2  # workers that may die, for each run of the sweep


def run_in_process(plans: list[RunPlan], overrides: list[list[str]], display: Display) -> None:
    """Execute the runs in this process in turn. Errors are written to the run's folder; Ctrl-C stops after the step."""
    import torch

    cluster = plans[0].config.cluster
    torch.set_num_threads(cluster.threads)
    init_ranks(cluster.device)
    stop = StopRequest()
    stop.listen()
    display.say(f"{len(plans)} run(s) starting in this process")
    with display.in_background():
        work_through(plans, stop)


def run_in_workers(plans: list[RunPlan], overrides: list[list[str]], display: Display) -> None:
    cluster = plans[0].config.cluster
    num_workers = min(len(plans), cluster.processes or places(cluster))
    folder = Path(plans[0].config.runs_dir) / ".jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    sweep = _Sweep(overrides, folder, cluster)
    try:
        display.say(f"{len(plans)} run(s), {num_workers} worker(s) starting")
        sweep.run_all(plans, num_workers, display)
    except KeyboardInterrupt:
        display.note("stopping: each run saves a checkpoint after its step (Ctrl-C again to stop at once)")
        sweep.stop(display)


def places(cluster: ClusterConfig) -> int:
    """Number of workers that this machine has room for: each rank of a worker takes a GPU, or `threads` cores."""
    num_gpus = gpus(cluster)
    if num_gpus and num_gpus < cluster.ranks:
        raise ValueError(f"cluster.ranks={cluster.ranks}, but this machine has {num_gpus} GPUs: lower it, or cluster.device=cpu")
    return num_gpus // cluster.ranks or max(1, (os.cpu_count() or 1) // (cluster.threads * cluster.ranks))


def gpus(cluster: ClusterConfig) -> int:
    import torch

    return 0 if cluster.device == "cpu" else torch.cuda.device_count()


class _Sweep:
    """The workers of one launch, and their folder, in which a file named stop tells them to stop."""

    def __init__(self, overrides: list[list[str]], folder: Path, cluster: ClusterConfig):
        self.overrides, self.folder, self.cluster = overrides, folder, cluster
        self.launch_id = folder.name
        self.workers: dict[int, submitit.Job] = {}  # by place, which decides what GPUs a worker sees
        self.num_started = 0

    def run_all(self, plans: list[RunPlan], num_workers: int, display: Display) -> None:
        """Keep num_workers workers alive while runs are waiting."""
        limit = num_workers + MAX_DEATHS * len(plans)
        while True:
            self.workers = {place: worker for place, worker in self.workers.items() if not worker.done()}
            waiting = [plan for plan in plans if self.is_waiting(plan)]
            while len(self.workers) < min(num_workers, len(waiting)) and self.num_started < limit:
                with writing(self.folder):
                    self.start_worker(min(set(range(num_workers)) - self.workers.keys()))
            display.update()
            if not self.workers:
                if waiting:
                    self.show_worker_errors(display)
                return
            self.wait_for_change()

    def show_worker_errors(self, display: Display) -> None:
        """Show the errors of workers that could not write them into their runs' folders."""
        outputs = [path.read_text(errors="replace").splitlines() for path in sorted(self.folder.glob("*_log.err"))]
        for line in dict.fromkeys(line for lines in outputs for line in lines if LAST_WORDS.search(line)):
            display.note(line)

    def wait_for_change(self) -> None:
        """Wait until it is time to look at the runs again, or until a worker has ended."""
        end = time.monotonic() + POLL_SECONDS
        while time.monotonic() < end and not any(worker.done() for worker in self.workers.values()):
            time.sleep(0.05)

    def is_waiting(self, plan: RunPlan) -> bool:
        """Whether the run is not finished and has not failed in this launch."""
        status = plan.folder.read_status() or {}
        return not plan.folder.finished and not failed_in(status, self.launch_id)

    def start_worker(self, place: int) -> None:
        executor, ranks = submitit.LocalExecutor(self.folder), self.cluster.ranks
        executor.update_parameters(timeout_min=NO_LIMIT_MINUTES, tasks_per_node=ranks, **self.visible_gpus(place))
        threads = str(self.cluster.threads)
        tunables = os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # huge pages: decoding is a fifth faster
        variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
        if ranks > 1:
            variables["MASTER_PORT"] = str(free_port())
        with _inherited(**variables, GLIBC_TUNABLES=tunables):
            launcher = (os.getpid(), born(os.getpid()))
            self.workers[place] = executor.submit(work, self.overrides, self.cluster.threads, str(self.folder), launcher)
        self.num_started += 1

    def visible_gpus(self, place: int) -> dict:
        """submitit's options for the GPUs that a worker sees; without them it sees none."""
        ranks, num_gpus = self.cluster.ranks, gpus(self.cluster)
        if num_gpus == 0:
            return {}
        shown = [gpu % num_gpus for gpu in range(place * ranks, (place + 1) * ranks)]
        return {"gpus_per_node": ranks, "visible_gpus": shown}

    def stop(self, display: Display) -> None:
        (self.folder / "stop").touch()
        while any(not worker.done() for worker in self.workers.values()):
            display.update()
            time.sleep(POLL_SECONDS)


def work(overrides: list[list[str]], threads: int, folder: str, launcher: tuple[int, str | None]) -> None:
    """Go through the sweep's runs in a worker process. submitit calls this function; its arguments are plain values."""
    import torch

    from harness.settings.compose import compose_plan

    torch.set_num_threads(threads)
    stop_file = Path(folder) / "stop"
    stop = StopRequest(lambda: stop_file.exists() or born(launcher[0]) != launcher[1])
    stop.listen()
    plans = [compose_plan(job) for job in overrides]
    take_rank()
    ranks = init_ranks(plans[0].config.cluster.device)
    order = ranks.on_first(lambda: fewest_deaths_first(plans))
    work_through([plans[i] for i in order], stop, launch_id=Path(folder).name)


def fewest_deaths_first(plans: list[RunPlan]) -> list[int]:
    """Indices of the runs. Those that have killed their workers come last, so that they do not starve the others."""
    deaths = lambda i: sum(record.get("state") == "running" for record in plans[i].folder.attempts())
    return sorted(range(len(plans)), key=deaths)


def work_through(plans: list[RunPlan], stop: StopRequest, launch_id: str | None = None) -> None:
    """Attempt each run that is free. A failure is written into the run's folder and does not stop the others.

    Ranks go through the runs together. When one rank fails, all end, because the others are in the middle of that run.
    """
    with importing():
        from harness.run import train

    ranks = current_ranks()
    for plan in plans:
        if ranks.any(stop()):
            return
        if launch_id and ranks.on_first(lambda plan=plan: failed_in(plan.folder.read_status() or {}, launch_id)):
            continue
        try:
            attempt(plan, train, stop, launch_id)
        except Exception as error:
            log.error("%s failed: %s%s", plan.run_id, error, traceback_note(plan.folder))
            if ranks.size > 1:
                raise


def take_rank() -> None:
    """Set RANK, WORLD_SIZE, MASTER_ADDR, … of this task, if submitit has started several."""
    task = submitit.JobEnvironment()
    if task.num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if task.num_tasks > 1 and task.num_nodes == 1:  # a machine may be unable to resolve its own name
        os.environ["MASTER_ADDR"] = "127.0.0.1"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def failed_in(status: dict, launch_id: str) -> bool:
    return status.get("state") == "failed" and status.get("launch") == launch_id


@contextmanager
def _inherited(**variables: str):
    """Context whose child processes inherit these variables and ignore Ctrl-C, unless they handle it (StopRequest.listen)."""
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
