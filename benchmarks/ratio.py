"""Clocks and ratios of alternatives ("sides") that are timed in turns, round by round, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import torch


@dataclass(frozen=True)
class Ratio:
    """One figure, with a value for each round. `target` is the least value wanted, or with at_most the greatest."""

    key: str
    text: str
    values: list[float]
    target: float | None = None
    at_most: bool = False

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def holds(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def row(self) -> str:
        sign = "≤" if self.at_most else "≥"
        target = "" if self.target is None else f"{sign} {self.target:g} {'yes' if self.holds else 'no'}"
        spread = f"{min(self.values):.3f} – {max(self.values):.3f}"
        return f"| {self.key} | {self.text} | {self.value:.3f} | {spread} | {len(self.values)} | {target} |"


HEAD = "| key | what | median | from – to | rounds | target |\n|---|---|---|---|---|---|"


def now() -> float:
    """Seconds of a monotonic clock, read after the GPU (if any) has finished its queued work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class Clock:
    """Seconds by name of stage, the tokens that they were spent on, and peak memory."""

    seconds: dict[str, float] = field(default_factory=dict)
    tokens: int = 1
    peak: int = 0  # bytes of GPU memory, where measured

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = now()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + now() - start

    def per_token(self, name: str) -> float:
        return self.seconds[name] / self.tokens


def interleaved(sides: dict[str, Callable[[], Clock]], num_rounds: int) -> dict[str, list[Clock]]:
    """Clocks of num_rounds calls of each side, after one to warm up. Sides take turns: what slows the machine slows them all."""
    for side in sides.values():
        side()
    rounds: dict[str, list[Clock]] = {name: [] for name in sides}
    for _ in range(num_rounds):
        for name, side in sides.items():
            rounds[name].append(side())
    return rounds


def faster(rounds: dict[str, list[Clock]], than: str, side: str, name: str) -> list[float]:
    """How many times as fast `side` is as `than`, per token, in each round."""
    return [theirs.per_token(name) / ours.per_token(name) for theirs, ours in zip(rounds[than], rounds[side], strict=True)]
