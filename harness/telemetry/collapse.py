"""The rule that decides when a run counts as collapsed, from stored metrics only: the same during a run and afterwards. No torch.

The earliest breach is marked. The thresholds are train.collapse in the settings, the same for every method. Each check takes one
row at a time, so that a check after every step costs the same at step 10 and at step 10,000.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

FINITE_KEYS = ("actor/pg_loss", "actor/grad_norm", "actor/entropy", "mismatch/k3")  # stored as null if not finite
BY_MISMATCH = "mismatch KL"  # how the reason of a mismatch breach begins


@dataclass(frozen=True)
class Breach:
    step: int
    reason: str


class CollapseWatch:
    """Takes rows of metrics and evaluations, each in order of step; `breach` is the earliest one so far, or None."""

    def __init__(self, thresholds: Mapping, steps: int):
        window = max(thresholds["min_window"], round(thresholds["window"] * steps))
        self.row_checks = (
            NonFinite(),
            LowReward(thresholds["reward_share"], window),
            Entropy(thresholds["entropy_floor"], thresholds["entropy_rise"]),
            Lengths(thresholds["truncated_share"], thresholds["length_share"]),
            Mismatch(thresholds["mismatch_rise"], thresholds["mismatch_floor"], window),
        )
        self.evaluation_check = LowEvaluation(thresholds["eval_share"])
        self.breach: Breach | None = None

    def see(self, row: Mapping) -> None:
        for check in self.row_checks:
            self._note(check.see(row))

    def see_evaluation(self, step: int, score: float) -> None:
        self._note(self.evaluation_check.see(step, score))

    def _note(self, breach: Breach | None) -> None:
        if breach and (self.breach is None or breach.step < self.breach.step):
            self.breach = breach


def first_breach(
    metrics: Iterable[Mapping], evaluations: Iterable[tuple[int, float]], thresholds: Mapping, steps: int
) -> Breach | None:
    """The earliest breach of a run. metrics: rows by step; evaluations: (step, mean score over benchmarks) by step."""
    watch = CollapseWatch(thresholds, steps)
    for row in metrics:
        watch.see(row)
    for step, score in evaluations:
        watch.see_evaluation(step, score)
    return watch.breach


class NonFinite:
    """Breach if an update was skipped, or a rollout log-prob or a metric of FINITE_KEYS is not finite."""

    def see(self, row: Mapping) -> Breach | None:
        if row.get("health/updates_skipped"):
            return Breach(row["step"], "loss or gradient not finite")
        if row.get("health/nonfinite_rollout"):
            return Breach(row["step"], "rollout log-probs not finite")
        broken = [key for key in FINITE_KEYS if row.get(key, 0.0) is None]
        return Breach(row["step"], f"{', '.join(broken)} not finite") if broken else None


class LowReward:
    """Breach if the reward's trailing average stays under a share of its maximum for a window; marks the window's first step."""

    def __init__(self, share: float, window: int):
        self.share, self.window = share, window
        self.recent: deque[float] = deque(maxlen=window)
        self.best, self.low_since, self.num_low = 0.0, 0, 0

    def see(self, row: Mapping) -> Breach | None:
        self.recent.append(row["reward/mean"])
        average = sum(self.recent) / len(self.recent)
        self.best = max(self.best, average)
        if average >= self.share * self.best:
            self.num_low = 0
            return None
        self.num_low += 1
        self.low_since = row["step"] if self.num_low == 1 else self.low_since
        if self.num_low < self.window:
            return None
        return Breach(self.low_since, f"reward under {self.share:g} of its best for {self.window} steps")


class Entropy:
    """Breach if the entropy is under a floor, or over a multiple of its first value."""

    def __init__(self, floor: float, rise: float):
        self.floor, self.rise = floor, rise
        self.start: float | None = None

    def see(self, row: Mapping) -> Breach | None:
        entropy = row.get("actor/entropy")
        if entropy is None:
            return None
        self.start = entropy if self.start is None else self.start
        if entropy < self.floor:
            return Breach(row["step"], f"entropy under {self.floor:g}")
        if entropy > self.rise * self.start:
            return Breach(row["step"], f"entropy over {self.rise:g} times the start")
        return None


class Lengths:
    """Breach if too many responses are truncated, or if the mean length is under a share of its running median."""

    def __init__(self, truncated: float, share: float):
        self.truncated, self.share = truncated, share
        self.ordered: list[float] = []

    def see(self, row: Mapping) -> Breach | None:
        length = row["response_length/mean"]
        insort(self.ordered, length)
        if row["response_length/clip_ratio"] > self.truncated:
            return Breach(row["step"], f"over {self.truncated:.0%} of the responses truncated")
        if length < self.share * middle(self.ordered):
            return Breach(row["step"], f"length under {self.share:.0%} of its running median")
        return None


class Mismatch:
    """Breach if mismatch/k3 is over `floor` and over a multiple of its median in the first window.

    Below `floor` the mismatch is rounding noise, and its ratio to earlier noise means nothing.
    """

    def __init__(self, rise: float, floor: float, window: int):
        self.rise, self.floor, self.window = rise, floor, window
        self.start: list[float] = []

    def see(self, row: Mapping) -> Breach | None:
        value = row.get("mismatch/k3")
        if value is None:
            return None
        if len(self.start) < self.window:
            self.start.append(value)
            return None
        if value > max(self.floor, self.rise * median(self.start)):
            return Breach(row["step"], f"{BY_MISMATCH} over {self.rise:g} times its start")
        return None


class LowEvaluation:
    """Breach if two evaluations in a row are under a share of the best so far; marks the first of them."""

    def __init__(self, share: float):
        self.share = share
        self.best, self.low_at = 0.0, None

    def see(self, step: int, score: float) -> Breach | None:
        self.best = max(self.best, score)
        if score >= self.share * self.best:
            self.low_at = None
            return None
        if self.low_at is None:
            self.low_at = step
            return None
        return Breach(self.low_at, f"evaluation under {self.share:g} of its best twice in a row")


def middle(ordered: Sequence[float]) -> float:
    """The median of sorted values."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def benchmark_means(rows: Sequence[Mapping]) -> dict[int, dict[str, float]]:
    """{step: {benchmark: mean over problems}} from rows of evals.jsonl, steps ascending."""
    scores: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["step"], {}).setdefault(row["benchmark"], []).append(row["num_correct"] / row["n"])
    return {step: {name: mean(values) for name, values in scores[step].items()} for step in sorted(scores)}


def evaluation_means(rows: Sequence[Mapping]) -> list[tuple[int, float]]:
    """(step, mean over benchmarks of the mean over problems) from rows of evals.jsonl."""
    return [(step, mean(scores.values())) for step, scores in benchmark_means(rows).items()]
