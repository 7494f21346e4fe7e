"""The learner computes log-probs, the rule's decision and the loss, and steps the optimizer. It is the same for every method.

A rule sees detached tensors and returns weights; everything that carries a gradient is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from harness.distributed import ALONE, Ranks
from harness.learning.divergence import PolicyPair, divergence, kl_direction
from harness.learning.experience import Experience, microbatches
from harness.learning.logprobs import Scorer
from harness.learning.loss import Totals, surrogate_loss, token_scale
from harness.learning.optimizer import HostAdamW
from harness.learning.sharded import on_device, recompute_activations, shard, whole
from harness.settings.config import TrainConfig
from harness.timing import Timer
from methods.base import Decision, Rule, TokenBatch

Score = Callable[[str, str], Tensor]


@dataclass
class Scored:
    """The learner's scores of a micro-batch, [b, T]; only `logprobs` carries a gradient."""

    logprobs: Tensor
    topk_logprobs: Tensor  # [b, T, K]
    entropy: Tensor


@dataclass
class Decided:
    """A micro-batch with the rule's decision and the scores that the trust metrics need; all detached."""

    batch: TokenBatch
    decision: Decision
    divergence: Tensor  # [b, T] train.divergence, the same score for every method
    entropy: Tensor
    pair: PolicyPair | None  # kept on request only: its Top-K tensors are large


@dataclass
class Update:
    """The results of one optimizer step, over all ranks."""

    decided: list[Decided]  # of the whole minibatch on the first rank; empty on the others
    loss: float
    grad_norm: float
    skipped: bool  # the loss or the gradient was not finite
    num_positions: int  # positions computed, padding included


class Learner:
    """Trains a model by a rule, on any number of ranks. `horizon` is the longest response that the run allows.

    Each rank computes its share of a minibatch's rows with the denominators of the whole minibatch. The gradient
    (harness/learning/sharded.py) and the loss are summed over the ranks; the inputs of the metrics are gathered on the first.
    """

    def __init__(
        self,
        model: nn.Module,
        rule: Rule,
        config: TrainConfig,
        horizon: int,
        ranks: Ranks = ALONE,
        recompute: bool = False,  # recompute activations in the backward pass
        offload: bool = False,  # keep the optimizer's moments in host memory
    ):
        self.model, self.rule, self.config, self.horizon, self.ranks = model, rule, config, horizon, ranks
        self.scorer = Scorer(model, config.logprob_chunk, ranks)
        self.vocab_size = model.config.get_text_config().vocab_size
        if recompute:
            recompute_activations(model)
        shard(self.scorer, model, ranks)
        adamw = HostAdamW if offload else torch.optim.AdamW
        self.optimizer = adamw(
            model.parameters(), config.lr, tuple(config.betas), config.adam_eps, config.weight_decay, fused=True
        )
        self.num_updates = 0

    @property
    def stepped(self) -> dict[str, Tensor]:
        """The tensors that the optimizer updates, by parameter name: the parameters, or their copies in host memory."""
        names = [name for name, _ in self.model.named_parameters()]
        return dict(zip(names, self.optimizer.param_groups[0]["params"], strict=True))

    def update(self, minibatch: Experience, timer: Timer, keep_pairs: bool = False) -> Update:
        """Accumulate the gradient of a whole minibatch and take one optimizer step, unless loss or gradient is not finite."""
        totals = Totals.of(minibatch.mask)
        indices, num_idle = self.share(minibatch)
        parts = [minibatch.rows(index).to(self.ranks.device) for index in indices]
        together = self.rule.scope == "minibatch"
        decisions = self.decide_together(minibatch, parts, num_idle, timer) if together else [None] * len(parts)
        decided, loss = [], 0.0
        for part, decision in zip(parts, decisions, strict=True):
            with timer("forward_backward"):
                scored = self.score(part)
            with timer("rule"):
                decided.append(self.decide(part, scored, decision))
            with timer("forward_backward"):
                loss += self.backward(decided[-1], scored.logprobs, totals)
            if not keep_pairs:
                decided[-1].pair = None
        with timer("forward_backward"):
            for empty in self.idle(minibatch, num_idle):
                empty.logprobs.sum().backward()
        with timer("optimizer"):
            loss = self.ranks.sum(loss)
            grad_norm, skipped = self.step(loss)
        num_positions = self.ranks.sum(sum(part.inputs.numel() for part in parts))
        return Update(self.collect(decided), loss, grad_norm, skipped, num_positions)

    def share(self, batch: Experience) -> tuple[list[Tensor], int]:
        """Row indices of this rank's micro-batches, and how many more micro-batches the rank with the most of them has."""
        split = [microbatches(batch, self.config.token_budget, rank, self.ranks.size) for rank in range(self.ranks.size)]
        indices = split[self.ranks.rank]
        return indices, max(map(len, split)) - len(indices)

    def idle(self, batch: Experience, count: int) -> Iterator[Scored]:
        """Make `count` passes with an empty response mask: ranks gather layers together, so all make equally many passes."""
        for _ in range(count):
            yield self.score(batch.rows(torch.tensor([0])).without_tokens().to(self.ranks.device))

    def collect(self, decided: list[Decided]) -> list[Decided]:
        """The decided micro-batches of all ranks on the first rank, on the CPU; [] on the others."""
        return [part for rank in self.ranks.gather_to_first(on_device(decided, "cpu")) for part in rank]

    def score(self, part: Experience) -> Scored:
        """Score a micro-batch in one forward pass. Right padding needs no attention mask: no token attends to later ones."""
        # the state at position j predicts token j + 1
        column = torch.arange(part.inputs.shape[1], device=part.inputs.device) + 1
        predicts = (column >= part.prompt_lengths[:, None]) & (column < (part.prompt_lengths + part.lengths)[:, None])
        with self.autocast():
            flat = self.scorer(part.inputs, predicts, part.tokens[part.mask], part.topk_ids[part.mask])
        return Scored(*(values.new_zeros(*part.mask.shape, *values.shape[1:]).index_put((part.mask,), values) for values in flat))

    @torch.no_grad()
    def decide(self, part: Experience, scored: Scored, decision: Decision | None = None) -> Decided:
        """Ask the rule about a scored micro-batch, unless its `decision` is given."""
        pair = PolicyPair(
            part.tokens,
            scored.logprobs,
            part.anchor_logprobs,
            part.topk_ids,
            scored.topk_logprobs,
            part.anchor_topk_logprobs,
            part.mask,
            self.vocab_size,
        )
        score = cache(lambda name, topk_set: divergence(name, pair, topk_set))
        batch = token_batch(self.rule, pair, score, part.advantages, part.response_key, self.horizon)
        shared = score(self.config.divergence, "union")
        return Decided(batch, decision or self.rule(batch), shared, scored.entropy, pair)

    def backward(self, decided: Decided, logprobs: Tensor, totals: Totals) -> float:
        """Add a micro-batch's gradient to the parameters' gradients; returns its loss."""
        batch = decided.batch
        scale = token_scale(batch.mask, self.config.aggregation, totals, self.horizon)
        loss = surrogate_loss(logprobs, batch.advantages, decided.decision, batch.mask, scale)
        loss.backward()
        return float(loss.detach())

    @torch.no_grad()
    def decide_together(self, minibatch: Experience, parts: list[Experience], num_idle: int, timer: Timer) -> list[Decision]:
        """Decisions of a rule with minibatch scope: an extra pass, then one decision, split back into micro-batches."""
        with timer("minibatch_pass"):
            placeholder = Decision(torch.zeros(()), torch.zeros(()))  # the rule is asked once, below
            batches = [self.decide(part, self.score(part), placeholder).batch for part in parts]
            list(self.idle(minibatch, num_idle))
            by_rank = self.ranks.gather(on_device(batches, "cpu"))
            all_batches = [batch for rank in by_rank for batch in rank]
            decisions = split_decision(self.rule(join_batches(all_batches)), all_batches)
            start = sum(map(len, by_rank[: self.ranks.rank]))
            return on_device(decisions[start : start + len(parts)], self.ranks.device)

    def step(self, loss: float) -> tuple[float, bool]:
        """Clip the gradient and step. Returns its norm before clipping, and True if the step was skipped.

        A non-finite loss or gradient skips the step; only num_updates changes then.
        """
        norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm))
        skipped = not (torch.isfinite(norm) and torch.isfinite(torch.tensor(loss)))
        if not skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(self.num_updates)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.num_updates += 1
        return float(norm), skipped

    def learning_rate(self, update: int) -> float:
        """Linear warm-up to lr over warmup_updates, then constant; update counts from 0."""
        return self.config.lr * min(1.0, (update + 1) / max(self.config.warmup_updates, 1))

    @torch.no_grad()
    def logprobs(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Log-probs [N, T] and top-k log-probs [N, T, K] of all rows under the current weights, without gradient."""
        indices, num_idle = self.share(experience)
        scored = [on_device(self.score(experience.rows(index).to(self.ranks.device)), "cpu") for index in indices]
        list(self.idle(experience, num_idle))
        logprobs, topk = torch.zeros_like(experience.anchor_logprobs), torch.zeros_like(experience.anchor_topk_logprobs)
        for index, part in (pair for rank in self.ranks.gather(list(zip(indices, scored, strict=True))) for pair in rank):
            width = part.logprobs.shape[1]
            logprobs[index, :width], topk[index, :width] = part.logprobs, part.topk_logprobs
        return logprobs, topk

    def autocast(self):
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.ranks.device.type, getattr(torch, self.config.precision))


def token_batch(rule: Rule, pair: PolicyPair, score: Score, advantages: Tensor, response_key: Tensor, horizon: int) -> TokenBatch:
    """The TokenBatch that `rule` needs. advantages, response_key: [B]; score(name, topk_set) gives a divergence of the pair."""
    return TokenBatch(
        pair.logprobs,
        pair.rollout_logprobs,
        advantages[:, None].expand_as(pair.mask),
        pair.mask,
        divergence=None if rule.divergence is None else score(rule.divergence, rule.topk_set),
        response_key=response_key,
        kl_direction=kl_direction(pair, rule.topk_set) if rule.needs_kl_direction else None,
        horizon=horizon,
    )


def join_batches(batches: list[TokenBatch]) -> TokenBatch:
    """Concatenate the rows of micro-batches, padded to the widest."""
    width = max(batch.mask.shape[1] for batch in batches)

    def stack(name: str) -> Tensor | None:
        values = [getattr(batch, name) for batch in batches]
        if values[0] is None:
            return None
        if values[0].dim() == 1:
            return torch.cat(values)
        return torch.cat([nn.functional.pad(value, (0, width - value.shape[1])) for value in values])

    names = ("logprobs", "rollout_logprobs", "advantages", "mask", "divergence", "response_key", "kl_direction")
    return TokenBatch(**{name: stack(name) for name in names}, horizon=batches[0].horizon)


def split_decision(decision: Decision, batches: list[TokenBatch]) -> list[Decision]:
    """Split the decision on joined batches into one for each batch: the inverse of join_batches."""
    parts, start = [], 0
    for batch in batches:
        rows, width = slice(start, start + len(batch.mask)), batch.mask.shape[1]
        cut = lambda value, rows=rows, width=width: value[rows, :width] if value.dim() == 2 else value[rows]
        aux = {name: cut(value) for name, value in decision.aux.items()}
        parts.append(Decision(cut(decision.weight), cut(decision.keep), aux))
        start += len(batch.mask)
    return parts
