"""Mixtures of experts: does the rollout engine send tokens to the experts that the learner sends them to?

Where it does not, the ratio compares two different sub-networks. Measured on canary responses at equal weights; dense models have
no routers and no such metric.
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

WARN_ABOVE = 0.01  # share of tokens × layers
NUM_TOKENS = 64  # of each response: replaying one decodes it again


def routers(model: nn.Module) -> list[nn.Module]:
    """The modules that choose experts, in order of layers, as the model's class declares them; none when dense."""
    declared = {}
    for module in model.modules():
        declared |= getattr(module, "_can_record_outputs", None) or {}
    wanted = declared.get("router_logits", [])
    recorders = [one for one in (wanted if isinstance(wanted, list) else [wanted]) if hasattr(one, "target_class")]
    return [
        module
        for name, module in model.named_modules()
        if any(isinstance(module, one.target_class) and (one.layer_name or "") in name for one in recorders)
    ]


@contextmanager
def recorded_routing(model: nn.Module) -> Iterator[list[list[Tensor]]]:
    """While inside: for each router the expert ids of each of its calls, [positions, k] ascending."""
    found = routers(model)
    calls: list[list[Tensor]] = [[] for _ in found]
    top_k = getattr(model.config.get_text_config(), "num_experts_per_tok", 1)

    def note(own: list[Tensor], _module, _inputs, outputs) -> None:
        own.append(chosen_experts(outputs, top_k))

    handles = [router.register_forward_hook(partial(note, own)) for router, own in zip(found, calls, strict=True)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def chosen_experts(outputs: Tensor | tuple, top_k: int) -> Tensor:
    """Ids [positions, k] ascending: what the router says it chose, or else the highest of its logits."""
    values = outputs if isinstance(outputs, tuple) else (outputs,)
    ids = next((value for value in values if isinstance(value, Tensor) and not value.is_floating_point()), None)
    ids = values[0].topk(top_k).indices if ids is None else ids
    return ids.reshape(-1, ids.shape[-1]).sort(-1).values


@torch.no_grad()
def routing_mismatch(learner: Learner, engine: RolloutEngine, experience: Experience) -> dict[str, float]:
    """{"mismatch/routing": share of response tokens × layers whose set of experts differs}; {} for dense models and where the
    engine cannot tell. All ranks call together."""
    if not routers(learner.model):
        return {}
    indices, num_idle = learner.share(experience)
    differs = [different_experts(learner, engine, experience.rows(index)) for index in indices]
    list(learner.idle(experience, num_idle))
    found = [values for rank in learner.ranks.gather(differs) for values in rank if values is not None]
    if not found:
        return {}
    share = torch.cat(found).float().mean().item()
    if share > WARN_ABOVE:
        log.warning("engine and learner choose other experts for %.1f %% of tokens × layers%s", 100 * share, remedy(engine))
    return {"mismatch/routing": share}


def different_experts(learner: Learner, engine: RolloutEngine, part: Experience) -> Tensor | None:
    """[tokens × routers] bool over the first tokens of each response of a micro-batch."""
    starts, lengths = part.prompt_lengths.tolist(), part.lengths.clamp(max=NUM_TOKENS).tolist()
    prompts = [row[:start].tolist() for row, start in zip(part.inputs, starts, strict=True)]
    responses = [row[:length].tolist() for row, length in zip(part.tokens, lengths, strict=True)]
    with recorded_routing(learner.model) as calls:
        learner.score(part.to(learner.ranks.device))
    theirs = engine.routing(prompts, responses)
    if theirs is None:
        return None
    rows = len(part)
    mine = torch.stack([own[0].view(rows, -1, own[0].shape[-1]) for own in calls], 2).cpu()  # [rows, positions, routers, k]
    same = [mine[row, starts[row] : starts[row] + lengths[row]] == theirs[row].cpu() for row in range(rows)]
    return torch.cat([~row.all(-1).flatten() for row in same])


def remedy(engine: RolloutEngine) -> str:
    if engine.router_replay:
        return ""
    return "; this engine has no router replay: rollout.precision=float32 keeps the two closest"
