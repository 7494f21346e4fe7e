"""Records minibatches of a run: shadow rows, traces and whole minibatches. Formats: docs/recordings.md.

The step's last minibatch is recorded, because the policies are furthest apart there. Nothing here feeds back into training.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from math import isfinite
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from harness.files import write_atomic
from harness.learning.divergence import PolicyPair
from harness.learning.experience import response_keys
from harness.learning.learner import Update
from harness.parts import Parts
from harness.rollout.records import Rollout
from harness.settings.compose import shipped_rules
from harness.settings.config import RecordConfig
from harness.telemetry.shadow import OWN, Minibatch, bucket_sums, observe, six_digits, summary
from methods import rule_name
from methods.base import Decision, Rule

log = logging.getLogger(__name__)

FORMAT = 1
PAIR_TENSORS = ("tokens", "logprobs", "rollout_logprobs", "topk_ids", "topk_logprobs", "rollout_topk_logprobs")
IDS = ("tokens", "topk_ids")
METADATA = "recording"  # a single entry, because safetensors writes several in random order


def recording_due(record: RecordConfig, step: int) -> bool:
    return due(step, record.shadow_every) or due(step, record.batches_every)


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def record_step(parts: Parts, step: int, updates: list[Update], rollout: Rollout, rewards: Tensor) -> None:
    """Record the step's last update, which kept its policy pairs. rewards [B]."""
    record = parts.config.record
    minibatch = Minibatch.of(updates[-1].decided, parts.learner.horizon)
    when = {"step": step, "update": len(updates)}
    if due(step, record.shadow_every):
        rules = shipped_rules()
        decisions = observe(minibatch, rules)
        sums = {name: bucket_sums(minibatch, decision) for name, decision in decisions.items()}
        parts.folder.append("shadow", [{"rule": name} | when | summary(sums[name]) for name in sums])
        if record.trace_prompts:
            settings = {OWN: parts.config.method} | {name: rules[name] for name in rules if name in decisions}
            chosen = traced_responses(parts, step, minibatch, rollout, rewards)
            responses = [facts | response_trace(minibatch, row, decisions, parts.tokenizer) for row, facts in chosen]
            write_trace(trace_path(parts.folder.path, step), when, parts.config.train.divergence, settings, responses)
    if due(step, record.batches_every):
        write_minibatch(batch_path(parts.folder.path, step), minibatch, when | batch_facts(parts), record.batch_max_mb)


def trace_path(folder: Path, step: int) -> Path:
    return folder / "traces" / f"step={step}.json"


def batch_path(folder: Path, step: int) -> Path:
    return folder / "batches" / f"step={step}.safetensors"


def batch_facts(parts: Parts) -> dict[str, object]:
    train = parts.config.train
    identity = {"rule": parts.plan.rule, "preset": parts.plan.preset}
    return identity | {"aggregation": train.aggregation, "anchor": train.anchor, "divergence": train.divergence}


def traced_responses(parts: Parts, step: int, minibatch: Minibatch, rollout: Rollout, rewards: Tensor) -> list[tuple[int, dict]]:
    """The few responses that are traced: each one's row of the minibatch, and its problem, prompt, reward and truncation."""
    record, group_size = parts.config.record, rollout.group_size
    place = {key: b for b, key in enumerate(response_keys(parts.queue.keys(step)).tolist())}
    rows = {place[key]: row for row, key in enumerate(minibatch.response_key.tolist())}
    prompts = sorted({b // group_size for b in rows})[: record.trace_prompts]
    problems = parts.queue.problems(step)
    chosen = []
    for p in prompts:
        prompt = parts.tokenizer.decode(rollout.prompts[p, : rollout.prompt_lengths[p]])
        answers = sorted(b for b in rows if b // group_size == p)[: record.trace_responses]
        chosen += [
            (
                rows[b],
                {"problem_id": problems[p].id, "sample": b % group_size, "prompt": prompt}
                | {"reward": rewards[b].item(), "truncated": bool(rollout.truncated[b])},
            )
            for b in answers
        ]
    return chosen


def response_trace(minibatch: Minibatch, row: int, decisions: dict[str, Decision], tokenizer) -> dict:
    """One response's tokens with their scores and every rule's decision on them."""
    mask, pair, plain = minibatch.mask[row], minibatch.pair, minibatch.plain
    ids = pair.tokens[row][mask].tolist()

    def row_numbers(values: Tensor) -> list | float | None:
        return numbers(values[row][mask] if values.dim() == 2 else values[row])

    def decision_trace(decision: Decision) -> dict:
        aux = {key: row_numbers(values) for key, values in decision.aux.items()}
        return {"weight": row_numbers(decision.weight), "keep": row_numbers(decision.keep), "aux": aux}

    tokens = {"token_ids": ids, "tokens": tokenizer.batch_decode([[i] for i in ids])}
    series = {
        "rollout_logprobs": row_numbers(pair.rollout_logprobs),
        "logprobs": row_numbers(pair.logprobs),
        "ratio": row_numbers(plain.ratio),
        "divergence": row_numbers(minibatch.divergence),
        "entropy": row_numbers(minibatch.entropy),
    }
    advantage = {"advantage": six_digits(minibatch.advantages[row].item())}
    return advantage | tokens | series | {"rules": {name: decision_trace(decision) for name, decision in decisions.items()}}


def numbers(values: Tensor) -> list | float | None:
    """Values with 6 significant digits, None for those that are not finite; a single number if all are equal."""
    rounded = [number(value) for value in values.double().flatten().tolist()]
    return rounded[0] if all(value == rounded[0] for value in rounded) else rounded


def number(value: float) -> float | int | None:
    if not isfinite(value):
        return None
    rounded = six_digits(value)
    return int(rounded) if rounded.is_integer() else rounded


def write_trace(path: Path, when: dict, divergence: str, rules: dict[str, Rule], responses: list[dict]) -> None:
    settings = {name: {"rule": rule_name(rule), "settings": asdict(rule)} for name, rule in rules.items()}
    trace = {"format": FORMAT} | when | {"divergence": divergence, "rules": settings, "responses": responses}
    write_atomic(path, json.dumps(trace, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def write_minibatch(path: Path, minibatch: Minibatch, facts: dict[str, object], max_mb: float) -> None:
    """Write whole responses, from the first on, as many as fit into max_mb."""
    num_responses = responses_that_fit(minibatch, max_mb * 1e6)
    if num_responses == 0:
        log.warning("%s not written: no response fits record.batch_max_mb=%s", path.name, max_mb)
        return
    metadata = facts | {
        "format": FORMAT,
        "vocab_size": minibatch.pair.vocab_size,
        "horizon": minibatch.horizon,
        "num_responses": num_responses,
        "num_dropped": len(minibatch) - num_responses,
    }
    tensors = {name: values.contiguous() for name, values in packed(minibatch, num_responses).items()}
    write_atomic(path, save(tensors, {METADATA: json.dumps(metadata)}))


def responses_that_fit(minibatch: Minibatch, num_bytes: float) -> int:
    first = packed(minibatch, 1)
    row_bytes = sum(first[name].nbytes for name in ("mask", "response_key", "advantages"))
    token_bytes = (sum(values.nbytes for values in first.values()) - row_bytes) / int(minibatch.mask[0].sum())
    sizes = row_bytes + token_bytes * minibatch.mask.sum(-1).double()
    return int((sizes.cumsum(0) <= num_bytes).sum())


def packed(minibatch: Minibatch, num_responses: int) -> dict[str, Tensor]:
    """The first responses as they are stored: per-token tensors over valid tokens only."""
    mask = minibatch.mask[:num_responses]
    tokens = {name: getattr(minibatch.pair, name) for name in PAIR_TENSORS}
    tokens |= {"divergence": minibatch.divergence, "entropy": minibatch.entropy}
    tokens |= {"weight": minibatch.own.weight, "keep": minibatch.own.keep}
    flat = {name: values[:num_responses][mask] for name, values in tokens.items()}
    rows = {"response_key": minibatch.response_key[:num_responses], "advantages": minibatch.advantages[:num_responses]}
    return {"mask": mask} | rows | flat | {name: flat[name].int() for name in IDS}


def read_minibatch(path: Path) -> tuple[Minibatch, dict]:
    """A recorded minibatch and its metadata; padded positions are zero."""
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()[METADATA])
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if metadata["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {metadata['format']}, and this version reads {FORMAT}: use the version that wrote it"
        )
    mask = stored["mask"]

    def padded(name: str) -> Tensor:
        flat = stored[name].long() if name in IDS else stored[name]
        return flat.new_zeros(*mask.shape, *flat.shape[1:]).index_put((mask,), flat)

    pair = PolicyPair(**{name: padded(name) for name in PAIR_TENSORS}, mask=mask, vocab_size=metadata["vocab_size"])
    own = Decision(padded("weight"), padded("keep"))
    rows = (stored["advantages"], stored["response_key"])
    return Minibatch(pair, *rows, padded("divergence"), padded("entropy"), own, metadata["horizon"]), metadata
