"""Measures whether the rollout engine and the learner send tokens to the same experts (mixtures of experts only).

Where they do not, the ratio compares two different sub-networks. It is measured on fresh responses at equal weights; dense models
have no routers and no such metric.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from harness.learning.experience import Experience
from harness.learning.learner import Learner
from harness.rollout.records import RolloutEngine

log = logging.getLogger(__name__)

WARN_ABOVE = 0.01  # of the tokens × layers
NUM_TOKENS = 64  # compared in each response: replaying a token means decoding it again


def routers(model: nn.Module) -> list[nn.Module]:
    """The modules that choose experts, in order of layers, as the model's class declares them; [] for a dense model."""
    declared = {}
    for module in model.modules():
        declared |= getattr(module, "_can_record_outputs", None) or {}
    wanted = declared.get("router_logits", [])
    recorders = [item for item in (wanted if isinstance(wanted, list) else [wanted]) if hasattr(item, "target_class")]
    return [
        module
        for name, module in model.named_modules()
        if any(isinstance(module, recorder.target_class) and (recorder.layer_name or "") in name for recorder in recorders)
    ]


@contextmanager
def recorded_routing(model: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Record routing inside the context: yields a list for each router, to which each call adds its expert ids [positions, k]."""
    modules = routers(model)
    calls: list[list[Tensor]] = [[] for _ in modules]
    top_k = getattr(model.config.get_text_config(), "num_experts_per_tok", 1)

    def note(router_calls: list[Tensor], _module, _inputs, outputs) -> None:
        router_calls.append(chosen_experts(outputs, top_k))

    handles = [module.register_forward_hook(partial(note, into)) for module, into in zip(modules, calls, strict=True)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def chosen_experts(outputs: Tensor | tuple, top_k: int) -> Tensor:
    """The chosen experts' ids [positions, k], ascending: a router's integer output, or the top k of its logits without one."""
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    ids = next((value for value in values if isinstance(value, Tensor) and not value.is_floating_point()), None)
    ids = values[0].topk(top_k).indices if ids is None else ids
    return ids.reshape(-1, ids.shape[-1]).sort(-1).values


@torch.no_grad()
def routing_mismatch(learner: Learner, engine: RolloutEngine, experience: Experience) -> dict[str, float]:
    """{"mismatch/routing": share of response tokens × layers whose set of experts differs}.

    {} for dense models and for engines that don't report experts. A collective: all ranks must call it.
    """
    if not routers(learner.model):
        return {}
    indices, num_idle = learner.share(experience)
    differs = [different_experts(learner, engine, experience.rows(index)) for index in indices]
    list(learner.idle(experience, num_idle))
    compared = [values for rank in learner.ranks.gather(differs) for values in rank if values is not None]
    if not compared:
        return {}
    share = torch.cat(compared).float().mean().item()
    if share > WARN_ABOVE:
        log.warning("engine and learner choose other experts for %.1f %% of tokens × layers%s", 100 * share, remedy(engine))
    return {"mismatch/routing": share}


def different_experts(learner: Learner, engine: RolloutEngine, part: Experience) -> Tensor | None:
    """[tokens × routers] bool: True where the experts differ, over the first NUM_TOKENS of each response; None if unknown."""
    starts, lengths = part.prompt_lengths.tolist(), part.lengths.clamp(max=NUM_TOKENS).tolist()
    prompts = [row[:start].tolist() for row, start in zip(part.inputs, starts, strict=True)]
    responses = [row[:length].tolist() for row, length in zip(part.tokens, lengths, strict=True)]
    with recorded_routing(learner.model) as calls:
        learner.score(part.to(learner.ranks.device))
    theirs = engine.routing(prompts, responses)
    if theirs is None:
        return None
    rows = len(part)
    mine = torch.stack([ids[0].view(rows, -1, ids[0].shape[-1]) for ids in calls], 2).cpu()  # [rows, positions, routers, k]
    same = [mine[row, starts[row] : starts[row] + lengths[row]] == theirs[row].cpu() for row in range(rows)]
    return torch.cat([~row.all(-1).flatten() for row in same])


def remedy(engine: RolloutEngine) -> str:
    if engine.router_replay:
        return ""
    return "; this engine has no router replay: rollout.precision=float32 keeps the two closest"
