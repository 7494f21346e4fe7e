"""Computes a step's row of metrics from its tensors. Keys, units and reductions: harness/metric_table.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.learning.learner import Decided, Update
from harness.metric_table import POSITION_BUCKETS
from harness.rollout.records import Rollout
from harness.telemetry.prefix import prefix_metrics


def rollout_metrics(rollout: Rollout, rewards: Tensor, informative: Tensor) -> dict[str, float]:
    lengths = rollout.lengths.float()
    return {
        "reward/mean": rewards.mean().item(),
        "reward/informative_groups": informative.float().mean().item(),
        "response_length/mean": lengths.mean().item(),
        "response_length/max": lengths.max().item(),
        "response_length/min": lengths.min().item(),
        "response_length/clip_ratio": rollout.truncated.float().mean().item(),
        "prompt_length/mean": rollout.prompt_lengths.float().mean().item(),
        "cost/response_tokens": int(rollout.mask.sum()),
    }


@dataclass
class TokenTable:
    """Columns over all learned tokens of a step, flat [N]."""

    log_ratio: Tensor
    weight: Tensor
    keep: Tensor
    budget_only: Tensor  # dropped by the prefix budget although the token's own score passes
    divergence: Tensor
    entropy: Tensor
    bucket: Tensor  # int64, see position_bucket

    @classmethod
    def of(cls, decided: list[Decided]) -> TokenTable:
        def column(pick) -> Tensor:
            return torch.cat([pick(part)[part.batch.mask] for part in decided])

        return cls(
            log_ratio=column(lambda part: part.batch.log_ratio),
            weight=column(lambda part: part.decision.weight),
            keep=column(lambda part: part.decision.keep),
            budget_only=column(lambda part: part.decision.aux.get("budget_only", torch.zeros_like(part.divergence)).float()),
            divergence=column(lambda part: part.divergence),
            entropy=column(lambda part: part.entropy),
            bucket=column(lambda part: position_bucket(part.batch.positions, part.batch.lengths)),
        )


def position_bucket(positions: Tensor, lengths: Tensor) -> Tensor:
    """The bucket 0 … POSITION_BUCKETS − 1 of 1-based positions in responses of the given lengths."""
    return (positions - 1) * POSITION_BUCKETS // lengths.clamp(min=1)


def learner_metrics(updates: list[Update], method: str) -> dict[str, float]:
    """The metrics of a step's updates; almost none if no group was informative, so that nothing was learned."""
    decided = [part for update in updates for part in update.decided]
    if not decided:
        return {"health/updates_skipped": 0, "cost/learned_tokens": 0}
    tokens = TokenTable.of(decided)
    num_positions = sum(update.num_positions for update in updates)
    num_real = sum(int(part.batch.mask.sum()) for part in decided)
    return (
        {
            "actor/entropy": tokens.entropy.mean().item(),
            "actor/grad_norm": mean([update.grad_norm for update in updates]),
            "actor/pg_loss": mean([update.loss for update in updates]),
            "health/updates_skipped": sum(update.skipped for update in updates),
            "cost/learned_tokens": num_real,
            "cost/learned_positions": num_positions,
        }
        | trust_metrics(tokens, decided)
        | staleness_metrics(tokens)
        | by_position(tokens)
        | prefix_metrics(updates)
        | method_metrics(decided, method)
    )


def trust_metrics(tokens: TokenTable, decided: list[Decided]) -> dict[str, float]:
    dropped = 1 - tokens.keep
    rejected = torch.cat([part.batch.row_max(part.decision.keep).squeeze(-1) == 0 for part in decided])
    metrics = {
        "trust/mask_frac": dropped.mean().item(),
        "trust/mask_frac_token": (dropped * (1 - tokens.budget_only)).mean().item(),
        "trust/mask_frac_budget": (dropped * tokens.budget_only).mean().item(),
        "trust/seq_rejected_frac": rejected.float().mean().item(),
        "trust/weight_mean": (tokens.weight * tokens.keep).sum().item() / max(tokens.keep.sum().item(), 1e-12),
        "trust/div_mean": tokens.divergence.mean().item(),
        "trust/div_p90": quantile(tokens.divergence, 0.9),
        "trust/div_max": tokens.divergence.max().item(),
    }
    if "delta_b" in decided[0].decision.aux:
        metrics["trust/delta_b_eff"] = torch.cat([part.decision.aux["delta_b"] for part in decided]).mean().item()
    return metrics


def staleness_metrics(tokens: TokenTable) -> dict[str, float]:
    l = tokens.log_ratio
    return {
        "staleness/k1": (-l).mean().item(),
        "staleness/k3": (l.expm1() - l).mean().item(),
        "staleness/ratio_max": l.max().exp().item(),
        "staleness/ratio_min": l.min().exp().item(),
    }


def by_position(tokens: TokenTable) -> dict[str, float]:
    metrics = {}
    for bucket in range(POSITION_BUCKETS):
        here = tokens.bucket == bucket
        if not here.any():
            continue
        divergence = tokens.divergence[here]
        highest = divergence.topk(max(1, len(divergence) // 10)).values
        metrics[f"trust/div_by_pos/{bucket}"] = divergence.mean().item()
        metrics[f"trust/div_top10_by_pos/{bucket}"] = highest.mean().item()
        metrics[f"trust/mask_by_pos/{bucket}"] = (1 - tokens.keep[here]).mean().item()
    return metrics


def method_metrics(decided: list[Decided], method: str) -> dict[str, float]:
    """The rule's own diagnostics: the mean of each key over tokens, or over responses for per-row keys."""
    metrics = {}
    for key in decided[0].decision.aux:
        pairs = [(part.decision.aux[key], part.batch.mask) for part in decided]
        values = [value[mask] if value.dim() == 2 else value for value, mask in pairs]
        metrics[f"method/{method}/{key}"] = torch.cat(values).float().mean().item()
    return metrics


def mismatch_metrics(engine_logprobs: Tensor, learner_logprobs: Tensor, bucket: Tensor) -> dict[str, float]:
    """The mismatch/* metrics from two log-probs [N] of the same tokens at equal weights; bucket [N]: see position_bucket."""
    l = (learner_logprobs - engine_logprobs).double()
    mu, pi = engine_logprobs.double().exp(), learner_logprobs.double().exp()
    ratio, k3 = l.exp(), l.expm1() - l
    return {
        "mismatch/k1": (-l).mean().item(),
        "mismatch/k3": k3.mean().item(),
        "mismatch/abs_error": l.abs().mean().item(),
        "mismatch/max_error": l.abs().max().item(),
        "mismatch/rel_error": l.expm1().abs().mean().item(),
        "mismatch/logprob_rel_error": (l.abs().sum() / learner_logprobs.double().abs().sum()).item(),
        "mismatch/token_error": l.abs().exp().mean().item(),
        "mismatch/pearson": torch.corrcoef(torch.stack([mu, pi]))[0, 1].item(),
        "mismatch/ratio_min": ratio.min().item(),
        "mismatch/ratio_p01": quantile(ratio, 0.01),
        "mismatch/ratio_p50": quantile(ratio, 0.5),
        "mismatch/ratio_p99": quantile(ratio, 0.99),
        "mismatch/ratio_max": ratio.max().item(),
        **bucket_means("mismatch/k3_by_pos", k3, bucket),
        **bucket_means("mismatch/abs_error_by_pos", l.abs(), bucket),
    }


def bucket_means(family: str, values: Tensor, bucket: Tensor) -> dict[str, float]:
    return {f"{family}/{index}": values[bucket == index].mean().item() for index in bucket.unique().tolist()}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def quantile(values: Tensor, q: float) -> float:
    """The q-quantile by linear interpolation, without torch.quantile's size limit."""
    place = q * (len(values) - 1)
    low = values.kthvalue(int(place) + 1).values.item()
    high = values.kthvalue(min(int(place) + 2, len(values))).values.item()
    return low + (place - int(place)) * (high - low)
