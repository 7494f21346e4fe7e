"""When a run counts as collapsed: a written rule on stored metrics, the same online and afterwards. No torch.

The first breach is marked. Thresholds: train.collapse in the settings, the same for every method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median


@dataclass(frozen=True)
class Breach:
    step: int
    reason: str


def first_breach(metrics: Sequence[Mapping], evaluations: Sequence[tuple[int, float]], thresholds: Mapping, steps: int) -> Breach | None:
    """metrics: rows by step; evaluations: (step, mean score over benchmarks) by step; steps: train.steps."""
    window = max(1, round(thresholds["window"] * steps))
    checks = (
        non_finite(metrics),
        low_reward(metrics, thresholds["reward_share"], window),
        entropy_out_of_range(metrics, thresholds["entropy_floor"], thresholds["entropy_rise"]),
        broken_lengths(metrics, thresholds["truncated_share"], thresholds["length_share"]),
        mismatch_rise(metrics, thresholds["mismatch_rise"], thresholds["mismatch_floor"], window),
        low_evaluation(evaluations, thresholds["eval_share"]),
    )
    breaches = [next(check, None) for check in checks]
    return min((b for b in breaches if b), key=lambda b: b.step, default=None)


def non_finite(metrics: Sequence[Mapping]) -> Iterator[Breach]:
    for row in metrics:
        if row.get("health/updates_skipped", 0) > 0:
            yield Breach(row["step"], "loss or gradient not finite")


def low_reward(metrics: Sequence[Mapping], share: float, window: int) -> Iterator[Breach]:
    """The trailing average stays under a share of its own maximum for a whole window; the window's first step is marked."""
    best, low_since, num_low = 0.0, 0, 0
    for i, row in enumerate(metrics):
        average = mean(r["reward/mean"] for r in metrics[max(0, i + 1 - window) : i + 1])
        best = max(best, average)
        if average >= share * best:
            num_low = 0
            continue
        num_low += 1
        low_since = row["step"] if num_low == 1 else low_since
        if num_low == window:
            yield Breach(low_since, f"reward under {share:g} of its best for {window} steps")


def entropy_out_of_range(metrics: Sequence[Mapping], floor: float, rise: float) -> Iterator[Breach]:
    entropies = [(row["step"], row["actor/entropy"]) for row in metrics if "actor/entropy" in row]
    for step, entropy in entropies:
        if entropy < floor:
            yield Breach(step, f"entropy under {floor:g}")
        elif entropy > rise * entropies[0][1]:
            yield Breach(step, f"entropy over {rise:g} times the start")


def broken_lengths(metrics: Sequence[Mapping], truncated: float, share: float) -> Iterator[Breach]:
    lengths = []
    for row in metrics:
        lengths.append(row["response_length/mean"])
        if row["response_length/clip_ratio"] > truncated:
            yield Breach(row["step"], f"over {truncated:.0%} of the responses truncated")
        elif lengths[-1] < share * median(lengths):
            yield Breach(row["step"], f"length under {share:.0%} of its running median")


def mismatch_rise(metrics: Sequence[Mapping], rise: float, floor: float, window: int) -> Iterator[Breach]:
    """`floor`: below it a difference is rounding noise, whose ratio to earlier noise means nothing."""
    values = [(row["step"], row["mismatch/k3"]) for row in metrics if "mismatch/k3" in row]
    limit = max(floor, rise * median([value for _, value in values[:window]] or [0.0]))
    for step, value in values[window:]:
        if value > limit:
            yield Breach(step, f"mismatch KL over {rise:g} times its start")


def low_evaluation(evaluations: Sequence[tuple[int, float]], share: float) -> Iterator[Breach]:
    """Two evaluations in a row under a share of the best so far; the first of them is marked."""
    best, low_at = 0.0, None
    for step, score in evaluations:
        best = max(best, score)
        if score >= share * best:
            low_at = None
        elif low_at is not None:
            yield Breach(low_at, f"evaluation under {share:g} of its best twice in a row")
        else:
            low_at = step


def evaluation_means(rows: Sequence[Mapping]) -> list[tuple[int, float]]:
    """(step, mean over benchmarks of the mean over problems) from rows of evals.jsonl."""
    scores: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        scores.setdefault(row["step"], {}).setdefault(row["benchmark"], []).append(row["num_correct"] / row["n"])
    return [(step, mean(mean(values) for values in by_benchmark.values())) for step, by_benchmark in sorted(scores.items())]
