"""Tests a sweep under faults on a real SLURM: `python -m benchmarks.faults --slurm`.

A sweep of nine runs on the two-node cluster of tests/slurm/cluster.py suffers faults of eight kinds at seeded random times.
Between them the output of `python -m slurm status` is compared with `scontrol show job`, and lost or cancelled runs are
resubmitted, as a user would do. Afterwards every run must equal that of an undisturbed sweep, byte for byte: metrics (time
columns apart), evaluations, samples, recordings and last checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from harness.store import RunFolder
from slurm.record import find_folders

ROOT = Path(__file__).parents[1]
SWEEP = ("method=cppo,dppo,grpo", "seed=1,2,3")
SETTINGS = (
    "train.steps=40", "train.prompts_per_step=4", "train.group_size=4", "train.updates_per_step=2", "checkpoint.every=3",
    "eval.every=20", "eval.benchmarks=[chain4]", "eval.max_response_length=6", "harness.display=none",
)  # fmt: skip
ON_SLURM = ("cluster=slurm", "cluster.cpus_per_task=1", "cluster.array_parallelism=4")
NODE_DOWN_SECONDS = 8.0
LIMIT_SECONDS = 1500.0
ALLOWED = {  # state of a job in scontrol: states that `status` may give its run; a finished run is finished in any case
    "PENDING": {"pending"},
    "RUNNING": {"running"},
    "COMPLETING": {"running"},
    "CANCELLED": {"cancelled"},
    "FAILED": {"lost"},
    "NODE_FAIL": {"lost"},
    "TIMEOUT": {"lost"},
    "COMPLETED": {"lost"},
}


def cluster_module() -> ModuleType:
    """The module tests/slurm/cluster.py, loaded by its path because tests/ is not installed."""
    spec = importlib.util.spec_from_file_location("cluster", ROOT / "tests" / "slurm" / "cluster.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Campaign:
    """One disturbed sweep."""

    def __init__(self, cluster, runs: Path, seed: int):
        self.cluster, self.runs, self.rng = cluster, runs, random.Random(seed)
        self.looks, self.wrong, self.faults = 0, [], Counter()
        self.dead: dict[str, float] = {}  # node → time at which it comes back
        self.started = time.monotonic()

    def run(self, count: int) -> None:
        """Inject faults at random intervals until `count` have hit, then wait until every run is completed."""
        self.submit()
        due = time.monotonic() + self.rng.uniform(8.0, 12.0)
        while time.monotonic() - self.started < LIMIT_SECONDS:
            self.revive()
            rows = self.look()
            if rows and all(row["state"] == "completed" for row in rows):
                return
            if any(row["state"] in ("lost", "failed", "cancelled") for row in rows):
                self.command("slurm", "resubmit", str(self.runs))
            if self.faults.total() < count and time.monotonic() >= due and self.strike(rows):
                due = time.monotonic() + self.rng.uniform(0.5, 5.0)
            time.sleep(0.3)
        self.wrong.append(f"not done after {LIMIT_SECONDS:.0f} s")

    def submit(self) -> None:
        self.command("harness", "-m", *SWEEP, *SETTINGS, *ON_SLURM, f"runs_dir={self.runs}")

    def command(self, module: str, *words: str) -> str:
        line = [sys.executable, "-m", module, *words]
        result = subprocess.run(line, cwd=ROOT, env=self.cluster.env, capture_output=True, text=True)
        if result.returncode and "status" not in words:
            self.wrong.append(f"{' '.join(words)}: {result.stderr.strip()[-300:]}")
        return result.stdout

    def look(self) -> list[dict]:
        """Rows of `status`, after a check against the jobs as scontrol shows them just before and just after."""
        before = self.cluster.jobs()
        rows = json.loads(self.command("slurm", "status", str(self.runs), "--json"))
        after = self.cluster.jobs()
        self.looks += 1
        for row in rows:
            job_states = [jobs.get(row["job_id"], {}).get("JobState") for jobs in (before, after)]
            allowed = set().union(*(ALLOWED.get(state, set()) for state in job_states))
            done = RunFolder(Path(row["folder"])).last_step() == row["steps"] and row["state"] == "completed"
            if row["state"] not in allowed and not done:
                self.wrong.append(
                    f"{row['folder']}: status says {row['state']} ({row['note']}), scontrol {' then '.join(map(str, job_states))}"
                )
        return rows

    def strike(self, rows: list[dict]) -> bool:
        """Inject one fault into one run whose job is running; False if none could be injected."""
        targets = [row for row in rows if row["state"] == "running" and row["job_state"] == "RUNNING"]
        if not targets:
            return False
        target = self.rng.choice(targets)
        kinds = self.rng.sample(list(FAULTS), len(FAULTS))
        kind = next((kind for kind in kinds if FAULTS[kind](self, target)), None)
        if kind is None:
            return False
        self.faults[kind] += 1
        seconds = time.monotonic() - self.started
        print(f"[{seconds:6.1f} s] {kind:<16} {target['preset']} seed={target['seed']} at step {target['step']}", flush=True)
        return True

    def revive(self) -> None:
        for node in [node for node, moment in self.dead.items() if time.monotonic() >= moment]:
            self.cluster.start_node(node)
            del self.dead[node]


def kill_process(campaign: Campaign, target: dict) -> bool:
    return signal_process(target, signal.SIGKILL)


def terminate_process(campaign: Campaign, target: dict) -> bool:
    return signal_process(target, signal.SIGTERM)


def signal_process(target: dict, number: signal.Signals) -> bool:
    """Send a signal to the process that holds the run; False if there is none yet."""
    owner = RunFolder(Path(target["folder"])).lock.owner()
    with suppress(ProcessLookupError):
        if owner:
            os.kill(owner["pid"], number)
            return True
    return False


def kill_starting(campaign: Campaign, target: dict) -> bool:
    """Send SIGKILL to the job's Python process, whether it is importing or training."""
    return kill_pid(campaign.cluster.task(target["job_id"]))


def kill_batch(campaign: Campaign, target: dict) -> bool:
    """Kill the shell of the batch script: SLURM then calls the job failed, and nothing is left to requeue it."""
    return kill_pid(campaign.cluster.batch_script(target["job_id"]))


def kill_pid(pid: int | None) -> bool:
    """Send SIGKILL to a process; False if there is none."""
    if pid is None:
        return False
    os.kill(pid, signal.SIGKILL)
    return True


def kill_node(campaign: Campaign, target: dict) -> bool:
    if campaign.dead or not target["nodes"]:
        return False
    campaign.cluster.kill_node(target["nodes"])
    campaign.dead[target["nodes"]] = time.monotonic() + NODE_DOWN_SECONDS
    return True


def requeue(campaign: Campaign, target: dict) -> bool:
    return campaign.cluster.answers("scontrol", "requeue", target["job_id"])


def warn(campaign: Campaign, target: dict) -> bool:
    """Send the signal that SLURM sends before a time limit or a preemption."""
    return campaign.cluster.answers("scancel", "--signal=USR2", target["job_id"])


def cancel(campaign: Campaign, target: dict) -> bool:
    return campaign.cluster.answers("scancel", target["job_id"])


FAULTS: dict[str, Callable[[Campaign, dict], bool]] = {
    "kill -9": kill_process,
    "SIGTERM": terminate_process,
    "kill -9 anywhere": kill_starting,
    "kill -9 batch": kill_batch,
    "node lost": kill_node,
    "scontrol requeue": requeue,
    "SIGUSR2": warn,
    "scancel": cancel,
}


def main(count: int, seed: int, differences: Callable[[RunFolder, RunFolder], list[str]]) -> int:
    """Run the campaign and compare. Returns 0 if every run ended as it should and `status` was never wrong."""
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with cluster_module().Cluster(folder / "slurm") as cluster:
            campaign = Campaign(cluster, folder / "disturbed", seed)
            campaign.run(count)
        here = [sys.executable, "-m", "harness", "-m", *SWEEP, *SETTINGS, f"runs_dir={folder}/undisturbed"]
        subprocess.run(here, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        expected = list(find_folders(folder / "undisturbed"))
        pairs = [(run, RunFolder(campaign.runs / run.path.relative_to(folder / "undisturbed"))) for run in expected]
        problems = campaign.wrong + [line for undisturbed, run in pairs for line in differences(undisturbed, run)]
        tries = sum((run.read_status() or {}).get("attempts", 0) for _, run in pairs)
    seconds, count_of = time.monotonic() - campaign.started, campaign.faults
    kinds = ", ".join(f"{number} {kind}" for kind, number in count_of.most_common())
    print(f"{count_of.total()} faults ({kinds}), {tries} attempts at {len(pairs)} runs, {campaign.looks} looks, {seconds:.0f} s")
    print("\n".join(problems) or "every run is as in the undisturbed sweep, and status was right at every look")
    return 1 if problems or count_of.total() < count else 0
