"""Estimates the memory of one rank, by part and by moment, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from evals import benchmarks
from harness.planning.shape import Shape
from harness.settings.config import Config

LEARNING, SAMPLING = "learning", "sampling"
MOMENTS = (LEARNING, SAMPLING)
# bytes for each logit of a decoding step: logits, log-probs, and in float64 the probabilities and their cumulative sums
DECODE_BYTES = 24
ID_BYTES = 8


@dataclass(frozen=True)
class Part:
    name: str
    bytes: int
    moments: tuple[str, ...]  # when this part is in memory
    on_host: bool = False  # in host memory even where the model is on a GPU


def size_of(dtype: str) -> int:
    return getattr(torch, dtype).itemsize


def memory_parts(config: Config, shape: Shape) -> list[Part]:
    return [part for part in [*learner_parts(config, shape), *engine_parts(config, shape), records(config)] if part.bytes]


def peak(parts: list[Part], device: bool | None = None) -> int:
    """Bytes at the moment that needs most, on the device (True), on the host (False) or on both together (None)."""
    chosen = [part for part in parts if device is None or part.on_host != device]
    return max(sum(part.bytes for part in chosen if moment in part.moments) for moment in MOMENTS)


def standing_parts(config: Config, shape: Shape) -> Iterator[Part]:
    """Parts whose size does not depend on the data."""
    size, cluster, ranks = size_of(config.model.dtype), config.cluster, config.cluster.ranks
    shard = -(-shape.num_parameters * size // ranks)
    yield Part("weights", shard, MOMENTS)
    yield Part("gradients", shard, (LEARNING,))
    yield Part("optimizer", 2 * shard, MOMENTS, on_host=cluster.offload_optimizer)
    if ranks > 1:  # gathered whole: the current layer, the prefetched next one, and the weights outside of layers
        gathered = 2 * shape.largest_layer + shape.outside_layers
        yield Part("gathered layers", gathered * size, (LEARNING,))


def learner_parts(config: Config, shape: Shape) -> Iterator[Part]:
    yield from standing_parts(config, shape)
    yield Part("activations", activations(config, shape), (LEARNING,))
    yield Part("log-prob chunks", logprob_chunk(config, shape), (LEARNING,))


def logprob_chunk(config: Config, shape: Shape) -> int:
    """Bytes for the log-probs of one chunk: bytes per logit × logits of the chunk, and float32 buffers of the head's size.

    - float32: logits and a scratch buffer (4 + 4 bytes); gradients of head and embedding (2 buffers).
    - bfloat16 on a GPU (assumed unless cluster.device=cpu): the logits alone (2 bytes); a third buffer for the head's weights in
      bfloat16.
    - bfloat16 on a CPU: besides the 4 + 4 bytes, the logits before they are widened and their gradient (2 + 2); the third
      buffer also holds the chunk's share of the head's gradient.
    """
    precisions = {config.train.precision, config.model.dtype}
    per_logit, num_heads = (4 + 4, 2) if precisions == {"float32"} else (2, 3) if config.cluster.device != "cpu" else (12, 3)
    rows = min(config.train.logprob_chunk, config.train.token_budget)
    return shape.vocab_size * (per_logit * rows + num_heads * 4 * shape.hidden_size)


def activations(config: Config, shape: Shape) -> int:
    """Bytes that one micro-batch keeps for the backward pass, with as many of the longest rows as the budget allows (≥ 1)."""
    longest = config.rollout.max_prompt_length + config.rollout.max_response_length
    rows = max(1, config.train.token_budget // longest)
    length = min(longest, config.train.token_budget) if rows > 1 else longest
    autocast = None if config.train.precision == "float32" else torch.bfloat16
    kept = shape.activation_bytes(rows, length, getattr(torch, config.model.dtype), autocast)
    if not config.cluster.activation_checkpointing:
        return kept
    inputs = rows * length * shape.hidden_size * size_of(config.model.dtype) * shape.num_layers
    return inputs + kept // shape.num_layers


def engine_parts(config: Config, shape: Shape) -> Iterator[Part]:
    rollout = config.rollout
    if rollout.engine == "vllm":
        copy = shape.num_parameters * size_of(rollout.precision) // rollout.vllm.tensor_parallel
        when = (SAMPLING,) if rollout.vllm.sleep else MOMENTS
        yield Part("rollout weights", copy, when)
        yield Part("KV cache", int(rollout.vllm.kv_cache_gb * 1e9), when)
        return
    if rollout.precision != config.model.dtype or config.cluster.ranks > 1:
        yield Part("rollout weights", shape.num_parameters * size_of(rollout.precision), MOMENTS)
    trained, evaluated = decoded_rows(config), evaluated_rows(config)
    lengths = [(trained, rollout.max_response_length), (evaluated, config.eval.max_response_length)]
    tokens = max(rows * (rollout.max_prompt_length + length) for rows, length in lengths)
    yield Part("KV cache", tokens * shape.kv_elements() * size_of(rollout.precision), (SAMPLING,))
    yield Part("sampling", DECODE_BYTES * max(trained, evaluated) * shape.vocab_size, (SAMPLING,))


def decoded_rows(config: Config) -> int:
    """Responses that a rank decodes side by side: whole groups within max_rows, from the batches that one call samples."""
    train, rollout = config.train, config.rollout
    sampled = train.prompts_per_step * train.group_size * (rollout.lag + 1) // config.cluster.ranks
    groups = max(1, rollout.max_rows // train.group_size)
    return min(sampled, groups * train.group_size)


def evaluated_rows(config: Config) -> int:
    """Responses that a rank decodes side by side in evaluations: whole questions within eval.max_rows and rollout.max_rows."""
    at_once = max(1, min(config.eval.max_rows, config.rollout.max_rows) // config.eval.n)
    return -(-min(at_once, num_questions(config)) * config.eval.n // config.cluster.ranks)


def num_questions(config: Config) -> int:
    """Number of problems of one evaluation, over all benchmarks."""
    known, root = benchmarks.BENCHMARKS, config.eval.root
    return sum(known[name].size if name in known else len(benchmarks.load(name, root)) for name in config.eval.benchmarks)


def records(config: Config) -> Part:
    """Memory of the rollouts that wait for the learner and of the current one: ids and log-probs of tokens and of the top K."""
    train, rollout = config.train, config.rollout
    tokens = train.prompts_per_step * train.group_size * rollout.max_response_length
    per_token = 2 * ID_BYTES + 8 + rollout.top_k * (ID_BYTES + 4)
    return Part("rollout records", tokens * per_token * (rollout.lag + 2), MOMENTS, on_host=True)
