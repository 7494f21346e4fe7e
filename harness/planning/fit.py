"""Checks that memory suffices before anything is loaded. The error says how much each part needs and what to change.

Only parts of known size count: weights, gradients, optimizer state, copies. Activations and caches grow with the data and are
estimated by `python -m harness.plan`. A run that passes this check may still be too large; one that fails it is too large.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from harness.distributed import Ranks
from harness.planning.memory import Part, engine_parts, peak, standing_parts
from harness.planning.shape import Shape, shape_config
from harness.settings.config import Config

REMEDIES = {
    "weights": "take more ranks (cluster.ranks), or a smaller model",
    "gradients": "take more ranks (cluster.ranks), or a smaller model",
    "optimizer": "set cluster.offload_optimizer=true where there is a GPU, or take more ranks (cluster.ranks)",
    "gathered layers": "take a smaller model",
    "rollout weights": "set rollout.precision=bfloat16, or take a smaller model",
}


def check_memory(config: Config, ranks: Ranks) -> None:
    """Raise ValueError on all ranks when one of them has too little memory."""
    shape = Shape(shape_config(config.model))
    parts = [part for part in [*standing_parts(config, shape), *engine_parts(config, shape)] if part.name in REMEDIES]
    host = host_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if ranks.device.type == "cpu":
        complaint = shortage("the memory of this machine", parts, host)
    else:
        free = torch.cuda.mem_get_info(ranks.device)[0]
        complaint = shortage(f"the memory of {ranks.device}", [part for part in parts if not part.on_host], free)
        complaint = complaint or shortage("the memory of this machine", [part for part in parts if part.on_host], host)
    for rank, message in enumerate(ranks.gather(complaint)):
        if message:
            raise ValueError(f"rank {rank}: {message}" if ranks.size > 1 else message)


def shortage(place: str, parts: list[Part], available: float) -> str | None:
    if not parts or peak(parts) <= available:
        return None
    ordered = sorted((part for part in parts if part.bytes), key=lambda part: -part.bytes)
    listed = ", ".join(f"{part.name} {gigabytes(part.bytes)}" for part in ordered)
    return (
        f"{place} is too small: {gigabytes(peak(parts))} are needed at least and {gigabytes(available)} are free ({listed}). "
        f"The largest part is {ordered[0].name}: {REMEDIES[ordered[0].name]}"
    )


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.3g} GB"


def host_memory() -> float:
    """Bytes of available memory of this machine; infinity where /proc/meminfo does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")
