"""The paper's ablations as experiments: each names presets that exist, crossed with seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "conf" / "experiment"
ABLATIONS = {
    "ablation_weight": {"cppo", "dppo", "cppo_no_position_weight", "cppo_shuffled", "cppo_reversed"},
    "ablation_budget": {"cppo", "dppo", "cppo_no_prefix_budget", "cppo_fixed_budget"},
    "sensitivity": {"cppo", "cppo_wmin06", "cppo_fixed_budget", "cppo_wmin06_bmin03"},
    "score": {"cppo", "cppo_kl", "cppo_binary", "trm", "dppo"},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_names_presets(name, presets):
    hydra = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["hydra"]
    methods = hydra["sweeper"]["params"]["method"].split(",")
    assert hydra["mode"] == "MULTIRUN" and len(set(methods)) == len(methods)
    assert ABLATIONS[name] <= set(methods) <= set(presets)


@pytest.mark.parametrize(
    "preset, setting, value",
    [
        ("cppo_kl", "delta", 0.1),
        ("cppo_kl", "delta_b", 0.002),
        ("cppo_fixed_budget", "delta_b", 0.03),
        ("cppo_fixed_budget", "adaptive", False),
        ("cppo_wmin06", "w_min", 0.6),
        ("cppo_binary", "divergence", "binary_tv"),
        ("trm", "delta_max", 0.1),
        ("trm", "delta_avg", 0.002),
    ],
)
def test_the_papers_numbers(preset, setting, value, shipped):
    assert shipped(preset).settings()[setting] == value
