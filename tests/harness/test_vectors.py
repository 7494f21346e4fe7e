"""`python -m harness.check`: passes what is right, fails what is wrong or unknown."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest

from harness.check import main
from harness.vectors import build_rule, check_case, compute, load_cases

SHIPPED = Path(__file__).parents[1] / "vectors.json"


@pytest.fixture(scope="module")
def cases():
    return {case["name"]: case for case in load_cases(SHIPPED)}


def test_the_shipped_file_passes(capsys, cases):
    assert main([str(SHIPPED)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(cases)} of {len(cases)}"
    assert any(line.startswith("cppo_adaptive ") for line in lines)


def test_the_independent_file_passes(capsys):
    folder = os.environ.get("HARNESS_DATA")
    if not folder or not (path := Path(folder).parent / "vectors.json").exists():
        pytest.skip("HARNESS_DATA is not set, or no vectors.json stands beside it")
    assert main([str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "591 of 591"


def wrong_number(case):
    case["expected"]["weight"][0][0] += 1e-6


def wrong_keep(case):
    case["expected"]["keep"][0][0] = 1 - case["expected"]["keep"][0][0]


def unknown_method(case):
    case["method"] = "no_such_rule"


def unknown_parameter(case):
    case["params"]["epsilon"] = 0.2


def unknown_key(case):
    case["expected"]["rho"] = case["expected"]["weight"]


def nothing_expected(case):
    case["expected"] = {}


def wrong_shape(case):
    case["expected"]["weight"] = [row[:1] for row in case["expected"]["weight"]]


def not_a_number(case):
    case["expected"]["weight"][0][0] = float("nan")


DAMAGES = [wrong_number, wrong_keep, unknown_method, unknown_parameter, unknown_key, nothing_expected, wrong_shape, not_a_number]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_case_fails_the_check(damage, tmp_path, capsys, cases):
    good, bad = cases["grpo-random"], copy.deepcopy(cases["grpo-random"])
    damage(bad)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps({"cases": [good, bad], "a key nobody knows": 1}))
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 2"


def test_a_file_without_cases_does_not_pass(tmp_path):
    path = tmp_path / "empty.json"
    path.write_text('{"cases": []}')
    assert main([str(path)]) == 1
    path.write_text("{}")
    for wrong in (path, tmp_path / "nowhere.json"):
        with pytest.raises(ValueError, match="holds no cases"):
            main([str(wrong)])


@pytest.mark.parametrize("key, value", [("set_ids", [[[0]]]), ("tv", [[1.0]]), ("kl_direction", [[1.0, 1.0, 1.0]])])
def test_wrong_divergences_fail(key, value, cases):
    case = copy.deepcopy(cases["topk-V9-K3-union"])
    case["expected"][key] = value
    assert check_case(case).failure


def test_padding_is_not_compared(cases):
    padded = (case for case in cases.values() if case["group"] == "grpo" and 0 in case["inputs"]["response_mask"][0])
    case = copy.deepcopy(next(padded))
    column = case["inputs"]["response_mask"][0].index(0)
    case["expected"]["weight"][0][column] = 5.0
    assert check_case(case).failure is None


def test_padding_of_distributions_may_hold_anything(cases):
    case = copy.deepcopy(cases["topk-V9-K3-union"])
    inputs, expected = case["inputs"], case["expected"]
    for key in ("tokens", "dist_logprobs", "rollout_dist_logprobs"):
        inputs[key][0].append(-1 if key == "tokens" else [float("nan")] * 9)
    inputs["response_mask"][0].append(0)
    for key, values in expected.items():
        values[0].append([] if key == "set_ids" else 99.0)
    del case["params"]["mode"]  # union is meant where it is left out
    assert check_case(case).failure is None


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("trm", {"divergence": "given"}, "trm needs delta_max, delta_avg or both"),
        ("dppo", {"delta": 0.1, "divergence": "given"}, "inputs.divergence"),
        ("dppo", {"delta": 0.1, "divergence": "topk_tv"}, "topk_tv needs distributions"),
    ],
)
def test_what_a_case_lacks_is_named(method, params, reason, cases):
    case = copy.deepcopy(cases["grpo-random"]) | {"method": method, "params": params}
    assert reason in check_case(case).failure


def test_infinite_numbers_may_be_expected(cases):
    case = copy.deepcopy(cases["topk-V9-K3-union"])
    row = case["inputs"]["dist_logprobs"][0][0]
    row[case["inputs"]["tokens"][0][0]] = float("-inf")
    case["expected"] = {"k1": compute(case)["k1"].tolist()}
    assert case["expected"]["k1"][0][0] == float("inf") and check_case(case).failure is None


def test_a_registered_rule_is_found_by_its_own_name(cases):
    case = copy.deepcopy(cases["ppo-random"])
    case["method"], case["params"] = "ppo", {"eps": 0.2}
    assert check_case(case).failure is None


def test_settings_left_out_or_null_are_what_the_specification_says():
    assert build_rule("cppo", {"delta": 0.1, "delta_b": 0.01, "divergence": "given"}).w_min == 0.8
    assert build_rule("cppo", {"delta": 0.1, "adaptive": True, "divergence": "given"}).delta_b_min == 0.02
    alone = build_rule("trm", {"delta_max": None, "delta_avg": 0.1, "divergence": "given"})
    assert type(alone).__name__ == "TRMAvg" and alone.delta == 0.1
