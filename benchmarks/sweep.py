"""Times the default sweep as a user runs it, as whole processes from start to end: `python -m benchmarks sweep`.

Values are seconds, except for sweep_layout, which is a ratio. With --quick only the starts are timed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ratio import Ratio
from harness.store import find_runs

LAYOUTS = {"2x1": ("cluster.processes=2", "cluster.threads=1"), "1x2": ("cluster.processes=1", "cluster.threads=2")}
RULES = "method=cppo,dppo,grpo"


def run(quick: bool) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as name:
        start_times = list(starts(Path(name), 2 if quick else 5))
        return start_times if quick else start_times + whole_sweeps(Path(name))


def starts(root: Path, num_rounds: int) -> Iterator[Ratio]:
    for key, words, text in (("start", (), "a run by itself"), ("start_in_worker", ("-m",), "a sweep's first run")):
        values = [start_seconds(root / key / str(i), *words) for i in range(num_rounds)]
        yield Ratio(f"{key}_seconds", f"{text} from the command to its first step, s", values, 4, at_most=True)


def whole_sweeps(root: Path) -> list[Ratio]:
    words = (RULES, "seed=1,2,3")
    seconds = {layout: sweep(root / layout, *words, *changes) for layout, changes in LAYOUTS.items()}
    again = [sweep(root / "2x1", *words, *LAYOUTS["2x1"]) for _ in range(3)]
    return [
        Ratio("sweep_seconds", "9 runs, two processes of one thread, s", [seconds["2x1"]], 120, at_most=True),
        Ratio("sweep_layout", "one process of two threads over that", [seconds["1x2"] / seconds["2x1"]], 1.0),
        Ratio("sweep_again_seconds", "the finished sweep given again, s", again, 5, at_most=True),
    ]


def sweep(folder: Path, *words: str) -> float:
    started = time.perf_counter()
    harness(folder, "-m", *words)
    return time.perf_counter() - started


def start_seconds(folder: Path, *words: str) -> float:
    """Seconds until the first step of a run of one step without evaluation: the time of its row less the step's duration."""
    started = time.time()
    harness(folder, *words, "method=grpo", "seed=1", "train.steps=1", "eval.benchmarks=[]")
    (only,) = find_runs(folder)
    return (only.path / "metrics.jsonl").stat().st_mtime - only.rows("metrics")[-1]["time/step"] - started


def harness(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "harness", *words, f"runs_dir={folder}", "harness.display=none"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
