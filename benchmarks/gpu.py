"""Measure learner, head and whole steps on a GPU, for Qwen3's shapes with random weights: `python -m benchmarks.gpu [NAME …]`.

learner: an update of long responses, beside bare passes of the same tokens. head: the loss at a vocabulary of 151,936 beside
materialised logits, TRL and Liger. step: sampling and learning beside TRL's GRPOTrainer; with --engine vllm both sample with
vLLM, in the learner's process. Rates are also given as shares of the card's peak rates, which are measured with a large bfloat16
matrix product and a large copy.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median

import torch

from benchmarks import head
from benchmarks.floor import bare_passes, whole_learner
from benchmarks.peers import quiet
from benchmarks.ratio import Clock, faster, now
from benchmarks.sides import TRL, Harness
from benchmarks.workload import SHAPES, Workload, long_update, make_model, on_gpu, prompt_length, save_model, write_problems

HEAD_CHUNK = 2048
ENGINES = {
    "transformers": ((), {}),
    "vllm": (("rollout=vllm", "rollout.vllm.kv_cache_gb=20"), {"use_vllm": True, "vllm_mode": "colocate"}),
}
SAVINGS = {"": {}, "_checkpointing": {"recompute": True}}
Figures = Iterator[tuple[str, float | str]]


def ceilings() -> Figures:
    """The card and its peak rates: bfloat16 products of 8192 × 8192 matrices, and bytes read and written by a copy."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    yield "device", torch.cuda.get_device_name()
    yield "torch", torch.__version__
    yield "peak_tflops", 2 * 8192**3 / mean_seconds(lambda: left @ right, 20) / 1e12
    yield "peak_tb_per_s", 2 * source.numel() / mean_seconds(lambda: target.copy_(source), 20) / 1e12


def mean_seconds(work: Callable, times: int) -> float:
    """Mean seconds of a call over `times` calls, after three calls to warm up."""
    for _ in range(3):
        work()
    start = now()
    for _ in range(times):
        work()
    return (now() - start) / times


def learner_figures(options: argparse.Namespace, figures: dict) -> Figures:
    """Rates of the learner's whole update beside bare passes, each without and with activation checkpointing.

    AdamW's moments are in memory for both.
    """
    for shape, (ending, savings) in product(options.shapes, SAVINGS.items()):
        learner, batch = long_learner(shape, **savings)
        for side, work in {"learner": whole_learner(learner, [batch]), "bare": bare_passes(learner, [batch])}.items():
            key = f"{shape}_{side}{ending}"
            try:
                yield from learned(key, work, batch, on_gpu(shape), options.rounds, figures)
            except torch.OutOfMemoryError:
                print(f"{key}: more memory than the card has", file=sys.stderr)


def long_learner(shape: str, **savings):
    """A learner with the paper's settings, and a minibatch of 32 random responses of 2,000 tokens."""
    from harness.distributed import init_ranks
    from harness.learning.learner import Learner
    from harness.settings.compose import compose_config

    config = compose_config(["method=grpo", "train=paper", "data.max_response_length=2000"])
    model = make_model(on_gpu(shape))
    return Learner(model, config.method, config.train, 2000, init_ranks("cuda"), **savings), long_update(on_gpu(shape), 32, 2000)


def learned(key: str, work: Callable, batch, workload: Workload, num_rounds: int, figures: dict) -> Figures:
    clocks = [watched(work) for _ in range(1 + num_rounds)][1:]
    took = median(clock.seconds["learn"] for clock in clocks)
    flops = learner_flops(workload, len(batch), batch.inputs.shape[1], batch.tokens.shape[1])
    yield f"{key}_tokens_per_s", batch.mask.sum().item() / took
    yield f"{key}_share_of_peak", flops / took / 1e12 / figures["peak_tflops"]
    yield f"{key}_peak_gb", clocks[-1].peak / 1e9


def learner_flops(workload: Workload, num_rows: int, length: int, response_length: int) -> float:
    """Arithmetic operations that learning needs, forward and backward.

    These are six per weight and token, with the head for response tokens only and causal attention over half the square.
    """
    shape = workload.shape
    attention = shape.num_layers * shape.config.num_attention_heads * shape.config.head_dim * length
    per_position = shape.num_layers * shape.largest_layer + attention
    return 6 * num_rows * (per_position * length + shape.hidden_size * shape.vocab_size * response_length)


def head_figures(options: argparse.Namespace, _figures: dict) -> Figures:
    """The loss at a vocabulary of 151,936, hidden size 1024, in bfloat16: milliseconds and peak memory of each implementation."""
    for num_tokens, way in product((4096, 16384), head.available()):
        gc.collect()
        hidden, weight, *ids = head.inputs(num_tokens, 1024, "cuda", torch.bfloat16)

        def work(hidden=hidden, weight=weight, ids=ids, way=way):
            hidden.grad = weight.grad = None
            head.WAYS[way](hidden, weight, *ids, HEAD_CHUNK).sum().backward()

        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        yield f"head_{way}_{num_tokens}_ms", 1000 * mean_seconds(work, options.rounds)
        yield f"head_{way}_{num_tokens}_peak_mb", (torch.cuda.max_memory_allocated() - before) / 1e6


def step_figures(options: argparse.Namespace, figures: dict) -> Figures:
    """Rates of one step of each side, timed in turns."""
    for shape in options.shapes:
        workload = on_gpu(shape, options.length)
        with tempfile.TemporaryDirectory() as name, quiet():
            makers = side_makers(Path(name), workload, options.engine)
            rounds = in_turns({side: makers[side] for side in options.sides}, options.rounds)
        key = f"{shape}_{options.engine}_{options.length}"
        yield from step_rates(key, rounds)
        if "harness" in rounds:
            took = median(clock.seconds["generate"] for clock in rounds["harness"])
            share = rollout_bytes(workload) / took / 1e12 / figures["peak_tb_per_s"]
            yield f"{key}_rollout_share_of_bandwidth", share


def side_makers(folder: Path, workload: Workload, engine: str) -> dict[str, Callable]:
    model, (settings, trl_options) = save_model(folder / "model", workload), ENGINES[engine]
    problems = write_problems(folder / "problems.jsonl", workload)
    return {
        "harness": lambda: Harness(model, problems, workload, *settings),
        "trl": lambda: TRL(model, workload, **trl_options),
    }


def step_rates(key: str, rounds: dict[str, list[Clock]]) -> Figures:
    stages = ("generate", "learn", "step")
    for side, clocks in rounds.items():
        for stage in stages:
            yield f"{key}_{side}_{stage}_tokens_per_s", median(1 / clock.per_token(stage) for clock in clocks)
        yield f"{key}_{side}_peak_gb", max(clock.peak for clock in clocks) / 1e9
    if len(rounds) == 2:
        for stage in stages:
            yield f"{key}_{stage}_vs_trl", median(faster(rounds, "trl", "harness", stage))


def in_turns(makers: dict[str, Callable], num_rounds: int) -> dict[str, list[Clock]]:
    """Clocks of each side as from `interleaved`. A clock's peak is its side's, without bytes that other sides keep allocated."""
    sides, kept = {}, {}
    for name, make in makers.items():
        gc.collect()  # frees the trainer of the previous shape, which is a reference cycle
        before = torch.cuda.memory_allocated()
        sides[name] = make()
        sides[name]()
        gc.collect()
        kept[name] = torch.cuda.memory_allocated() - before
    rounds: dict[str, list[Clock]] = {name: [] for name in sides}
    for _ in range(num_rounds):
        for name, side in sides.items():
            rounds[name].append(watched(side, sum(kept.values()) - kept[name]))
    for side in sides.values():
        side.close()
    return rounds


def watched(side: Callable, others: int = 0) -> Clock:
    """Clock of one step, with its peak of GPU memory less the bytes of the other sides."""
    torch.cuda.reset_peak_memory_stats()
    clock = side()
    clock.peak = torch.cuda.max_memory_allocated() - others
    return clock


def rollout_bytes(workload: Workload) -> float:
    """Bytes that decoding must read, in bfloat16: at each position all weights, and the keys and values of all rows so far."""
    length, tokens = workload.max_response_length, prompt_length(workload) + workload.max_response_length / 2
    return 2 * length * (workload.shape.num_parameters + workload.num_responses * tokens * workload.shape.kv_elements())


PARTS = {"learner": learner_figures, "head": head_figures, "step": step_figures}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--engine", choices=ENGINES, default="transformers", help="of step")
    parser.add_argument("--sides", nargs="+", choices=("harness", "trl"), default=("harness", "trl"), help="of step")
    parser.add_argument("--length", type=int, default=256, help="tokens of a response of step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, a key each")
    options = parser.parse_args()
    unknown = set(options.names) - set(PARTS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        parser.exit(1, "torch sees no GPU here; python -m benchmarks measures on a CPU\n")
    measure(options)


def measure(options: argparse.Namespace) -> None:
    started, figures = time.monotonic(), dict(ceilings())
    print(figures)
    for name in options.names or PARTS:
        for key, value in PARTS[name](options, figures):
            figures[key] = value
            print(f"{key:<48} {value:,.4g}", flush=True)
            if options.out:
                options.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
