"""Divergences between the learner's next-token distribution π and the rollout policy's μ after the same prefix, per token.

Both are untruncated softmaxes at the sampling temperature. A Top-K score sums over an explicit set E of ids and one bucket that
holds all others. Under `union`, E is the rollout policy's top K and the sampled token (K or K + 1 ids); under `replace` (DPPO's
published code), E is the top K, in which the sampled token takes the last place if it is not among them. Both give a lower bound
of the full-vocabulary value, which is reached if K ≥ V.

l = log ρ = log π(y) − log μ(y), clamped to ±20 where it is exponentiated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from methods.base import LOG_RATIO_CLAMP, at_least_float32

OTHER_FLOOR = 1e-12  # least mass of the bucket of unlisted ids, so that its logarithm exists
BINARY_FLOOR = 1e-8


@dataclass
class PolicyPair:
    """Log-probs of both policies at the same tokens. Masked positions may hold anything.

    K ≤ V ids, the most likely first; in the order of ids if they are the whole vocabulary.
    """

    tokens: Tensor  # [B, T] int64, the sampled ids y
    logprobs: Tensor  # [B, T] log π(y)
    rollout_logprobs: Tensor  # [B, T] log μ(y)
    topk_ids: Tensor  # [B, T, K] int64, the rollout policy's most likely ids
    topk_logprobs: Tensor  # [B, T, K] log π at those ids, from the full softmax
    rollout_topk_logprobs: Tensor  # [B, T, K] log μ at those ids
    mask: Tensor  # [B, T] True on response tokens
    vocab_size: int

    def __post_init__(self):
        for name in ("logprobs", "rollout_logprobs", "topk_logprobs", "rollout_topk_logprobs"):
            setattr(self, name, at_least_float32(getattr(self, name).detach()))

    @property
    def complete(self) -> bool:
        """True if the listed ids are the whole vocabulary."""
        return self.topk_ids.shape[-1] >= self.vocab_size

    @cached_property
    def log_ratio(self) -> Tensor:
        return self.logprobs - self.rollout_logprobs

    @cached_property
    def unlisted(self) -> Tensor:
        """[B, T] bool: True where the sampled token is not among the K ids."""
        return (self.topk_ids != self.tokens[..., None]).all(-1)

    @cached_property
    def sampled(self) -> Terms:
        return Terms.of(self.rollout_logprobs, self.logprobs)

    @cached_property
    def listed(self) -> Terms:
        return Terms.of(self.rollout_topk_logprobs, self.topk_logprobs)

    def explicit_sum(self, term: Callable[[Terms], Tensor], topk_set: str) -> Tensor:
        """[B, T] Σ_{i in E} term_i, computed without building E.

        A sampled id that is not listed is added to the listed ones, or replaces the last of them under "replace".
        """
        listed, sampled = term(self.listed), term(self.sampled)
        if topk_set == "replace":
            return listed[..., :-1].sum(-1) + torch.where(self.unlisted, sampled, listed[..., -1])
        return listed.sum(-1) + torch.where(self.unlisted, sampled, 0.0)

    def other(self, topk_set: str) -> Terms:
        """[B, T] probabilities of the bucket that holds all ids outside E."""
        rollout = (1 - self.explicit_sum(lambda t: t.mu, topk_set)).clamp(min=OTHER_FLOOR)
        learner = (1 - self.explicit_sum(lambda t: t.pi, topk_set)).clamp(min=OTHER_FLOOR)
        return Terms(rollout.log(), learner.log(), rollout, learner)

    def reduced_sum(self, term: Callable[[Terms], Tensor], topk_set: str) -> Tensor:
        """[B, T] Σ term over E and the bucket of all other ids, which does not exist if E is the vocabulary."""
        listed = self.explicit_sum(term, topk_set)
        return listed if self.complete else listed + term(self.other(topk_set))


@dataclass
class Terms:
    """Probabilities of the same ids under both policies, with their logarithms; one shape for all."""

    log_mu: Tensor
    log_pi: Tensor
    mu: Tensor
    pi: Tensor

    @classmethod
    def of(cls, log_mu: Tensor, log_pi: Tensor) -> Terms:
        return cls(log_mu, log_pi, log_mu.exp(), log_pi.exp())

    def gap(self) -> Tensor:
        return (self.mu - self.pi).abs()

    def relative_entropy(self) -> Tensor:
        """μ (log μ − log π) of each id; 0 where μ = 0."""
        return torch.where(self.mu > 0, self.mu * (self.log_mu - self.log_pi), 0.0)


def topk_tv(pair: PolicyPair, topk_set: str) -> Tensor:
    """Total variation ½ Σ |μ_i − π_i|, in [0, 1]."""
    return 0.5 * pair.reduced_sum(Terms.gap, topk_set)


def topk_kl(pair: PolicyPair, topk_set: str) -> Tensor:
    """KL(μ‖π) = Σ μ_i (log μ_i − log π_i), ≥ 0 up to rounding."""
    return pair.reduced_sum(Terms.relative_entropy, topk_set)


def require_complete(name: str, num_recorded: int, vocab_size: int) -> None:
    """Raise ValueError if the score `name` needs the whole vocabulary and fewer ids are recorded."""
    if name.startswith("full_") and num_recorded < vocab_size:
        raise ValueError(
            f"{name} needs all {vocab_size} ids of the vocabulary, and {num_recorded} are recorded: "
            f"use {name.replace('full', 'topk')}, or rollout.top_k={vocab_size}"
        )


def binary_tv(pair: PolicyPair, topk_set: str) -> Tensor:
    """Total variation of the binary event "the sampled token or any other": |μ(y) − π(y)|."""
    return pair.sampled.gap()


def binary_kl(pair: PolicyPair, topk_set: str) -> Tensor:
    """KL(μ‖π) of the binary event "the sampled token or any other"."""
    y = pair.sampled
    return y.relative_entropy() + (1 - y.mu) * ((1 - y.mu + BINARY_FLOOR) / (1 - y.pi + BINARY_FLOOR)).log()


def k1(pair: PolicyPair, topk_set: str) -> Tensor:
    """−l, an unbiased estimate of KL(μ‖π) that may be negative."""
    return -pair.log_ratio


def k2(pair: PolicyPair, topk_set: str) -> Tensor:
    """l²/2, a biased estimate of KL(μ‖π), ≥ 0."""
    return pair.log_ratio.square() / 2


def k3(pair: PolicyPair, topk_set: str) -> Tensor:
    """e^l − 1 − l, an unbiased estimate of KL(μ‖π), ≥ 0."""
    log_ratio = pair.log_ratio.clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)
    return log_ratio.expm1() - log_ratio


def abs_log_ratio(pair: PolicyPair, topk_set: str) -> Tensor:
    return pair.log_ratio.abs()


DIVERGENCES: dict[str, Callable[[PolicyPair, str], Tensor]] = {
    "topk_tv": topk_tv,
    "topk_kl": topk_kl,
    "binary_tv": binary_tv,
    "binary_kl": binary_kl,
    "full_tv": topk_tv,  # with every id recorded (require_complete) the same sums are exact
    "full_kl": topk_kl,
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "abs_log_ratio": abs_log_ratio,
}


@torch.no_grad()
def divergence(name: str, pair: PolicyPair, topk_set: str = "union") -> Tensor:
    """[B, T] the score `name` of DIVERGENCES, detached; 0 where masked."""
    if name not in DIVERGENCES:
        raise ValueError(f"divergence={name!r}: choose from {' '.join(DIVERGENCES)}")
    check_set(topk_set)
    require_complete(name, pair.topk_ids.shape[-1], pair.vocab_size)
    return DIVERGENCES[name](pair, topk_set).masked_fill(~pair.mask.bool(), 0.0)


@torch.no_grad()
def kl_direction(pair: PolicyPair, topk_set: str = "union") -> Tensor:
    """[B, T] (π_y − μ_y) + Σ_{i in E} π_i (μ_i − π_i); 0 where masked.

    The change of KL(μ‖π) along the gradient of log π(y) with respect to the logits: positive if reinforcing the sampled token
    moves the policies apart. Ids outside E are left out: their terms are products of two small probabilities.
    """
    check_set(topk_set)
    drift = pair.explicit_sum(lambda t: t.pi * (t.mu - t.pi), topk_set)
    return (pair.sampled.pi - pair.sampled.mu + drift).masked_fill(~pair.mask.bool(), 0.0)


def check_set(topk_set: str) -> None:
    if topk_set not in ("union", "replace"):
        raise ValueError(f"method.topk_set={topk_set!r}: choose union or replace")
