"""AdamW with its moments in host memory instead of beside the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor


class HostAdamW(torch.optim.AdamW):
    """AdamW on copies of the weights in host memory, where its moments stay: gradients are copied there, weights copied back.

    The arithmetic is AdamW's: on a CPU a step gives the same bits, on a GPU it differs by the device's rounding.
    """

    def __init__(self, parameters: Iterable[Tensor], *settings, **options):
        self.sources = list(parameters)
        self.copies = [on_host(parameter) for parameter in self.sources]
        super().__init__(self.copies, *settings, **options)

    @torch.no_grad()
    def step(self) -> None:
        for source, copy in zip(self.sources, self.copies, strict=True):
            local(copy).copy_(local(source))
            copy.grad = None if source.grad is None else on_host(source.grad)
        super().step()
        for source, copy in zip(self.sources, self.copies, strict=True):
            local(source).copy_(local(copy))

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for source in self.sources:
            source.grad = None


def on_host(value: Tensor) -> Tensor:
    """A copy of `value` in host memory, sharded over the ranks as `value` is."""
    copy = local(value).detach().to("cpu", copy=True)
    if not isinstance(value, DTensor):
        return copy
    mesh = init_device_mesh("cpu", (value.device_mesh.size(),))
    return DTensor.from_local(copy, mesh, value.placements, run_check=False, shape=value.shape, stride=value.stride())


def local(value: Tensor) -> Tensor:
    """This rank's shard of `value`; `value` itself if it is not sharded."""
    return value.to_local() if isinstance(value, DTensor) else value
