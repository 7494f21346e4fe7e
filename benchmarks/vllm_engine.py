"""Measure the harness's cost on top of vLLM, and that of push and sleep: `python -m benchmarks.vllm_engine [--shape 0.6B]`.

The same requests go through VllmEngine and through vLLM alone, in turns; figures are medians. A shape is a model of Qwen3's sizes
with random weights. With rollout.vllm.sleep=true on a GPU, memory is also measured awake and asleep. Without a GPU, seconds are
CPU time of all threads together. Needs the extra [vllm] (docs/rollouts.md).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing

import torch

from benchmarks.ratio import now
from benchmarks.workload import SHAPES, make_model, on_gpu


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vllm_engine", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, help="instead of the embedded model")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=90)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("overrides", nargs="*", help="settings, as for python -m harness")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for label, value in measure(options, folder):
            print(f"{label:<44} {value}", flush=True)


def measure(options: argparse.Namespace, folder: str):
    from harness.distributed import init_ranks
    from harness.learning.model import load_model
    from harness.rollout.vllm import VllmEngine
    from harness.settings.compose import compose_config

    shape = write_shape(options.shape, folder) if options.shape else []
    longest = f"data.max_response_length={options.tokens}"
    config = compose_config(["rollout=vllm", longest, *shape, *options.overrides])
    ranks = init_ranks("auto")
    model = load_model(config.model).to(ranks.device)
    yield "device", torch.cuda.get_device_name() if ranks.device.type == "cuda" else "cpu"
    yield "parameters, millions", round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1)
    with closing(VllmEngine(model, [1], config, ranks)) as engine:
        engine.push(model, 0)
        yield from rates(engine, prompts_of(config, options), options, config.rollout.top_k)
        yield "push, seconds", median(lambda: engine.push(model, 0), options.rounds)
        if config.rollout.vllm.sleep:
            yield from memory(engine, model)


def write_shape(shape: str, folder: str) -> list[str]:
    """Save a model of this shape to the folder. Returns the settings that name it."""
    make_model(on_gpu(shape)).to(torch.bfloat16).save_pretrained(folder)
    return ["model=hf", f"model.path={folder}", "model.dtype=bfloat16", "rollout.precision=bfloat16"]


def prompts_of(config, options: argparse.Namespace) -> list[list[int]]:
    """Prompts of training problems, or made-up ids for a shape, whose random weights have no tokenizer."""
    from harness.data import step_problems, training_prompts

    if options.shape:
        return [[2 + (row + column) % 1000 for column in range(64)] for row in range(options.rows)]
    return training_prompts(config, step_problems(config.data, config.seed, 1, options.rows))


def rates(engine, prompts: list[list[int]], options: argparse.Namespace, top_k: int):
    """Tokens per second for the same requests by the harness and by vLLM alone, in alternating rounds."""
    from harness.rollout.records import Sampling, request_seed

    seeds = [request_seed(1, row) for row in range(options.rows)]
    sampling = Sampling(options.tokens, top_k=top_k)
    requests = [{"prompt_token_ids": prompt} for prompt in prompts]
    params = [engine.params(sampling, min(top_k, engine.vocab_size), seed) for seed in seeds]
    num_tokens = int(engine.generate(prompts, seeds, sampling).mask.sum())
    ours, alone = [], []
    for _ in range(options.rounds):
        ours.append(seconds(lambda: engine.generate(prompts, seeds, sampling)))
        alone.append(seconds(lambda: engine.llm.generate(requests, params, use_tqdm=False)))
    yield "tokens per round", num_tokens
    yield "tokens per second, in the harness", round(num_tokens / statistics.median(ours))
    yield "tokens per second, vLLM alone", round(num_tokens / statistics.median(alone))
    shares = [mine / other for mine, other in zip(ours, alone, strict=True)]
    spread = f"(from {min(shares):.3f} to {max(shares):.3f})"
    yield "seconds in the harness over seconds alone", f"{statistics.median(shares):.3f} {spread}"


def memory(engine, model):
    used = lambda: round((torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]) / 1e9, 2)
    yield "GPU memory awake, GB", used()
    yield "falling asleep, seconds", round(seconds(engine.sleep), 3)
    yield "GPU memory asleep, GB", used()
    yield "waking up with a push, seconds", round(seconds(lambda: engine.push(model, 1)), 3)


def seconds(action) -> float:
    """Seconds of an action: wall time on a GPU; CPU time without one, since other processes may use the CPU."""
    if not torch.cuda.is_available():
        start = time.process_time()
        action()
        return time.process_time() - start
    start = now()
    action()
    return now() - start


def median(action, rounds: int) -> float:
    return round(statistics.median(seconds(action) for _ in range(rounds)), 4)


if __name__ == "__main__":
    main()
