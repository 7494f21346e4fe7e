"""Checks that engine and learner hold the same weights, and measures how far apart their log-probs are. See docs/rollouts.md.

There are two checks. After every push, an engine with its own copy of the weights answers a few prompts and the learner's model
scores the answers, so that weights that did not arrive are found before anything is sampled from them. At each step, the learner
scores fresh responses before its update: this gives the metrics `mismatch/*`, with limits that warn, mark the run, or stop it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.learning.experience import Experience, build_experience
from harness.learning.learner import Learner
from harness.learning.model import num_experts
from harness.learning.routing import routing_mismatch
from harness.rollout.records import Rollout, RolloutEngine, Sampling, request_seed
from harness.settings.config import MismatchConfig
from harness.telemetry.metrics import mismatch_metrics, position_bucket

log = logging.getLogger(__name__)


class MismatchError(RuntimeError):
    """Raised when engine and learner are not the same policy."""


def check_push(
    engine: RolloutEngine,
    model: nn.Module,
    prompts: list[list[int]],
    config: MismatchConfig,
    score: Callable[[Rollout], Tensor] | None = None,
) -> None:
    """Raise MismatchError unless the engine's log-probs of its own answers to `prompts` agree with those of `model`.

    `score` computes the latter if the model is sharded over ranks, since it cannot be called directly then.
    """
    if engine.shared:
        return
    seeds = [request_seed(0, "canary", index) for index in range(len(prompts))]
    rollout = engine.generate(prompts, seeds, Sampling(config.canary_tokens))
    expected = score(rollout) if score else model_logprobs(model, rollout)
    error = (rollout.logprobs[rollout.mask] - expected).abs().mean().item()
    exact = engine.dtype == model.dtype == torch.float32
    key = "canary_float32" if exact else "canary_bfloat16"
    limit = getattr(config, key)
    if not error <= limit:  # NaN is a failure too
        raise MismatchError(
            f"the canary after the push of weight version {engine.version}: the engine's log-probs are {error:.3g} nat from the "
            f"learner's on average, above mismatch.{key}={limit:g}. The engine does not hold the learner's weights (a push that "
            f"was forgotten or got lost), or computes otherwise: python -m harness.doctor parity shows where"
        )


def learner_logprobs(learner: Learner, rollout: Rollout) -> Tensor:
    """The learner's log-probs of all response tokens, flat [number of tokens]."""
    experience = as_experience(rollout, len(rollout.tokens))
    return learner.logprobs(experience)[0][experience.mask]


def as_experience(rollout: Rollout, num_rows: int) -> Experience:
    """The first num_rows responses as an Experience with advantages of 0: for scoring, not for learning."""
    rows = torch.arange(len(rollout.tokens)) < num_rows
    return build_experience(rollout, torch.zeros(len(rows)), rows, [0] * len(rows))


@torch.no_grad()
def model_logprobs(model: nn.Module, rollout: Rollout) -> Tensor:
    """Log-probs of all response tokens, flat [number of tokens], from the logits of an unsharded model."""
    prompts = [ids[:length].tolist() for ids, length in zip(rollout.prompts, rollout.prompt_lengths, strict=True)]
    pairs = zip([prompt for prompt in prompts for _ in range(rollout.group_size)], rollout.responses(), strict=True)
    return torch.cat([response_logprobs(model, prompt, response) for prompt, response in pairs])


def response_logprobs(model: nn.Module, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probs [T] of one response, on the CPU; it is scored alone, so that no padding is involved."""
    was_training = model.training
    ids = torch.tensor([prompt + response], device=model.device)
    logits = model.eval()(ids, logits_to_keep=len(response) + 1, use_cache=False).logits[0, :-1]
    model.train(was_training)
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[0, -len(response) :, None]).squeeze(-1).cpu()


def score_fresh(rollout: Rollout, learner: Learner, num_rows: int, engine: RolloutEngine | None = None) -> dict[str, float]:
    """The mismatch/* metrics of the first num_rows responses, with mismatch/routing if `engine` is given.

    MismatchError unless the responses were sampled with the weights that the learner holds.
    """
    if int(rollout.weight_version) != learner.num_updates:
        raise MismatchError(
            f"responses of weight version {int(rollout.weight_version)} came where the learner is at {learner.num_updates}: "
            f"a push was forgotten"
        )
    few = rollout.prompts_between(0, -(-num_rows // rollout.group_size))
    experience = as_experience(few, num_rows)
    logprobs, _ = learner.logprobs(experience)
    mask = experience.mask
    bucket = position_bucket(mask.cumsum(-1), experience.lengths[:, None])
    metrics = mismatch_metrics(experience.anchor_logprobs[mask], logprobs[mask], bucket[mask])
    return metrics | (routing_mismatch(learner, engine, experience) if engine else {})


def gate_limits(config: MismatchConfig, model: nn.Module) -> dict[str, float]:
    """The largest allowed value of each gated metric."""
    experts = num_experts(model.config.get_text_config())
    return {"mismatch/token_error": config.token_error_moe if experts else config.token_error, "mismatch/k3": config.kl}


def breaches(metrics: dict[str, float], limits: dict[str, float]) -> list[str]:
    """A phrase for each metric that is above its limit or is NaN.

    >>> breaches({"mismatch/k3": 1e-3}, {"mismatch/k3": 5e-4})
    ['mismatch/k3 is 0.001, above 0.0005']
    """
    return [f"{key} is {metrics[key]:.3g}, above {limit:g}" for key, limit in limits.items() if not metrics[key] <= limit]


def gate(metrics: dict[str, float], limits: dict[str, float], config: MismatchConfig, step: int) -> str | None:
    """Warn if a limit is exceeded, or raise MismatchError with mismatch.action=stop. Returns what was exceeded, or None."""
    exceeded = "; ".join(breaches(metrics, limits))
    if not exceeded:
        return None
    message = f"step {step}: engine and learner disagree at equal weights: {exceeded} (mismatch.action={config.action})"
    if config.action == "stop":
        raise MismatchError(message)
    log.warning("%s", message)
    return exceeded
