"""Measures how cost grows with the size of the work: `python -m benchmarks growth`.

A power p means that twice the size takes 2^p times the time: 1 is linear, 0 is free. Each row says what grows.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.peers import quiet
from benchmarks.ratio import Clock, Ratio, interleaved
from benchmarks.sides import Harness
from benchmarks.workload import FIXED, QWEN3_TINY, save_model, trained_run, write_problems

LINEAR = 1.1
STEPS_OF_A_LONG_RUN = 2000
TINY = [
    "method=cppo", "data.max_response_length=8", "train.prompts_per_step=2", "train.group_size=2", "train.updates_per_step=1",
    "rollout.lag=0", "eval.benchmarks=[]", "record.samples=false",
]  # fmt: skip


def run(quick: bool) -> list[Ratio]:
    num_rounds = 1 if quick else 5
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        steps = [step_growth(folder, *case, num_rounds) for case in CASES]
        rows = store_growth(folder, num_rounds)
        runs = analysis_growth(folder, (4, 16) if quick else (8, 32), num_rounds)
    return [*steps, *rows, runs, memory_growth(100 if quick else STEPS_OF_A_LONG_RUN)]


def sized(folder: Path, length: int = 64, num_layers: int = 3, prompts: int = 8, updates: int = 4) -> Harness:
    sizes = QWEN3_TINY | {"num_hidden_layers": num_layers}
    workload = replace(FIXED, max_response_length=length, sizes=sizes, num_prompts=prompts)
    model = save_model(folder / f"{length}-{num_layers}-{prompts}-{updates}", workload)
    problems = write_problems(folder / "problems.jsonl", workload)
    return Harness(model, problems, workload, f"train.updates_per_step={updates}")


# key, what grows, a small and a large case, how many times the size, target
CASES = (
    ("responses", "step time against responses", {"prompts": 8}, {"prompts": 32}, 4, LINEAR),
    ("length", "step time against response length, 32 to 128", {"length": 32}, {"length": 128}, 4, None),
    ("layers", "step time against layers, 2 to 8", {"num_layers": 2}, {"num_layers": 8}, 4, LINEAR),
    ("updates", "step time against updates of the same responses, 2 to 8", {"updates": 2}, {"updates": 8}, 4, None),
)


def step_growth(folder: Path, key: str, text: str, small: dict, large: dict, times: int, target, num_rounds: int) -> Ratio:
    rounds = interleaved({"small": sized(folder, **small), "large": sized(folder, **large)}, num_rounds)
    return Ratio(f"growth_{key}", f"{text}, power", powers(rounds, "step", times), target, at_most=True)


def powers(rounds: dict[str, list[Clock]], name: str, times: float) -> list[float]:
    pairs = zip(rounds["large"], rounds["small"], strict=True)
    return [math.log(large.seconds[name] / small.seconds[name], times) for large, small in pairs]


def store_growth(folder: Path, num_rounds: int) -> list[Ratio]:
    """Growth of the time to append a step's row, and to find the last step, from a file of 50 rows to one of 2,000."""
    from harness.store import RunFolder

    row = {"step": 1} | {f"metric/{i}": i / 7 for i in range(150)}
    folders = {name: RunFolder(folder / name) for name in ("small", "large")}
    for (_, run), count in zip(folders.items(), (50, STEPS_OF_A_LONG_RUN), strict=True):
        run.append("metrics", [row | {"step": step} for step in range(count)])
    work = {
        "append": lambda run: run.append("metrics", [row | {"step": STEPS_OF_A_LONG_RUN}]),
        "last_step": lambda run: run.last_step(),
    }
    ratios = []
    for name, act in work.items():
        sides = {size: repeated(lambda act=act, run=run: act(run), 20) for size, run in folders.items()}
        rounds = interleaved(sides, num_rounds)
        text = f"{name} against the run's length, 50 to 2,000 rows, power"
        ratios.append(Ratio(f"growth_{name}", text, powers(rounds, "all", STEPS_OF_A_LONG_RUN / 50), 0.1, at_most=True))
    return ratios


def repeated(act: Callable[[], object], times: int) -> Callable[[], Clock]:
    def work() -> Clock:
        clock = Clock()
        with clock("all"):
            for _ in range(times):
                act()
        return clock

    return work


def analysis_growth(folder: Path, counts: tuple[int, int], num_rounds: int) -> Ratio:
    """Growth of the time to read and compare runs with their number. They are copies of one short run, as further seeds."""
    words = (f"runs_dir={folder / 'original'}", "train.steps=14", "eval=chain", "eval.benchmarks=[chain4]")
    original = trained_run(*TINY, *words).path
    sides = {}
    for name, count in zip(("small", "large"), counts, strict=True):
        copies(original, folder / f"analysis-{name}", count)
        sides[name] = repeated(lambda root=folder / f"analysis-{name}": all_tables(root), 1)
    values = powers(interleaved(sides, num_rounds), "all", counts[1] / counts[0])
    text = f"analysis time against runs, {counts[0]} to {counts[1]}, power"
    return Ratio("growth_analysis", text, values, LINEAR, at_most=True)


def all_tables(root: Path) -> None:
    from analysis.load import load
    from analysis.results import analyse
    from analysis.tables import TABLES

    results = analyse(load([root]))
    for table in TABLES.values():
        table(results)


def copies(original: Path, root: Path, count: int) -> None:
    config = json.loads((original / "config.json").read_text())
    for seed in range(1, count + 1):
        copy = shutil.copytree(original, root / f"seed={seed}")
        (copy / "config.json").write_text(json.dumps(config | {"seed": seed, "run_id": f"{config['run_id']}-{seed}"}))


def memory_growth(num_steps: int) -> Ratio:
    """Memory of this process after num_steps tiny steps, over its memory after a tenth of them."""
    from harness.parts import build
    from harness.planning.measure import allocated
    from harness.run import learn
    from harness.settings.compose import compose_plan
    from harness.timing import Timer

    taken = {}
    with tempfile.TemporaryDirectory() as name:
        plan = compose_plan([*TINY, f"runs_dir={name}", f"train.steps={num_steps}"])
        plan.folder.lock.acquire()
        parts = build(plan)
        for step in range(1, num_steps + 1):
            parts.record(learn(parts, step, Timer()))
            taken[step] = allocated()
        plan.folder.lock.release()
    text = f"memory after {num_steps:,} steps over that after {num_steps // 10}"
    return Ratio("growth_memory", text, [taken[num_steps] / taken[num_steps // 10]], 1.05, at_most=True)
