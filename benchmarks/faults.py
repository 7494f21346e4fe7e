"""Kill a sweep at random moments until it is done, then compare it with an undisturbed sweep.

    python -m benchmarks.faults --kills 50
    python -m benchmarks.faults --slurm --kills 20       on a SLURM of two nodes (benchmarks/faults_slurm.py)

Both sweeps run the same command. One of them gets SIGKILL, launcher and workers alike, at seeded random moments after its
first run has begun, and is issued again each time. Afterwards every run must hold the same metrics (time columns apart),
evaluations, samples, recordings and last checkpoint, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.files import read_json
from harness.store import RunFolder, find_runs

SETTINGS = ("train.steps=6", "train.prompts_per_step=4", "checkpoint.every=2", "eval.every=3", "eval.benchmarks=[chain4]")
QUIET = ("harness.display=none", "cluster.processes=2")


def differences(expected: RunFolder, found: RunFolder) -> list[str]:
    """Lines that name what differs between two run folders; empty if only the times differ."""
    parts = {
        "metrics": lambda folder: [without_times(row) for row in folder.rows("metrics")],
        "evals": lambda folder: folder.rows("evals"),
        "samples": lambda folder: contents(folder, "samples"),
        "recordings": lambda folder: contents(folder, "traces") | contents(folder, "batches"),
        "last checkpoint": last_checkpoint,
        "state": lambda folder: {key: (folder.read_status() or {}).get(key) for key in ("state", "step", "collapse_step")},
    }
    return [f"{found.path}: {name} differ" for name, read in parts.items() if same(read(expected)) != same(read(found))]


def same(value: object) -> str:
    """Text that is equal for equal values only: floats as they are stored, keys in their order."""
    return json.dumps(value)


def without_times(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith("time/")}


def contents(folder: RunFolder, name: str) -> dict[str, str]:
    return {path.name: path.read_bytes().hex() for path in sorted((folder.path / name).glob("[!.]*"))}


def last_checkpoint(folder: RunFolder) -> dict | None:
    """Manifest of the last checkpoint: step, counters and the hash of every file."""
    steps = [int(path.name.removeprefix("step=")) for path in (folder.path / "checkpoints").glob("step=*")]
    return read_json(folder.path / "checkpoints" / f"step={max(steps, default=0)}" / "manifest.json")


def command(methods: str, seeds: str, runs_dir: Path, settings: list[str]) -> list[str]:
    sweep = [f"method={methods}", f"seed={seeds}", f"runs_dir={runs_dir}"]
    return [sys.executable, "-m", "harness", "-m", *sweep, *SETTINGS, *QUIET, *settings]


def start(words: list[str]) -> subprocess.Popen:
    """Start a command in a new session, which its workers share."""
    return subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_all(process: subprocess.Popen) -> None:
    """Send SIGKILL to the launcher and to all processes that it started, directly or not."""
    family = descendants(process.pid)
    for pid in [process.pid, *family]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(word) for word in children.read_text().split()] if children.exists() else []
    return found + [below for child in found for below in descendants(child)]


def begun(runs_dir: Path, since: float) -> bool:
    """Whether a process has taken a run below `runs_dir` after the time `since`."""
    return any(path.stat().st_mtime > since for path in runs_dir.glob("*/*/*/*/lock.json"))


def campaign(words: list[str], runs_dir: Path, kills: int, span: float, seed: int) -> int:
    """Kill and re-issue a sweep until `kills` kills have hit or it ends before its kill is due. Returns how many hit."""
    rng = random.Random(seed)
    for hit in range(kills):
        since, process = time.time(), start(words)
        while process.poll() is None and not begun(runs_dir, since):
            time.sleep(0.02)
        try:
            process.wait(rng.uniform(0.0, span))
            return hit
        except subprocess.TimeoutExpired:
            kill_all(process)
    return kills


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=None, help="50, and 20 with --slurm")
    parser.add_argument("--methods", default="dppo,cppo")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--span", type=float, default=None, help="seconds from the first run's begin in which a kill falls")
    parser.add_argument("--folder", type=Path, default=None, help="default: a temporary one, removed afterwards")
    parser.add_argument("--slurm", action="store_true", help="faults on a SLURM of two nodes, brought up on this machine")
    parser.add_argument("settings", nargs="*", help="further settings of the sweep, key=value")
    chosen = parser.parse_args(arguments)
    if chosen.slurm:
        from benchmarks import faults_slurm

        return faults_slurm.main(20 if chosen.kills is None else chosen.kills, chosen.seed, differences)
    chosen.kills = 50 if chosen.kills is None else chosen.kills
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        return report(chosen, folder)
    finally:
        if chosen.folder is None:
            shutil.rmtree(folder)


def report(chosen: argparse.Namespace, folder: Path) -> int:
    """Kill and compare sweeps until enough kills have hit, and print the outcome. Returns the exit status."""
    started, hits, sweeps, problems = time.monotonic(), 0, 0, []
    longest = undisturbed_seconds(chosen, folder / "undisturbed")
    span = chosen.span or longest / 2
    while hits < chosen.kills:
        sweeps += 1
        killed = folder / f"killed-{sweeps}"
        words = command(chosen.methods, chosen.seeds, killed, chosen.settings)
        hits += campaign(words, killed, chosen.kills - hits, span, chosen.seed + sweeps)
        finished = subprocess.run(words, stdout=subprocess.DEVNULL).returncode
        problems += [f"{killed}: the last command ended with {finished}"] if finished else []
        problems += compare(folder / "undisturbed", killed)
        seconds = time.monotonic() - started
        print(f"sweep {sweeps}: {hits} of {chosen.kills} kills, {len(problems)} problems, {seconds:.0f} s", flush=True)
    print("\n".join(problems) or f"{hits} kills in {sweeps} sweeps: every file is as in the undisturbed sweep")
    return 1 if problems else 0


def undisturbed_seconds(chosen: argparse.Namespace, runs_dir: Path) -> float:
    """Run the sweep to its end. Returns the seconds since its first run began."""
    process = start(command(chosen.methods, chosen.seeds, runs_dir, chosen.settings))
    while process.poll() is None and not begun(runs_dir, 0.0):
        time.sleep(0.02)
    first = time.monotonic()
    if process.wait():
        raise RuntimeError(f"the undisturbed sweep in {runs_dir} ended with {process.returncode}")
    return time.monotonic() - first


def compare(expected: Path, found: Path) -> list[str]:
    problems = []
    for run in find_runs(expected):
        problems += differences(run, RunFolder(found / run.path.relative_to(expected)))
    return problems


if __name__ == "__main__":
    raise SystemExit(main())
