"""The paper's four models as presets, against its own numbers."""

import json
from pathlib import Path

import pytest

from harness.plan import cells
from harness.settings.compose import compose_config, compose_rule

PAPER = json.loads((Path(__file__).parent / "paper.json").read_text())
MODELS = [name for name in PAPER if name != "shared"]
COMPARED = {"grpo", "minpro", "cispo", "dppo", "trm_max", "trm_avg", "cppo"}


def value_at(config, dotted: str):
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("name", MODELS)
def test_shared_settings_are_the_papers(name):
    config = compose_config([f"experiment={name}"])
    expected = {key: value for key, value in (PAPER["shared"] | PAPER[name]).items() if "." in key}
    assert {key: value_at(config, key) for key in expected} == expected
    assert config.train.prompts_per_step // config.train.updates_per_step == PAPER[name]["prompts_per_minibatch"]
    assert config.eval.max_response_length == config.rollout.max_response_length and config.data.template == config.eval.template
    assert "DAPO-Math-17k@" in config.data.path and config.data.allow_duplicates  # the first of each repeated problem


@pytest.mark.parametrize("name", MODELS)
def test_all_seven_rules_run_at_the_papers_thresholds(name):
    words = {word for run in cells([f"experiment={name}"]) for word in run if word.startswith("method=")}
    presets = {word.removeprefix("method=") for word in words}
    rules = {preset: compose_rule(preset) for preset in presets}
    assert {type(rule).__module__.rpartition(".")[2] for rule in rules.values()} == COMPARED
    cppo, paper = rules[PAPER[name]["cppo"]], PAPER[name]
    settings = cppo.settings()
    assert {key: settings[key] for key in ("delta", "adaptive", "delta_b", "delta_b_min") if key in paper} == {
        key: paper[key] for key in ("delta", "adaptive", "delta_b", "delta_b_min") if key in paper
    }
    assert (settings["w_min"], settings["delta_b_ceiling"], settings["quantile"], settings["ratio_cap"]) == (0.8, 2.0, 0.9, 20.0)
    dppo = next(rule for preset, rule in rules.items() if preset.startswith("dppo"))
    assert (dppo.delta, dppo.divergence) == (paper["delta"], cppo.divergence) == (paper["delta"], "topk_tv")


def test_the_smaller_relative_differs_in_size_only():
    large, small = (compose_config([f"experiment={name}"]) for name in ("qwen3_1p7b", "qwen3_0p6b_1gpu"))
    changed = {"steps", "prompts_per_step"}
    assert {key for key, value in vars(large.train).items() if value != getattr(small.train, key)} == changed
    assert large.eval.benchmarks == small.eval.benchmarks and small.model.path == "Qwen/Qwen3-0.6B"
