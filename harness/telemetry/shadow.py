"""Applies any number of rules to the same minibatch of a run, without gradient and without affecting the run.

What the numbers mean: docs/recordings.md. N responses, T response tokens, M = all valid tokens, K top-k ids.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from functools import cache, cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.learning.divergence import PolicyPair, divergence
from harness.learning.learner import Decided, Score, token_batch
from harness.metric_table import POSITION_BUCKETS
from harness.telemetry.metrics import position_bucket
from methods.base import Decision, Rule, TokenBatch

log = logging.getLogger(__name__)

OWN = "own"  # the running rule's decision, beside the registered names
PAIR_TENSORS = tuple(f.name for f in fields(PolicyPair) if f.name != "vocab_size")


@dataclass
class Minibatch:
    """The responses of one update, ordered by their keys (hashes, so that the order is random and the same for any split)."""

    pair: PolicyPair  # [N, T]
    advantages: Tensor  # [N]
    response_key: Tensor  # [N] int64
    divergence: Tensor  # [N, T] train.divergence
    entropy: Tensor  # [N, T]
    own: Decision  # what the running rule decided in training
    horizon: int

    @classmethod
    def of(cls, decided: list[Decided], horizon: int) -> Minibatch:
        """The minibatch of an update that kept its pairs, joined from its micro-batches."""
        keys = torch.cat([part.batch.response_key for part in decided])
        order = keys.argsort()
        width = max(part.batch.mask.shape[1] for part in decided)

        def join(pick) -> Tensor:
            return torch.cat([widened(pick(part), width) for part in decided])[order]

        aux = {name: join(lambda part, name=name: part.decision.aux[name]) for name in decided[0].decision.aux}
        return cls(
            PolicyPair(
                **{name: join(lambda part, name=name: getattr(part.pair, name)) for name in PAIR_TENSORS},
                vocab_size=decided[0].pair.vocab_size,
            ),
            torch.cat([part.batch.advantages[:, 0] for part in decided])[order],
            keys[order],
            join(lambda part: part.divergence),
            join(lambda part: part.entropy),
            Decision(join(lambda part: part.decision.weight), join(lambda part: part.decision.keep), aux),
            horizon,
        )

    @property
    def mask(self) -> Tensor:
        return self.pair.mask

    def __len__(self) -> int:
        return len(self.response_key)

    @cached_property
    def score(self) -> Score:
        pair = self.pair
        return cache(lambda name, topk_set: divergence(name, pair, topk_set))

    @cached_property
    def batches(self) -> dict[tuple, TokenBatch]:
        return {}

    def batch_for(self, rule: Rule) -> TokenBatch:
        """The TokenBatch that `rule` needs. Rules with the same needs share one, and all rules share the scores."""
        needs = (rule.divergence, rule.topk_set, rule.needs_kl_direction)
        if needs not in self.batches:
            self.batches[needs] = token_batch(rule, self.pair, self.score, self.advantages, self.response_key, self.horizon)
        return self.batches[needs]

    def decide(self, rule: Rule) -> Decision:
        return rule(self.batch_for(rule))

    @cached_property
    def plain(self) -> TokenBatch:
        """A TokenBatch without a score, for ratio, positions and lengths."""
        return self.batch_for(Rule())


def widened(values: Tensor, width: int) -> Tensor:
    """[b, t, …] padded to [b, width, …]; per-row values [b] unchanged."""
    if values.dim() == 1:
        return values
    return pad(values, (0, 0) * (values.dim() - 2) + (0, width - values.shape[1]))


def observe(minibatch: Minibatch, rules: dict[str, Rule]) -> dict[str, Decision]:
    """The decision taken in training (OWN) and each rule's. A rule that raises is left out: recording must not end a run."""
    decisions = {OWN: minibatch.own}
    for name, rule in rules.items():
        try:
            decisions[name] = minibatch.decide(rule)
        except Exception as error:
            log.warning("not recorded: rule %s failed on this minibatch: %s: %s", name, type(error).__name__, error)
    return decisions


def bucket_sums(minibatch: Minibatch, decision: Decision) -> Tensor:
    """[7, buckets] float64: sums, over each position bucket's tokens, of 1, keep, mass, mass·keep, |A|ρ, min(d, d'), max(d, d').

    mass = |A|·|weight|; d = 1 − keep under the rule and d' under the running rule.
    """
    mask, plain = minibatch.mask, minibatch.plain
    keep, own_keep = decision.keep[mask].double(), minibatch.own.keep[mask].double()
    size = plain.advantages[mask].double().abs()
    mass = size * decision.weight[mask].double().abs()
    dropped, own_dropped = 1 - keep, 1 - own_keep
    overlap = [torch.minimum(dropped, own_dropped), torch.maximum(dropped, own_dropped)]
    columns = torch.stack([torch.ones_like(keep), keep, mass, mass * keep, size * plain.ratio[mask].double(), *overlap])
    bucket = position_bucket(plain.positions, plain.lengths)[mask]
    return columns.new_zeros(len(columns), POSITION_BUCKETS).index_add_(1, bucket, columns)


def summary(sums: Tensor) -> dict:
    """The shares of a shadow row, from bucket_sums or from their sum over several minibatches."""
    buckets = [shares(bucket) for bucket in sums.T.tolist()]
    return shares(sums.sum(1).tolist()) | {"by_position": {key: [bucket[key] for bucket in buckets] for key in buckets[0]}}


def shares(sums: list[float]) -> dict:
    num_tokens, kept, mass, mass_kept, is_mass, dropped_by_both, dropped_by_either = sums
    agreement = None if num_tokens == 0 else share(dropped_by_both, dropped_by_either, 1.0)
    return {
        "tokens": int(num_tokens),
        "kept": share(kept, num_tokens),
        "mass_kept": share(mass_kept, mass),
        "mass_of_is": share(mass_kept, is_mass),
        "jaccard": agreement,
    }


def share(part: float, whole: float, empty: float | None = None) -> float | None:
    return empty if whole == 0 else six_digits(part / whole)


def six_digits(value: float) -> float:
    return float(f"{value:.6g}")
