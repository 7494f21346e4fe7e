"""Measures memory and time of log-probs, top 20 and entropy at a vocabulary of 151,936: `python -m benchmarks head`.

Each implementation ("way") runs in a separate process, so that peaks of memory are separate. TRL's fused head does not record the
top 20, and Liger's chunked loss neither the top 20 nor the entropy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.ratio import Ratio
from harness.planning.measure import PROMPT_RETURN, Watermark

VOCAB, HIDDEN, TOP_K, CHUNK = 151_936, 256, 20, 128


def materialised(hidden: Tensor, weight: Tensor, tokens: Tensor, topk_ids: Tensor, chunk: int) -> Tensor:
    logprobs = (hidden @ weight.T).float().log_softmax(-1)
    with torch.no_grad():
        logprobs.gather(-1, topk_ids)
        -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, tokens[:, None]).squeeze(-1)


def harness(hidden: Tensor, weight: Tensor, tokens: Tensor, topk_ids: Tensor, chunk: int) -> Tensor:
    from harness.learning.head import token_logprobs

    head = torch.nn.Linear(*reversed(weight.shape), bias=False, device="meta")
    head.weight = torch.nn.Parameter(weight, requires_grad=True)
    return token_logprobs(hidden, head, tokens, topk_ids, chunk).logprobs


def trl(hidden: Tensor, weight: Tensor, tokens: Tensor, topk_ids: Tensor, chunk: int) -> Tensor:
    from trl.kernels import ChunkedLogProbFunction

    return ChunkedLogProbFunction.apply(hidden, weight, None, tokens, 1.0, 8192)[0]


def liger(hidden: Tensor, weight: Tensor, tokens: Tensor, topk_ids: Tensor, chunk: int) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    loss = LigerFusedLinearGRPOLoss(beta=0.0, compiled=False, use_ref_model=False)  # a row at a time
    rows = hidden.view(-1, chunk, hidden.shape[-1])
    ones = torch.ones(rows.shape[:2], device=hidden.device)
    return loss(rows, weight, tokens.view(-1, chunk), ones, ones[:, 0])[0]


WAYS: dict[str, Callable[..., Tensor]] = {"materialised": materialised, "harness": harness, "trl": trl, "liger": liger}
PEERS = {"trl": "trl", "liger": "liger_kernel"}  # way → package that it needs
QUANTITIES = (("memory", "peak memory", "bytes"), ("time", "time", "seconds"))
LIGER_SHARE = 1 / 1.2  # of Liger's memory over ours, which records more


def run(quick: bool) -> list[Ratio]:
    num_tokens, num_rounds = (512, 1) if quick else (2048, 3)
    ways = available()
    rounds = [{way: alone(way, num_tokens) for way in ways} for _ in range(num_rounds)]
    targets = {"materialised": (None if quick else 12.0, 1.0), "liger": (LIGER_SHARE, None)}
    return [
        Ratio(f"head_{name}_vs_{way}", f"{text} of {way} over ours, {num_tokens} tokens", over_ours(rounds, unit, way), target)
        for way in ways[:1] + ways[2:]
        for (name, text, unit), target in zip(QUANTITIES, targets.get(way, (None, None)), strict=True)
    ]


def available() -> list[str]:
    """Ways whose packages are installed."""
    return [way for way in WAYS if way not in PEERS or find_spec(PEERS[way])]


def over_ours(rounds: list[dict[str, dict]], unit: str, way: str) -> list[float]:
    return [measured[way][unit] / measured["harness"][unit] for measured in rounds]


def alone(way: str, num_tokens: int) -> dict:
    command = [sys.executable, "-m", __name__, way, str(num_tokens)]
    environment = os.environ | {"GLIBC_TUNABLES": PROMPT_RETURN}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def inputs(num_tokens: int, hidden_size: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Inputs of a way: hidden states, weights, tokens, and 20 ids per token; the first two require gradients."""
    generator = torch.Generator(device).manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator, device=device).to(dtype)
    ids = lambda *shape: torch.randint(VOCAB, shape, generator=generator, device=device)
    weight = 0.02 * normal(VOCAB, hidden_size)
    return [normal(num_tokens, hidden_size).requires_grad_(), weight.requires_grad_(), ids(num_tokens), ids(num_tokens, TOP_K)]


def forward_backward(way: str, num_tokens: int) -> dict:
    torch.set_num_threads(1)
    tensors = inputs(num_tokens, HIDDEN)
    with Watermark() as watermark:
        start = time.perf_counter()
        WAYS[way](*tensors, CHUNK).sum().backward()
        seconds = time.perf_counter() - start
    return {"bytes": watermark.bytes, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(forward_backward(sys.argv[1], int(sys.argv[2]))))
