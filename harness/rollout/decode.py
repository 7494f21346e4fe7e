"""The rollout engine on transformers: one batched decode loop with a KV cache that is written in place.

Each prompt is encoded once for its whole group; finished rows leave the batch; sampling inverts the cumulative
distribution with one uniform number per position from the row's own generator, so a response depends on its seed and
the weights only, not on the batch around it (up to float rounding).
"""

from __future__ import annotations

import copy
import logging
from functools import cache

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from harness.distributed import ALONE, Ranks
from harness.learning.routing import recorded_routing
from harness.learning.sharded import whole
from harness.rollout.records import Rollout, Sampling, pad, pad_to, uniforms

log = logging.getLogger(__name__)

ALIVE_SHARE = 0.85  # below this share of unfinished rows the cache is compacted
LEAST_ROOM, ROOM_PART = 4, 16  # a buffer for n tokens has room for max(LEAST_ROOM, n // ROOM_PART) more


class TransformersEngine:
    """Decodes with the learner's own module if it is not sharded and has the rollout's precision, otherwise with a copy."""

    router_replay = False

    def __init__(self, model: nn.Module, stop_ids: list[int], dtype: torch.dtype, max_rows: int, ranks: Ranks = ALONE):
        self.max_rows, self.dtype = max_rows, dtype
        self.shared = model.dtype == dtype and ranks.size == 1
        self.model = (model if self.shared else with_weights_in(copy.deepcopy(model), dtype)).to(ranks.device)
        self.stop_ids = torch.tensor(sorted(stop_ids), device=ranks.device)
        self.version = 0

    @torch.no_grad()
    def push(self, model: nn.Module, version: int) -> None:
        self.version = version
        if not self.shared:
            for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
                mine.copy_(whole(theirs))
            for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def routing(self, prompts: list[list[int]], responses: list[list[int]]) -> list[Tensor]:
        """Replay the responses as they were sampled, the prompt at once and then token by token, and record the experts."""
        tokens, lengths = pad(responses)
        decoder = _Decoder(self.model, prompts, 1, tokens.shape[1])
        decoder.prefill()
        with recorded_routing(self.model) as calls:
            for column in tokens.T.to(self.model.device):
                decoder.step(column)
        chosen = torch.stack([torch.stack(ids, 1) for ids in calls], 2)  # [rows, tokens, routers, k]
        return [row[:length] for row, length in zip(chosen, lengths.tolist(), strict=True)]

    def sleep(self) -> None:
        """Do nothing: the cache is freed after each batch anyway."""

    def close(self) -> None:
        """Do nothing: the engine holds nothing but the model."""

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> Rollout:
        group = len(seeds) // len(prompts)
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context and max(map(len, prompts)) + sampling.max_response_length > context:
            warn_of_context(context, sampling.max_response_length)
        was_training = self.model.training
        self.model.eval()
        chunks, rows = [], []
        for chunk in chunks_by_length([len(prompt) for prompt in prompts], max(1, self.max_rows // group)):
            chunk_rows = [p * group + g for p in chunk for g in range(group)]
            chunks.append(self._decode([prompts[p] for p in chunk], [seeds[row] for row in chunk_rows], sampling))
            rows += chunk_rows
        self.model.train(was_training)
        return self._join(prompts, chunks, torch.tensor(rows).argsort())

    def _decode(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> dict[str, Tensor]:
        """Decode one chunk of whole groups, from prefill to the last end token."""
        device, group = self.model.device, len(seeds) // len(prompts)
        decoder = _Decoder(self.model, prompts, group, sampling.max_response_length)
        random = uniforms(seeds, sampling.max_response_length).to(device)
        out = _Recorder(len(seeds), sampling, self.model.config.vocab_size, device)
        rows = torch.arange(len(seeds), device=device)
        finished = torch.zeros(len(seeds), dtype=torch.bool, device=device)
        logits = decoder.prefill()
        for position in range(sampling.max_response_length):
            logprobs = torch.log_softmax(logits.float(), -1)
            token = sample(logprobs, random[rows, position], sampling.temperature, sampling.top_p)
            out.record(rows, position, token, logprobs, finished)
            finished |= torch.isin(token, self.stop_ids)
            if position + 1 == sampling.max_response_length:
                break
            num_alive = len(rows) - int(finished.sum())
            if num_alive == 0:
                break
            if num_alive < ALIVE_SHARE * len(rows):
                alive = (~finished).nonzero().squeeze(-1)
                rows, token, finished = rows[alive], token[alive], finished[alive]
                decoder.select(alive)
            logits = decoder.step(token)
        out.truncated[rows] = ~finished
        return out.tensors()

    def _join(self, prompts: list[list[int]], chunks: list[dict[str, Tensor]], order: Tensor) -> Rollout:
        """Concatenate the chunks' rows and put them in the order of the prompts."""
        width = max(chunk["tokens"].shape[1] for chunk in chunks)
        names = ("tokens", "mask", "logprobs", "topk_ids", "topk_logprobs")
        merged = {name: torch.cat([pad_to(chunk[name], width) for chunk in chunks])[order] for name in names}
        ids, lengths = pad(prompts)
        return Rollout(
            prompts=ids,
            prompt_lengths=lengths,
            truncated=torch.cat([chunk["truncated"] for chunk in chunks])[order],
            weight_version=torch.tensor(self.version),
            **merged,
        )


@cache
def warn_of_context(context: int, max_response_length: int) -> None:
    """Said once in a process. No error: a scaled rotary embedding reaches further than its config says."""
    log.warning(
        "a prompt and its response of up to %d tokens may exceed the model's context of %d tokens (max_position_embeddings), "
        "beyond which a model writes nonsense: lower rollout.max_response_length and eval.max_response_length",
        max_response_length,
        context,
    )


def with_weights_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Cast the parameters in place. Buffers are left: rotary frequencies in bfloat16 would be too coarse for long responses."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def chunks_by_length(lengths: list[int], size: int) -> list[list[int]]:
    """Split indices into chunks of at most `size`. In a chunk, no length exceeds twice the shortest, which limits padding."""
    chunks: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunks and len(chunks[-1]) < size and lengths[index] <= 2 * lengths[chunks[-1][0]]:
            chunks[-1].append(index)
        else:
            chunks.append([index])
    return chunks


class _Decoder:
    """The model, its cache and its left-padded rows: prefill once per prompt, then one token per row and call."""

    def __init__(self, model: nn.Module, prompts: list[list[int]], group: int, max_new_tokens: int):
        self.model, self.group = model, group
        ids, lengths = pad(prompts, left=True)
        self.ids, self.length = ids.to(model.device), ids.shape[1]
        columns = torch.arange(self.length + max_new_tokens)
        self.visible = (columns >= self.length - lengths[:, None]).to(model.device)
        self.cache = growing_cache(model.config)
        self.sliding = any(layer.is_sliding for layer in self.cache.layers)

    def prefill(self) -> Tensor:
        """Logits [rows, V] after the prompts, each repeated for its group."""
        mask = self.visible[:, : self.length]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        out = self.model(self.ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, logits_to_keep=1)
        self.cache.batch_repeat_interleave(self.group)
        self.visible = self.visible.repeat_interleave(self.group, 0)
        self.next_position = mask.sum(-1, keepdim=True).repeat_interleave(self.group, 0)
        return out.logits[:, -1].repeat_interleave(self.group, 0)

    def step(self, token: Tensor) -> Tensor:
        """Logits [rows, V] after one more token in each row."""
        self.length += 1
        mask = self.visible[:, : self.length]
        if not self.sliding:  # in its final shape, transformers need not build the mask at every token
            mask = mask[:, None, None]
        out = self.model(token[:, None], attention_mask=mask, position_ids=self.next_position, past_key_values=self.cache)
        self.next_position = self.next_position + 1
        return out.logits[:, -1]

    def select(self, index: Tensor) -> None:
        self.visible, self.next_position = self.visible[index], self.next_position[index]
        self.cache.batch_select_indices(index)


class _Recorder:
    """Collects a chunk's tokens and log-probs, [rows, T, …]; trims them to the longest response at the end."""

    def __init__(self, num_rows: int, sampling: Sampling, vocab_size: int, device: torch.device):
        length, self.k = sampling.max_response_length, min(sampling.top_k, vocab_size)
        self.whole_vocabulary = self.k == vocab_size
        self.ids_in_order = torch.arange(vocab_size, device=device)
        self.tokens = torch.zeros(num_rows, length, dtype=torch.long, device=device)
        self.mask = torch.zeros(num_rows, length, dtype=torch.bool, device=device)
        self.logprobs = torch.zeros(num_rows, length, device=device)
        self.topk_ids = torch.zeros(num_rows, length, self.k, dtype=torch.long, device=device)
        self.topk_logprobs = torch.zeros(num_rows, length, self.k, device=device)
        self.truncated = torch.zeros(num_rows, dtype=torch.bool, device=device)

    def record(self, rows: Tensor, position: int, token: Tensor, logprobs: Tensor, finished: Tensor) -> None:
        """Record one position of all rows. Finished rows that are still in the batch are masked, and zeroed at the end."""
        self.tokens[rows, position] = token
        self.mask[rows, position] = ~finished
        self.logprobs[rows, position] = logprobs.gather(-1, token[:, None]).squeeze(-1)
        if self.whole_vocabulary:
            self.topk_ids[rows, position] = self.ids_in_order
            self.topk_logprobs[rows, position] = logprobs
        elif self.k:
            self.topk_logprobs[rows, position], self.topk_ids[rows, position] = logprobs.topk(self.k)

    def tensors(self) -> dict[str, Tensor]:
        width = int(self.mask.sum(-1).max())
        mask = self.mask[:, :width]
        names = ("tokens", "logprobs", "topk_ids", "topk_logprobs")
        cut = {name: getattr(self, name)[:, :width] for name in names}
        for value in cut.values():
            value[~mask] = 0
        return {name: value.cpu() for name, value in (cut | {"mask": mask, "truncated": self.truncated}).items()}


def sample(logprobs: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """Token ids [rows] by inverting the cumulative distribution of logprobs [rows, V] at uniform [rows] in [0, 1).

    The sums are in float64: in float32 the tail of a large vocabulary would vanish.
    """
    scaled = logprobs if temperature == 1.0 else torch.log_softmax(logprobs / temperature, -1)
    probs = scaled.double().exp()
    if top_p < 1.0:
        probs = nucleus(probs, top_p)
    cumulative = probs.cumsum(-1)
    index = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
    return index.squeeze(-1).clamp(max=probs.shape[-1] - 1)


def nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose mass reaches top_p."""
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(probs).scatter(-1, order, ordered.masked_fill(beyond, 0.0))


class GrowingLayer(DynamicLayer):
    """Stores a layer's keys and values in buffers with room for a few more tokens, written in place and returned as views.

    When a buffer is full, it is copied into a larger one. Room for whole responses would need no copies, but its rows lie so far
    apart in memory that a CPU fetches each with a delay, which makes decoding up to three times slower.
    """

    length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self._move(end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def _move(self, length: int, pick=lambda states: states) -> None:
        """Copy pick(keys) and pick(values) into new buffers with room for `length` tokens and some more."""
        for name in ("keys", "values"):
            used = pick(getattr(self, name)[:, :, : self.length])
            rows, heads, _, head_dim = used.shape
            buffer = used.new_empty(rows, heads, length + max(LEAST_ROOM, length // ROOM_PART), head_dim)
            buffer[:, :, : self.length] = used
            setattr(self, name, buffer)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if repeats > 1:
            self._move(self.length, lambda states: states.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._move(self.length, lambda states: states[indices])


def growing_cache(config) -> DynamicCache:
    """A cache of GrowingLayers for layers that attend to the whole prefix; other layers keep transformers' own cache layers."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
