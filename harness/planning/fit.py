"""Too little memory is said before anything is loaded: which part needs how much, and what to change.

Looked at is what is there for certain (weights, gradients, optimizer, copies), not what grows with the data: activations and
caches are estimated by `python -m harness.plan`. A run that passes here may still be too large; one that does not pass is.
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
    """ValueError, on all ranks when one of them has too little."""
    shape = Shape(shape_config(config.model))
    parts = [part for part in [*standing_parts(config, shape), *engine_parts(config, shape)] if part.name in REMEDIES]
    host = host_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if ranks.device.type == "cpu":
        found = shortage("the memory of this machine", parts, host)
    else:
        free = torch.cuda.mem_get_info(ranks.device)[0]
        found = shortage(f"the memory of {ranks.device}", [part for part in parts if not part.on_host], free)
        found = found or shortage("the memory of this machine", [part for part in parts if part.on_host], host)
    for rank, complaint in enumerate(ranks.gather(found)):
        if complaint:
            raise ValueError(f"rank {rank}: {complaint}" if ranks.size > 1 else complaint)


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
    """Bytes that this machine can still give; infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return float("inf")
