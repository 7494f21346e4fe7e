"""AdamW, with its moments beside the weights or in host memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor


class HostAdamW(torch.optim.AdamW):
    """Steps copies of the weights in host memory, where the moments stay: gradients come there, weights go back.

    The same arithmetic on the same numbers: a step differs from AdamW's by the device's rounding, on a CPU by nothing.
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
    """A copy in host memory, divided over the ranks as `value` is."""
    copy = local(value).detach().to("cpu", copy=True)
    if not isinstance(value, DTensor):
        return copy
    mesh = init_device_mesh("cpu", (value.device_mesh.size(),))
    return DTensor.from_local(copy, mesh, value.placements, run_check=False, shape=value.shape, stride=value.stride())


def local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
