"""Measure what recording costs: `python -m benchmarks.shadow [OVERRIDE…]`.

It trains a few steps of the default testbed in this process, without evaluation, and records each of them. It prints the median
seconds of a recording, the mean seconds of a step (a mean because some steps sample for several) and the share of recording in
the step time at the intervals of conf/config.yaml. Uses one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from harness.parts import build
from harness.run import learn
from harness.settings.compose import compose_plan, shipped_rules
from harness.settings.config import RecordConfig
from harness.timing import Timer

NOTHING = {"shadow_every": 0, "trace_prompts": 0, "batches_every": 0}
CASES = {
    "every rule: rows": {"shadow_every": 1},
    "every rule: rows and traces": {"shadow_every": 1, "trace_prompts": None},
    "whole minibatch": {"batches_every": 1},
}


def recording_seconds(changes: dict, overrides: list[str], num_steps: int) -> tuple[float, float]:
    """(median seconds of a recording, mean seconds of a step without it). None in `changes` keeps the shipped value."""
    settings = [f"record.{key}={value}" for key, value in (NOTHING | changes).items() if value is not None]
    with tempfile.TemporaryDirectory() as folder:
        plan = compose_plan([f"runs_dir={folder}", f"train.steps={num_steps}", *settings, *overrides])
        Path(plan.folder.path).mkdir(parents=True)
        parts, timers = build(plan), [Timer() for _ in range(num_steps)]
        start = time.perf_counter()
        for step, timer in enumerate(timers, 1):
            learn(parts, step, timer)
        total = time.perf_counter() - start
    recordings = [timer.seconds["record"] for timer in timers]
    return median(recordings), (total - sum(recordings)) / num_steps


def interval(case: str, record: RecordConfig) -> int:
    return record.batches_every if case == "whole minibatch" else record.shadow_every


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shadow", description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", help="settings of the run, such as method=cppo")
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = compose_plan(options.overrides).config.record
    start = time.perf_counter()
    num_rules = len(shipped_rules())
    print(f"{num_rules} rules; composing their settings, once in a process: {time.perf_counter() - start:.3f} s\n")
    print("| recorded | s | s of a step without | interval | share of step time |\n|---|---|---|---|---|")
    for case, changes in CASES.items():
        seconds, step = recording_seconds(changes, options.overrides, options.steps)
        every = interval(case, record)
        share = f"{seconds / every / step:.2%}" if every else "never"
        print(f"| {case} | {seconds:.4f} | {step:.3f} | {every} | {share} |")


if __name__ == "__main__":
    main()
