"""One rank of a tiny run, by orders in JSON: overrides, stop_after (a step), die (rank, step, how: kill | raise)."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

import torch

from harness.distributed import current_ranks, init_ranks
from harness.parts import Parts
from harness.run import train
from harness.runs.attempt import StopRequest, attempt
from harness.settings.compose import compose_plan


def parity_rewards(self: Parts, step: int, rollout) -> tuple[torch.Tensor, int]:
    """A reward that ten tokens can earn, so that every step has something to learn."""
    return ((rollout.tokens.sum(-1) + torch.arange(len(rollout.tokens))) % 2).float(), 0


def dying(die: dict, method: Callable) -> Callable:
    def wrapped(self: Parts, step: int, *rest):
        if step == die["step"] and current_ranks().rank == die["rank"]:
            if die["how"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyError("the graphics card fell out")
        return method(self, step, *rest)

    return wrapped


def main(orders: dict) -> None:
    torch.set_num_threads(1)
    init_ranks("cpu")
    plan = compose_plan(orders["overrides"])
    Parts.rewards = parity_rewards
    if orders.get("die"):
        Parts.rewards = dying(orders["die"], parity_rewards)
    attempt(plan, train, StopRequest(lambda: plan.folder.last_step() == orders.get("stop_after")))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
