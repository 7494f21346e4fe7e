"""Matched settings: between two runs of a sweep nothing but `method` and `seed` differs, down to the sampled tokens."""

from pathlib import Path

import pytest
import torch

from harness.display import matched
from harness.settings.compose import compose_plan
from harness.settings.identity import different_keys
from harness.settings.words import readable
from methods import METHODS

PRESETS = sorted(path.stem for path in Path("conf/method").resolve().glob("*.yaml")) or sorted(METHODS)

STRESS = sorted(path.stem for path in Path("conf/stress").resolve().glob("*.yaml"))


@pytest.fixture(scope="module")
def plans():
    return {preset: compose_plan([f"method={preset}"]) for preset in PRESETS}


def test_every_rule_has_a_config():
    assert set(METHODS) <= set(PRESETS)


def test_only_the_method_differs(plans):
    settings = [plan.settings for plan in plans.values()]
    assert {key.partition(".")[0] for key in different_keys(settings)} == {"method"}
    assert len({plan.settings_fingerprint for plan in plans.values()}) == 1
    own = {plan.config_hash for preset, plan in plans.items() if not preset.endswith("_tuned")}  # tuning may keep what it found
    assert len(own) == sum(not preset.endswith("_tuned") for preset in plans)


@pytest.mark.parametrize("change", ["train.lr=1e-4", "rollout.lag=0", "eval.n=2", "data.max_response_length=80"])
def test_a_shared_setting_changes_the_fingerprint(change, plans):
    assert compose_plan(["method=cppo", change]).settings_fingerprint != plans["cppo"].settings_fingerprint


@pytest.mark.parametrize("point", [point for point in STRESS if point != "none"])
def test_a_stress_point_changes_one_setting_and_is_recorded(point, plans):
    plan = compose_plan(["method=cppo", f"stress={point}"])
    assert len(different_keys([plan.settings, plans["cppo"].settings])) == 1
    assert plan.record()["stress"] == plan.stress == point and plans["cppo"].stress == ""


def test_a_setting_newer_than_the_stored_runs_keeps_their_names(plans):
    assert "operations" not in plans["cppo"].settings["data"]
    assert compose_plan(["method=cppo", "data.operations=[2,3]"]).settings["data"]["operations"] == [2, 3]
    with pytest.raises(ValueError, match="data.operations=.*fewest and most"):
        compose_plan(["method=cppo", "data.operations=[3,2]"])


def test_a_sweep_of_stress_points_is_matched_at_each_of_them():
    default, point, override = (compose_plan(["method=cppo", *more]) for more in ([], ["stress=lag8"], ["rollout.lag=8"]))
    assert matched([default, default]).startswith("matched: nothing but method and seed differs (")
    assert matched([default, point]).startswith("matched: nothing but method and seed differs, at each of 2 stress points (")
    assert matched([default, override]).startswith("NOT matched: 2 settings fingerprints (")


@pytest.mark.parametrize(
    "change", ["cluster=debug", "runs_dir=elsewhere", "checkpoint.every=3", "harness.display=none", "record.samples=false"]
)
def test_an_operational_setting_changes_no_hash(change, plans):
    changed = compose_plan(["method=cppo", change])
    assert changed.config_hash == plans["cppo"].config_hash


def test_overrides_of_a_rule_are_part_of_the_name():
    plan = compose_plan(["method=cppo", "method.delta=0.2"])
    assert plan.run_id.startswith("default/chain/cppo,delta=0.2/seed=1-")


def test_first_rollouts_are_the_same_tokens_for_all_methods(tmp_path):
    from harness.parts import build

    small = [f"runs_dir={tmp_path}", "train.prompts_per_step=3", "eval.benchmarks=[]", "rollout.lag=0"]
    rollouts = [build(compose_plan([f"method={name}", *small])).queue.take(1)[0] for name in ("cppo", "pg_is")]
    assert torch.equal(rollouts[0].tokens, rollouts[1].tokens)
    assert torch.equal(rollouts[0].logprobs, rollouts[1].logprobs)
    other_seed = build(compose_plan(["method=cppo", "seed=2", *small])).queue.take(1)[0]
    assert not torch.equal(rollouts[0].prompts, other_seed.prompts)


def test_a_model_path_is_short_for_the_hf_preset():
    assert readable(["-m", "model=org/name", "seed=1"]) == ["-m", "model=hf", "model.path=org/name", "seed=1"]
    assert readable(["model=chain"]) == ["model=chain"]
    with pytest.raises(ValueError, match="chain of conf/model/ and org/name"):
        readable(["model=chain,org/name"])


@pytest.mark.parametrize(
    "given, expanded",
    [
        ("runs/x/seed=1-abc/export/step=3", "'runs/x/seed=1-abc/export/step=3'"),
        ("org/name,x/step=3", "org/name,'x/step=3'"),
        ("'x/step=3'", "'x/step=3'"),
        ("models/é's", r"'models/é\'s'"),
    ],
)
def test_a_path_is_quoted_where_hydra_refuses_it(given, expanded):
    assert readable([f"model={given}"]) == ["model=hf", f"model.path={expanded}"]
    assert readable([f"data.path={given}", f"--config-dir={given}"]) == [f"data.path={expanded}", f"--config-dir={given}"]
