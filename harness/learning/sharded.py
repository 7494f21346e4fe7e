"""How a model is divided over ranks (FSDP2): each layer is gathered when it computes, and kept in shards otherwise.

The gradient is the sum over ranks: every rank's loss has the denominators of the whole minibatch already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from harness.distributed import Ranks


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The modules that the model's authors declare indivisible: its decoder layers."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def recompute_activations(model: nn.Module) -> None:
    """Keep each layer's input only, and compute the rest again in the backward pass: the same numbers, more arithmetic."""
    for layer in layers_of(model):
        layer.forward = partial(recomputed, layer.forward)


def recomputed(forward: Callable, *inputs, **named):
    if not torch.is_grad_enabled():  # sampling, with a cache that may be written once only
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


def shard(root: nn.Module, model: nn.Module, ranks: Ranks) -> None:
    """Divide the layers of `model` and the rest of `root`, whose forward the learner calls. Alone: move the whole to the device.

    The weights are the first rank's; what the other ranks' hold before does not matter.
    """
    if ranks.mesh is None:
        root.to(ranks.device)
        return
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()} if ranks.is_first else {}
    for module in [*layers_of(model), root]:
        # the root too is divided again after its forward: its parameters are never seen whole between passes
        fully_shard(module, mesh=ranks.mesh, reshard_after_forward=True)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    for name, parameter in model.named_parameters():
        fill(parameter, weights.pop(name, None), ranks)
    for buffer in model.buffers():
        fill(buffer, buffer, ranks)


def whole(value: Tensor) -> Tensor:
    """A tensor that may be divided over ranks, whole on every rank. All ranks must ask together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def fill(target: Tensor, value: Tensor | None, ranks: Ranks) -> None:
    """Copy the first rank's whole `value` into a tensor that may be divided. All ranks call together; only its value counts."""
    if isinstance(target, DTensor):
        if not ranks.is_first:
            value = torch.empty(target.shape)  # untouched: only its shape counts
        divided = distribute_tensor(value.to(target.device, target.dtype), target.device_mesh, target.placements)
        target.to_local().copy_(divided.to_local())
    else:
        target.copy_(ranks.broadcast(value.cpu() if ranks.is_first else None))


def on_device(value, device: str | torch.device):
    """The same with all tensors inside lists, dicts and records on `device`; what a record has cached is left behind."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [on_device(one, device) for one in value]
    if isinstance(value, dict):
        return {key: on_device(one, device) for key, one in value.items()}
    if is_dataclass(value):
        moved = object.__new__(type(value))  # a record checks itself when it is made, which need not happen twice
        vars(moved).update({f.name: on_device(getattr(value, f.name), device) for f in fields(value)})
        return moved
    return value
