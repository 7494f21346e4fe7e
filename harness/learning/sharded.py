"""Shards a model over ranks (FSDP2): each layer is gathered when it computes, and kept in shards otherwise.

The gradient is the sum over ranks, not their mean: every rank's loss already has the denominators of the whole minibatch.
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
    """Activation checkpointing: store only each layer's input and recompute the rest in the backward pass. Same numbers."""
    for layer in layers_of(model):
        layer.forward = partial(recomputed, layer.forward)


def recomputed(forward: Callable, *inputs, **named):
    if not torch.is_grad_enabled():  # sampling, whose cache must not be written twice
        return forward(*inputs, **named)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)


def shard(root: nn.Module, model: nn.Module, ranks: Ranks) -> None:
    """Shard the layers of `model` and the rest of `root`, whose forward the learner calls. A single rank only moves `root` to its
    device.

    The weights are the first rank's; those of the other ranks are overwritten.
    """
    if ranks.mesh is None:
        root.to(ranks.device)
        return
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()} if ranks.is_first else {}
    for module in [*layers_of(model), root]:
        # the root too is sharded again after its forward, so that its parameters are never whole between passes
        fully_shard(module, mesh=ranks.mesh, reshard_after_forward=True)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum
    for name, parameter in model.named_parameters():
        fill(parameter, weights.pop(name, None), ranks)
    for buffer in model.buffers():
        fill(buffer, buffer, ranks)


def whole(value: Tensor) -> Tensor:
    """`value`, which may be sharded, in full on every rank. A collective: all ranks must call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def fill(target: Tensor, value: Tensor | None, ranks: Ranks) -> None:
    """Copy the first rank's full `value` into `target`, which may be sharded. A collective; other ranks' values are ignored."""
    if isinstance(target, DTensor):
        if not ranks.is_first:
            value = torch.empty(target.shape)  # not initialised: only its shape is used
        sharded = distribute_tensor(value.to(target.device, target.dtype), target.device_mesh, target.placements)
        target.to_local().copy_(sharded.to_local())
    else:
        target.copy_(ranks.broadcast(value.cpu() if ranks.is_first else None))


def on_device(value, device: str | torch.device):
    """`value` with all tensors on `device`, inside lists, dicts and dataclasses too; cached properties are not copied."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list):
        return [on_device(item, device) for item in value]
    if isinstance(value, dict):
        return {key: on_device(item, device) for key, item in value.items()}
    if is_dataclass(value):
        moved = object.__new__(type(value))  # without __post_init__, which has run already
        vars(moved).update({f.name: on_device(getattr(value, f.name), device) for f in fields(value)})
        return moved
    return value
