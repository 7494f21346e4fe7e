"""Measures peak memory and speed of two real training steps, which run in a separate process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

from evals.grader import Grader
from evals.records import Grade

PROMPT_RETURN = "glibc.malloc.mmap_threshold=65536"  # memory that a tensor frees is returned to the system at once


def measure(overrides: list[str]) -> dict:
    """Measurements of two steps: {"device", "peak": bytes, "rollout" and "learner": tokens per second}.

    On a CPU, peak is what the process allocates beyond its imports; on a GPU, it is the peak of allocated GPU memory.
    """
    environment = {"GLIBC_TUNABLES": PROMPT_RETURN} | os.environ
    command = [sys.executable, "-m", __name__, *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


class EverySecondRight(Grader):
    """Calls every second response correct, so that every group has something to learn, whatever the model can do."""

    name, version = "every_second", "every_second/1"

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        return [Grade("correct" if i % 2 else "wrong") for i in range(len(responses))]


def two_steps(overrides: list[str]) -> dict:
    import torch

    from harness.distributed import init_ranks
    from harness.parts import build
    from harness.run import learn
    from harness.settings.compose import compose_plan
    from harness.timing import Timer, throughput

    with tempfile.TemporaryDirectory() as folder, Watermark() as watermark:
        plan = compose_plan([*overrides, f"runs_dir={folder}", "tracker=none"])
        plan.config.train.steps = max(plan.config.train.steps, 2 + plan.config.rollout.lag)  # else step 2 samples nothing
        plan.folder.path.mkdir(parents=True)
        torch.set_num_threads(plan.config.cluster.threads or torch.get_num_threads())
        init_ranks(plan.config.cluster.device)
        parts = build(plan)
        parts.reward_grader = EverySecondRight()
        for step in (1, 2):
            timer = Timer()
            row = learn(parts, step, timer)
        row |= throughput(row | timer.metrics())
        device = next(parts.model.parameters()).device.type
    rates = {name: row.get(f"time/tokens_per_s_{name}", 0.0) for name in ("rollout", "learner")}
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else watermark.bytes
    return {"device": device, "peak": peak} | rates


class Watermark(Thread):
    """Context whose thread records the peak of bytes that this process allocates inside it; mapped files don't count."""

    PERIOD_S = 0.002

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.highest, self.done = allocated(), 0, Event()

    def run(self) -> None:
        while not self.done.wait(self.PERIOD_S):
            self.highest = max(self.highest, allocated())

    @property
    def bytes(self) -> int:
        return self.highest - self.before

    def __enter__(self) -> Watermark:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.done.set()
        self.join()


def allocated() -> int:
    """Anonymous resident memory of this process in bytes (Linux only)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    print(json.dumps(two_steps(sys.argv[1:])))
