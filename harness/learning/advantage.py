"""Group-relative advantages: a response's reward compared with the rewards of all responses to the same prompt."""

from __future__ import annotations

import torch
from torch import Tensor

STD_FLOOR = 1e-6
NORMALISATIONS = ("none", "std")


def group_advantages(rewards: Tensor, group_size: int, normalise: str = "none") -> tuple[Tensor, Tensor]:
    """Advantages of consecutive groups of `group_size` responses, and which responses belong to an informative group.

    rewards [B] → (advantages [B], informative [B] bool). See `advantages_of`.
    """
    if len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards do not make groups of {group_size}: keep each prompt's responses together")
    groups = torch.arange(len(rewards), device=rewards.device) // group_size
    return advantages_of(rewards, groups, normalise)


def advantages_of(rewards: Tensor, groups: Tensor, normalise: str = "none") -> tuple[Tensor, Tensor]:
    """Advantages of responses with the rewards r, within groups. rewards [B], groups [B] any integers.

    `none`: r − mean (Dr. GRPO); `std`: (r − mean)/(sd + 1e-6), sd with n − 1 (GRPO as in verl). Returns (advantages [B],
    informative [B] bool). Groups of equal rewards get exactly 0 and are not informative. A response alone in its group keeps its
    reward (mean 0, sd 1) and counts as informative.
    """
    if normalise not in NORMALISATIONS:
        raise ValueError(f"normalise={normalise!r}: choose from {' '.join(NORMALISATIONS)}")
    index, size = torch.unique(groups, return_inverse=True, return_counts=True)[1:]
    total = lambda values: torch.zeros(len(size), dtype=rewards.dtype, device=rewards.device).index_add_(0, index, values)
    alone = size == 1
    centred = rewards - torch.where(alone, 0.0, total(rewards) / size)[index]
    informative = alone[index] | differs_in_group(rewards, index, len(size))
    centred = torch.where(informative, centred, 0.0)
    if normalise == "none":
        return centred, informative
    deviation = torch.where(alone, 1.0, (total(centred.square()) / (size - 1).clamp(min=1)).sqrt())
    return centred / (deviation[index] + STD_FLOOR), informative


def differs_in_group(rewards: Tensor, index: Tensor, num_groups: int) -> Tensor:
    """[B] bool: True if the response's group holds different rewards."""
    empty = torch.zeros(num_groups, dtype=rewards.dtype, device=rewards.device)
    highest = empty.scatter_reduce(0, index, rewards, "amax", include_self=False)
    lowest = empty.scatter_reduce(0, index, rewards, "amin", include_self=False)
    return (highest > lowest)[index]
