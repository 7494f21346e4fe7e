"""Learner, rollout and head on a GPU, at the shapes of Qwen3 with random weights: `python -m benchmarks.gpu [--out FILE.json]`.

The harness beside TRL's GRPOTrainer, the learner beside bare passes of the same tokens, and both beside what the card does at
best: its rate of a large bfloat16 product and of a large copy, measured in the same run. With --engine vllm both sides
sample with vLLM, in the learner's process.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median

import torch

from benchmarks import head
from benchmarks.floor import beside_bare_passes
from benchmarks.peers import quiet
from benchmarks.ratio import Clock, now
from benchmarks.sides import TRL, Harness
from benchmarks.workload import Workload, on_gpu, prompt_texts, save_model, write_problems

SHAPES = ("0.6B", "1.7B")
CHUNK = 2048
ENGINES = {"transformers": ((), {}), "vllm": (("rollout=vllm",), {"use_vllm": True, "vllm_mode": "colocate"})}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--engine", choices=ENGINES, default="transformers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, a key each")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, "torch sees no GPU here; python -m benchmarks measures on a CPU\n")
    found = {}
    for measure in (ceilings, *(shape_measure(shape, options) for shape in options.shapes), head_figures):
        for key, value in measure(found):
            found[key] = value
            print(f"{key:<48} {value if isinstance(value, str) else f'{value:,.4g}'}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=2) + "\n")


def ceilings(_found: dict):
    """What the card does at best: bfloat16 products of 8192 × 8192, and bytes read and written by a copy."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    yield "device", torch.cuda.get_device_name()
    yield "torch", torch.__version__
    yield "peak_tflops", 2 * 8192**3 / seconds(lambda: left @ right, 20) / 1e12
    yield "peak_tb_per_s", 2 * source.numel() / seconds(lambda: target.copy_(source), 20) / 1e12


def seconds(work: Callable, times: int = 1) -> float:
    """A call, on average over `times` calls after three others."""
    for _ in range(3):
        work()
    start = now()
    for _ in range(times):
        work()
    return (now() - start) / times


def shape_measure(shape: str, options: argparse.Namespace) -> Callable:
    return lambda found: shape_figures(shape, options, found)


def shape_figures(shape: str, options: argparse.Namespace, found: dict):
    """One step of both sides in turns, then the learner beside bare passes."""
    workload = on_gpu(shape)
    settings, trl_options = ENGINES[options.engine]
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = save_model(Path(name) / "model", workload)
        problems = write_problems(Path(name) / "problems.jsonl", workload)
        harness, harness_bytes = warm(lambda: Harness(folder, problems, workload, *settings))
        trl, trl_bytes = warm(lambda: TRL(folder, workload, **trl_options))
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(watched(harness, trl_bytes))
            theirs.append(watched(trl, harness_bytes))
        beside_bare = beside_bare_passes(harness.parts, options.rounds, harness.num_steps + 1)
    model = f"{shape}_{options.engine}"
    yield from side_figures(f"{model}_harness", ours)
    yield from side_figures(f"{model}_trl", theirs)
    for what in ("step", "generate", "learn"):
        yield f"{model}_{what}_vs_trl", median(b.per_token(what) / a.per_token(what) for a, b in zip(ours, theirs, strict=True))
    yield f"{model}_learner_vs_bare", median(beside_bare)
    learn = median(clock.seconds["learn"] for clock in ours)
    yield f"{model}_learner_share_of_peak", learner_flops(workload) / learn / 1e12 / found["peak_tflops"]
    generate = median(clock.seconds["generate"] for clock in ours)
    yield f"{model}_rollout_share_of_bandwidth", rollout_bytes(workload) / generate / 1e12 / found["peak_tb_per_s"]


def warm(make: Callable) -> tuple[Callable, int]:
    """A side after its first step, and the bytes that it keeps."""
    before = torch.cuda.memory_allocated()
    side = make()
    side()
    gc.collect()
    return side, torch.cuda.memory_allocated() - before


def watched(side: Callable, others: int) -> Clock:
    """A step; `peak` is what the side takes at most without the bytes of the others."""
    torch.cuda.reset_peak_memory_stats()
    clock = side()
    clock.peak = torch.cuda.max_memory_allocated() - others
    return clock


def side_figures(side: str, clocks: list[Clock]):
    for what in ("generate", "learn", "step"):
        yield f"{side}_{what}_tokens_per_s", median(1 / clock.per_token(what) for clock in clocks)
    yield f"{side}_peak_gb", max(clock.peak for clock in clocks) / 1e9


def learner_flops(workload: Workload) -> float:
    """Arithmetic that a step of learning needs, forward and backward: six operations a weight and token, the head for
    response tokens only, causal attention over half the square."""
    sizes, length = workload.sizes, workload.max_response_length + len(prompt_texts(workload)[0])
    width = sizes["num_attention_heads"] * sizes["head_dim"]
    narrow = sizes["num_key_value_heads"] * sizes["head_dim"]
    layer = sizes["hidden_size"] * (2 * width + 2 * narrow + 3 * sizes["intermediate_size"])
    attention = 2 * width * length / 2
    body = sizes["num_hidden_layers"] * (layer + attention) * length
    return 6 * workload.num_responses * (body + sizes["hidden_size"] * sizes["vocab_size"] * workload.max_response_length)


def rollout_bytes(workload: Workload) -> float:
    """What decoding must read: all weights at each position, and the keys and values of all rows so far; in bfloat16."""
    sizes, length = workload.sizes, workload.max_response_length
    narrow = sizes["num_key_value_heads"] * sizes["head_dim"]
    width = sizes["num_attention_heads"] * sizes["head_dim"]
    layer = sizes["hidden_size"] * (2 * width + 2 * narrow + 3 * sizes["intermediate_size"])
    weights = sizes["num_hidden_layers"] * layer + sizes["hidden_size"] * sizes["vocab_size"]
    cached = workload.num_responses * 2 * sizes["num_hidden_layers"] * narrow * (len(prompt_texts(workload)[0]) + length / 2)
    return 2 * length * (weights + cached)


def head_figures(_found: dict):
    """The loss at a vocabulary of 151,936, hidden size 1024, in bfloat16: milliseconds and peak memory of each way."""
    for num_tokens, way in product((4096, 16384), head.WAYS):
        torch.cuda.empty_cache()
        hidden, weight, *ids = head.inputs(num_tokens, 1024, "cuda", torch.bfloat16)

        def work(hidden=hidden, weight=weight, ids=ids, way=way):
            hidden.grad = weight.grad = None
            head.WAYS[way](hidden, weight, *ids, CHUNK).sum().backward()

        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield f"head_{way}_{num_tokens}_ms", 1000 * seconds(work, 3)
        yield f"head_{way}_{num_tokens}_peak_mb", (torch.cuda.max_memory_allocated() - before) / 1e6


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
