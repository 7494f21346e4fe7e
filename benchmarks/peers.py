"""Compares the harness with TRL and with a plain hand-written loop on the same work: `python -m benchmarks peers`."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

from benchmarks.ratio import Ratio, faster, interleaved
from benchmarks.sides import TRL, HandLoop, Harness
from benchmarks.workload import FIXED, VARIED, Workload, save_model, write_problems


def run(quick: bool) -> list[Ratio]:
    return [*compare(VARIED, 1 if quick else 4), *compare(FIXED, 3 if quick else 8)]


def compare(workload: Workload, num_rounds: int) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = save_model(Path(name) / "model", workload)
        harness = Harness(folder, write_problems(Path(name) / "problems.jsonl", workload), workload)
        sides = {"harness": harness, "hand": HandLoop(folder, workload), "trl": TRL(folder, workload)}
        rounds = interleaved(sides, num_rounds)
    varied = workload is VARIED
    ending, text = ("", "varied lengths") if varied else ("_fixed", "64 tokens each")
    ratio = lambda stage, than: faster(rounds, than, "harness", stage)
    return [
        Ratio(f"step_vs_trl{ending}", f"whole step, {text}", ratio("step", "trl"), 3.0 if varied else 1.45),
        Ratio(f"generate_vs_trl{ending}", f"generation, {text}", ratio("generate", "trl"), None if varied else 1.1),
        Ratio(f"learn_vs_trl{ending}", f"learning, {text}", ratio("learn", "trl")),
        Ratio(f"step_vs_hand{ending}", f"step against a hand loop, {text}", ratio("step", "hand"), 1.15 if varied else None),
        Ratio(f"generate_vs_hand{ending}", f"generation against it, {text}", ratio("generate", "hand")),
        Ratio(f"learn_vs_hand{ending}", f"learning against it, {text}", ratio("learn", "hand")),
    ]


class quiet(warnings.catch_warnings):
    """Context without the warnings of transformers and TRL about a made-up model."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")
        self.levels = {name: logging.getLogger(name).level for name in ("transformers", "trl", "accelerate")}
        for name in self.levels:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *error):
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)
        super().__exit__(*error)
