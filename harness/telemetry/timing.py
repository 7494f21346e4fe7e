"""Wall time by stage: `with timer("rollout"): …` adds up to time/rollout."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager


class Timer:
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
