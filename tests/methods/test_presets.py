"""Every YAML in conf/method makes a rule, and every registered rule has one of its own name."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from methods import METHODS, rule_name
from methods.base import MISSING


def test_every_rule_ships_a_preset_of_its_name(presets, shipped):
    assert set(METHODS) <= set(presets)
    for name in METHODS:
        assert rule_name(shipped(name)) == name


def test_every_preset_makes_a_rule(presets, shipped):
    for preset in presets:
        assert MISSING not in shipped(preset).settings().values()


def test_presets_of_a_rule_differ(presets, shipped):
    """But for the tuned ones: each is the preset that tuning chose, under a name of its own."""
    seen = {}
    for preset in [preset for preset in presets if not preset.endswith("_tuned")]:
        rule = shipped(preset)
        key = (rule_name(rule), str(rule.settings()))
        assert key not in seen, f"{preset} is {seen.get(key)} once more"
        seen[key] = preset


@pytest.mark.parametrize("name", METHODS)
def test_a_rule_is_a_schema(name):
    schema = OmegaConf.structured(METHODS[name])
    assert all(OmegaConf.is_missing(schema, key) for key in schema)


@pytest.mark.parametrize(
    "preset, changes, setting",
    [
        ("ppo", {"eps": -0.1}, "eps"),
        ("grpo", {"eps_high": float("nan")}, "eps_high"),
        ("grpo", {"dual_clip": 0.5}, "dual_clip"),
        ("dppo", {"ratio_cap": 0.0}, "ratio_cap"),
        ("dppo", {"topk_set": "both"}, "topk_set"),
        ("cppo", {"position_weights": "random"}, "position_weights"),
        ("cppo", {"adaptive": False, "delta_b": None}, "delta_b"),
        ("cppo", {"w_min": 1.1}, "w_min"),
        ("cppo", {"length": "padded", "position_weights": "reversed"}, "length"),
        ("m2po", {"inner_low": 0.7}, "inner_high"),
        ("trm", {"rejected": "dropped"}, "rejected"),
        ("icepop", {"low": 1.5}, "low"),
        ("pg_is", None, None),
    ],
)
def test_a_value_out_of_range_names_its_setting(preset, changes, setting, shipped):
    if changes is None:
        assert shipped(preset).settings() == {}
    else:
        with pytest.raises(ValueError, match=rf"method\.{setting}="):
            shipped(preset, **changes)


def test_a_missing_number_is_named():
    with pytest.raises(ValueError, match="eps_low"):
        METHODS["cispo"](eps_high=0.2)
