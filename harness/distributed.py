"""The processes of one run: each owns a device, holds a shard of the model and takes a share of the rows.

A process works alone, or it is one of several ranks that torchrun, SLURM or the harness's own launcher started with RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in the environment. In a process that works alone, no method of `Ranks`
communicates, so one code path serves one process and many.

All ranks run the same loop with the same values. Rank 0 also grades and writes the run's folder.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # the longest wait for a slow rank; harness.runs.rank_watch notices a dead one


@dataclass(frozen=True)
class Ranks:
    """This process's rank among the ranks of its run, its device, and collective operations on Python values."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @cached_property
    def mesh(self) -> dist.DeviceMesh | None:
        """The device mesh over which parameters are sharded; None for a single rank."""
        return dist.init_device_mesh(self.device.type, (self.size,)) if self.size > 1 else None

    def gather(self, value: Any) -> list:
        """Every rank's value on every rank, in order of rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_to_first(self, value: Any) -> list:
        """Every rank's value in order of rank, on rank 0; an empty list on the others."""
        if self.size == 1:
            return [value]
        values = [None] * self.size if self.is_first else None
        dist.gather_object(value, values)
        return values or []

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        values = [value if self.is_first else None]
        dist.broadcast_object_list(values)
        return values[0]

    def on_first(self, function: Callable[[], Any]) -> Any:
        """Call `function` on rank 0 alone. All ranks get what it returns, or raise its error."""
        if self.size == 1:
            return function()
        value, error = None, None
        if self.is_first:
            try:
                value = function()
            except Exception as raised:
                error = raised
        value, error = self.broadcast((value, error))
        if error is not None:
            raise error
        return value

    def any(self, condition: bool) -> bool:
        return any(self.gather(condition))

    def sum(self, value: float) -> float:
        return sum(self.gather(value))


ALONE = Ranks()
_current = ALONE


def current_ranks() -> Ranks:
    """The `Ranks` of this process, as set by `init_ranks`; before that, a single rank."""
    return _current


def world_size() -> int:
    """Number of ranks of this run, from the launcher's environment; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """True on rank 0. Reads the environment, so it also works before `init_ranks`."""
    return int(os.environ.get("RANK", 0)) == 0


def init_ranks(device: str) -> Ranks:
    """Make this process one of the ranks that its environment describes. `device`: auto | cpu | cuda."""
    global _current
    rank, size = int(os.environ.get("RANK", 0)), world_size()
    place = local_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if size > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
        atexit.register(leave)
    _current = Ranks(rank, size, place)
    return _current


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device(device: str, local_rank: int = 0) -> torch.device:
    """This rank's device. If one GPU is visible it is that one, since a launcher may show each rank only its own."""
    count = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and count == 0):
        return torch.device("cpu")
    if count == 0:
        raise ValueError("cluster.device=cuda, but torch sees no GPU here: set cluster.device=auto or cpu")
    if local_rank >= count > 1:
        raise ValueError(f"rank {local_rank} of this machine has no GPU of its own ({count} are visible): lower cluster.ranks")
    return torch.device("cuda", local_rank if count > 1 else 0)
