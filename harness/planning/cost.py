"""Estimates tokens, disk space and device-hours of a run, and the speed of a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.planning.memory import num_questions, size_of
from harness.planning.shape import Shape
from harness.settings.config import Config
from harness.store import RunFolder

GIB = 2**30
# Assumed rates where none was measured, as shares of the device's peak arithmetic and peak memory traffic. On an H200 the learner
# reached 0.16 at 0.6B parameters and 0.27 at 1.7B, vLLM 0.25 at 0.6B (docs/performance.md); larger work uses a GPU better.
LEARNER_SHARE, ROLLOUT_SHARE = 0.25, 0.25
LOGGED_ROW_BYTES, SAMPLE_BYTES_PER_TOKEN = 4_000, 2


@dataclass(frozen=True)
class Gpu:
    """Data-sheet values of a GPU. memory: usable bytes; flops: dense bfloat16 per second; bandwidth: bytes per second."""

    memory: float
    flops: float
    bandwidth: float


GPUS = {
    "a100-40": Gpu(39.4 * GIB, 312e12, 1.56e12),
    "a100-80": Gpu(79.2 * GIB, 312e12, 2.04e12),
    "h100": Gpu(79.1 * GIB, 989e12, 3.35e12),
    "h200": Gpu(139.7 * GIB, 989e12, 4.8e12),
    "b200": Gpu(178.3 * GIB, 2250e12, 8.0e12),
    "l40s": Gpu(44.5 * GIB, 362e12, 0.864e12),
    "rtx4090": Gpu(23.5 * GIB, 165e12, 1.008e12),
}


@dataclass(frozen=True)
class Rates:
    """Response tokens per second of one device."""

    rollout: float
    learner: float
    source: str


@dataclass(frozen=True)
class Work:
    """Response tokens of one run."""

    sampled: int
    learned: int
    evaluated: int


def work(config: Config, mean_response: float) -> Work:
    train, evaluation = config.train, config.eval
    sampled = int(train.steps * train.prompts_per_step * train.group_size * mean_response)
    num_evaluations = 2 + (train.steps - 1) // evaluation.every if evaluation.benchmarks else 0
    num_samples = num_questions(config) * evaluation.n
    return Work(sampled, sampled, int(num_evaluations * num_samples * min(mean_response, evaluation.max_response_length)))


def measured_rates(folder: Path) -> tuple[Rates, float]:
    """Median rates of a run's steps for each of its devices, and the median over steps of the mean response length."""
    if not folder.is_dir():
        raise ValueError(f"--like {folder}: no such folder; name the folder of a run that has trained some steps")
    rows = RunFolder(folder).rows("metrics")
    columns = {}
    for key in ("time/tokens_per_s_rollout", "time/tokens_per_s_learner", "response_length/mean"):
        values = [row[key] for row in rows if row.get(key)]
        if not values:
            raise ValueError(f"--like {folder}: no {key} in its metrics; name the folder of a run that has trained some steps")
        columns[key] = median(values)
    rollout, learner, length = columns.values()
    ranks = (RunFolder(folder).read_status() or {}).get("ranks", 1)
    return Rates(rollout / ranks, learner / ranks, f"measured in {folder}"), length


def assumed_rates(gpu: Gpu, config: Config, shape: Shape, mean_response: float) -> Rates:
    """Rates from data-sheet peaks.

    Arithmetic limits the learner: 6 operations per parameter and token, 8 with activation checkpointing. Memory traffic limits
    decoding: all weights, and the keys and values of all rows, are read for each token.
    """
    prompt = config.rollout.max_prompt_length / 2
    operations = (8 if config.cluster.activation_checkpointing else 6) * shape.num_active * (1 + prompt / mean_response)
    waiting = config.train.prompts_per_step * config.train.group_size / config.cluster.ranks
    rows = min(config.rollout.max_rows, waiting)
    size = size_of(config.rollout.precision)
    traffic = size * (shape.num_parameters + rows * shape.kv_elements() * (prompt + mean_response / 2))
    source = f"assumed: {LEARNER_SHARE:.0%} of peak arithmetic, {ROLLOUT_SHARE:.0%} of peak memory traffic; not measured here"
    return Rates(ROLLOUT_SHARE * gpu.bandwidth / traffic * rows, LEARNER_SHARE * gpu.flops / operations, source)


def device_hours(work: Work, rates: Rates) -> float:
    """Device-hours over all devices. At best, a run on twice as many devices takes half as long and costs the same."""
    return ((work.sampled + work.evaluated) / rates.rollout + work.learned / rates.learner) / 3600


def disk_bytes(config: Config, shape: Shape, work: Work) -> dict[str, int]:
    """Bytes on disk of one run, by part. Checkpoints include one more that is being written."""
    checkpoint, record, steps = config.checkpoint, config.record, config.train.steps
    checkpoint_bytes = 3 * shape.num_parameters * size_of(config.model.dtype)
    num_batches = steps // record.batches_every if record.batches_every else 0
    return {
        "checkpoints": checkpoint_bytes * (checkpoint.keep_last + checkpoint.keep_best + 1),
        "samples": SAMPLE_BYTES_PER_TOKEN * work.evaluated * record.samples,
        "recorded batches": int(num_batches * record.batch_max_mb * 1e6),
        "metrics": LOGGED_ROW_BYTES * steps,
    }
