"""A made-up sweep whose every number is known, and the path to its writer."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_up import write_run  # noqa: E402

# Summaries at steps 0, 7, 14, 21, 28; 8 problems per benchmark, 4 samples: every share is a multiple of 1/32 and exact.
CURVES = {
    ("cppo", 1): [0.25, 0.5, 0.625, 0.75, 0.75],
    ("cppo", 2): [0.25, 0.5, 0.625, 0.6875, 0.6875],
    ("cppo", 3): [0.25, 0.5, 0.625, 0.8125, 0.8125],
    ("grpo", 1): [0.25, 0.4375, 0.5, 0.5625, 0.5],
    ("grpo", 2): [0.25, 0.4375, 0.5, 0.5625, 0.5625],
    ("grpo", 3): [0.25, 0.4375, 0.5, 0.5, 0.5],
    ("cispo", 1): [0.25, 0.5, 0.125, 0.0625, 0.0],
    ("cispo", 2): [0.25, 0.5, 0.1875, 0.0625, 0.0],
    ("cispo", 3): [0.25, 0.4375, 0.125, 0.0625, 0.0],
    ("dppo", 1): [0.25, 0.5, 0.625, 0.6875, 0.6875],
    ("dppo", 2): [0.25, 0.5, 0.625, 0.75, 0.75],
}  # dppo's seed 3 is missing altogether


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for (method, seed), curve in CURVES.items():
        write_run(root, method, seed, curve, collapse_step=10 + seed if method == "cispo" else None)
    grpo = next(root.glob("default/chain/grpo/seed=1-*"))
    with open(grpo / "evals.jsonl", "a") as file:  # half a line, as a crash leaves it
        file.write('{"step": 35, "benchmark": "chain4", "problem_id": "000", "n": 4, "num_corr')
    metrics = (grpo / "metrics.jsonl").read_text().splitlines(keepends=True)
    stale = metrics[9].replace('"reward/mean": 0.4', '"reward/mean": 99.4')
    (grpo / "metrics.jsonl").write_text("".join([*metrics[:9], stale, *metrics[9:]]))  # step 10 twice: the last wins
    return root


@pytest.fixture(scope="session")
def results(sweep_folder):
    from analysis.load import load
    from analysis.results import analyse

    return analyse(load([sweep_folder]))
