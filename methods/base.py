"""The interface between the core and a rule: a rule takes a TokenBatch and returns a Decision.

Axes, here and everywhere: P prompts, G responses per prompt, B = P·G responses, T response tokens (padded),
K ids of the rollout policy's top-k.

A rule is a dataclass. Its fields are its settings (their numbers live in conf/method/); calling it returns the Decision.

    >>> batch = TokenBatch(logprobs, rollout_logprobs, advantages, mask, divergence)      # each [B, T]
    >>> decision = DPPO(delta=0.15, divergence="topk_tv", ratio_cap=20.0)(batch)
    >>> loss = -(batch.advantages * decision.weight * decision.keep * logprobs_with_grad * mask).sum() / denominator
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

LOG_RATIO_CLAMP = 20.0
MISSING: Any = "???"  # OmegaConf's marker of a required setting: the number comes from conf/method/*.yaml


def at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


@dataclass
class TokenBatch:
    """Detached per-token tensors of one micro-batch (whole responses), [B, T] unless said otherwise.

    Masked positions may hold anything, NaN and inf included: they are zeroed here, once, so that no rule has to care. Values in
    16 bits are widened to float32: they can't hold a bound like 1.001, nor a prefix sum to a hundredth.
    Positions count valid tokens only, so masked tokens inside a response take no position.
    """

    logprobs: Tensor  # log π(y_t), the learner's, current weights
    rollout_logprobs: Tensor  # log μ(y_t), as the rollout engine computed it (or the anchor that stands in for it)
    advantages: Tensor
    mask: Tensor  # True on response tokens
    divergence: Tensor | None = None  # D_t ≥ 0, the score that the rule's `divergence` setting names
    response_key: Tensor | None = None  # [B] int64, identifies a response in any split; seeds its permutation
    weight_perm: Tensor | None = None  # int64, a permutation of each row's valid positions (0-based)
    kl_direction: Tensor | None = None  # (π_y − μ_y) + Σ_i π_i (μ_i − π_i), the predicted change of KL(μ‖π) per unit logit
    horizon: int | None = None  # longest response the run allows, for `length: padded`; the tensors' width if absent

    def __post_init__(self):
        self.mask = self.mask.bool()
        for name in ("logprobs", "rollout_logprobs", "advantages", "divergence", "kl_direction"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, self.masked(at_least_float32(value.detach())))

    def masked(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """`values` with masked positions replaced by `fill`."""
        return values.masked_fill(~self.mask, fill)

    @property
    def raw_log_ratio(self) -> Tensor:
        """log π(y_t) − log μ(y_t), for rules that average it before they exponentiate; 0 where masked."""
        return self.logprobs - self.rollout_logprobs

    @cached_property
    def log_ratio(self) -> Tensor:
        """log ρ_t, clamped to ±20 so that exp stays finite; 0 where masked."""
        return self.raw_log_ratio.clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)

    @cached_property
    def ratio(self) -> Tensor:
        """ρ_t = π(y_t)/μ(y_t); 1 where masked."""
        return self.log_ratio.exp()

    @cached_property
    def outward(self) -> Tensor:
        """A(ρ − 1) > 0: the update would move the policy further away from the rollout policy."""
        return self.advantages * (self.ratio - 1) > 0

    @cached_property
    def positions(self) -> Tensor:
        """1-based position among the valid tokens of the row; meaningless where masked."""
        return self.mask.long().cumsum(-1)

    @cached_property
    def lengths(self) -> Tensor:
        """[B, 1] number of valid tokens of each row."""
        return self.mask.long().sum(-1, keepdim=True)

    def by_sign(self, positive: Tensor, if_true: float, if_false: float) -> Tensor:
        """[B, T] `if_true` where `positive`, else `if_false`, in the ratio's dtype (two Python floats would give float32)."""
        return torch.where(positive, self.ratio.new_tensor(if_true), self.ratio.new_tensor(if_false))

    def exclusive_cumsum(self, values: Tensor) -> Tensor:
        """[B, T] Σ_{j<t} values_j, where `values` are 0 at masked positions."""
        return torch.nn.functional.pad(values.cumsum(-1)[..., :-1], (1, 0))

    def row_sum(self, values: Tensor) -> Tensor:
        """[B, 1] sum over valid tokens; 0 for an empty row."""
        return self.masked(values).sum(-1, keepdim=True)

    def row_mean(self, values: Tensor) -> Tensor:
        """[B, 1] mean over valid tokens; 0 for an empty row."""
        return self.row_sum(values) / self.lengths.clamp(min=1)

    def row_max(self, values: Tensor) -> Tensor:
        """[B, 1] maximum over valid tokens; 0 for an empty row."""
        largest = self.masked(values, -torch.inf).amax(-1, keepdim=True)
        return largest.masked_fill(self.lengths == 0, 0.0)


@dataclass
class Decision:
    """A rule's answer for each token, [B, T]: how much its gradient weighs, and whether it contributes at all.

    Masked positions hold arbitrary values: readers must apply the mask.
    """

    weight: Tensor  # ≥ 0 (DRPO may go below with a tiny ε)
    keep: Tensor  # 0 or 1, or [0, 1] for soft gates, in the dtype of weight
    aux: dict[str, Tensor] = field(default_factory=dict)  # diagnostics, per token or per row: S_prev, c, delta_b, …

    def __post_init__(self):
        self.keep = self.keep.to(self.weight.dtype)


@dataclass
class Rule:
    """Base of all rules. A subclass adds its settings as fields, checks their ranges, and implements the call."""

    scope: ClassVar[str] = "token"  # token | response | minibatch: the part of a minibatch that one token's decision depends on
    divergence: ClassVar[str | None] = None  # the score that the core passes as TokenBatch.divergence; None: no score
    topk_set: ClassVar[str] = "union"  # the ids that a Top-K score sums over explicitly, see DivergenceRule
    needs_kl_direction: ClassVar[bool] = False  # True: the core passes TokenBatch.kl_direction
    aggregation: ClassVar[str | None] = None  # the train.aggregation that the rule's formula requires; None: any

    def __post_init__(self):
        module = type(self).__module__.rpartition(".")[2]
        for name, value in self.settings().items():
            self.check(value != MISSING, name, f"give it a value, as conf/method/{module}.yaml does")
        self.validate()

    def validate(self) -> None:
        """Check the ranges of the settings by calling `check`."""

    def __call__(self, batch: TokenBatch) -> Decision:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__")

    def check(self, condition: bool, setting: str, remedy: str) -> None:
        """Raise ValueError naming the setting, its value and the remedy, unless `condition` holds."""
        if not condition:
            raise ValueError(f"method.{setting}={getattr(self, setting)!r}: {remedy}")

    def settings(self) -> dict:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass
class DivergenceRule(Rule):
    """Base of the rules that use D_t, a divergence of the next-token distributions."""

    divergence: str = MISSING  # topk_tv topk_kl binary_tv binary_kl full_tv full_kl k1 k2 k3 abs_log_ratio
    topk_set: str = MISSING  # union: top-K ids and the sampled one; replace: the sampled one takes the place of the K-th

    def validate(self) -> None:
        self.check(self.topk_set in ("union", "replace"), "topk_set", "choose union or replace")

    def score(self, batch: TokenBatch) -> Tensor:
        if batch.divergence is None:
            raise ValueError(f"{type(self).__name__} needs TokenBatch.divergence: hand over the {self.divergence} score")
        return batch.divergence


def check_ratio_cap(rule: Rule) -> None:
    rule.check(rule.ratio_cap is None or rule.ratio_cap >= 1, "ratio_cap", "choose a cap of at least 1, or null for none")


def capped_ratio(batch: TokenBatch, cap: float | None) -> Tensor:
    """[B, T] min(ρ, C); ρ without a cap."""
    return batch.ratio if cap is None else batch.ratio.clamp(max=cap)


def inside_clip(batch: TokenBatch, ratio: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """PPO's trust region on any ratio: False where A > 0 and ratio > high, or A < 0 and ratio < low; bool [B, T]."""
    above = (batch.advantages > 0) & (ratio > high)
    below = (batch.advantages < 0) & (ratio < low)
    return ~(above | below)


def geometric_mean(batch: TokenBatch) -> Tensor:
    """[B, 1] exp(mean_t log ρ_t), (Π_t ρ_t)^{1/T}; 1 for an empty row."""
    return batch.row_mean(batch.raw_log_ratio).clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP).exp()
