"""Wall-clock time of each stage: `with timer("rollout"): …` adds its duration to the metric time/rollout."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager


class Timer:
    """Sums the seconds spent in each named stage; time/step runs from the timer's creation."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.created = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        stages = {f"time/{stage}": round(seconds, 6) for stage, seconds in self.seconds.items()}
        return stages | {"time/step": round(time.perf_counter() - self.created, 6)}


def throughput(row: dict[str, float]) -> dict[str, float]:
    """Sampled and learned tokens per second, from the token counts and stage times of a step's row."""
    learner_seconds = sum(row.get(f"time/{stage}", 0.0) for stage in ("forward_backward", "rule", "optimizer", "minibatch_pass"))
    derived = {}
    if row.get("time/rollout") and row.get("cost/sampled_tokens"):
        derived["time/tokens_per_s_rollout"] = round(row["cost/sampled_tokens"] / row["time/rollout"], 1)
    if learner_seconds and row["cost/learned_tokens"]:
        derived["time/tokens_per_s_learner"] = round(row["cost/learned_tokens"] / learner_seconds, 1)
    return derived
