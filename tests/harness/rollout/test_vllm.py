"""vLLM for real, on the CPU. Collected where vllm is installed; test_vllm_environment.py brings such an environment about."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config, Qwen3MoeConfig

from harness import doctor, evaluate
from harness.doctor_run import examine
from harness.learning.model import load_model
from harness.rollout import vllm
from harness.rollout.canary import MismatchError, check_push
from harness.rollout.vllm import VllmEngine, WeightReceiver
from harness.run import train
from harness.runs.attempt import StopRequest, attempt
from harness.settings.compose import compose_config, compose_plan
from harness.store import find_runs

pytestmark = pytest.mark.vllm

SMALL = dict(vocab_size=67, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2)
HEADS = dict(num_key_value_heads=1, head_dim=32, initializer_range=0.3)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
PARTS = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.1.mlp.gate.weight",
    "model.layers.1.mlp.experts.gate_up_proj",
    "model.norm.weight",
    "lm_head.weight",
)
MODELS = {
    "tied": Qwen3Config(**SMALL, **HEADS, tie_word_embeddings=True),
    "untied": LlamaConfig(**SMALL, **HEADS, tie_word_embeddings=False),
    "experts": Qwen3MoeConfig(**SMALL, **HEADS, **EXPERTS, tie_word_embeddings=False),
}
PROMPTS = [[1, 2, 3], [4, 5, 6, 8, 9, 10, 11], [12]]
VLLM = ("rollout=vllm", "rollout.vllm.kv_cache_gb=0.2", "rollout.max_rows=64")
RUN = (*VLLM, "method=cppo", "train.prompts_per_step=4", "rollout.lag=1", "eval.benchmarks=[chain4]", "harness.display=none")


def start(folder, kind: str, *settings: str):
    """A random model of that kind, its engine with the weights pushed, and the settings."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(MODELS[kind]).save_pretrained(folder)
    config = compose_config([*VLLM, "model=hf", f"model.path={folder}", "data.max_response_length=40", *settings])
    model = load_model(config.model)
    engine = VllmEngine(model, [7, 15], config)
    engine.push(model, 0)
    return model, engine, config.mismatch


@torch.no_grad()
def move(*parameters):
    for parameter in parameters:
        parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", MODELS)
def test_pushes_reach_the_weights(kind, tmp_path):
    """Each part alone: a single one that did not arrive would be seen."""
    model, engine, settings = start(tmp_path, kind, "mismatch.canary_tokens=8")
    weights = dict(model.named_parameters())
    with closing(engine):
        check_push(engine, model, PROMPTS, settings)
        for version, part in enumerate((name for name in PARTS if name in weights), 1):
            move(weights[part])
            with pytest.raises(MismatchError, match=f"version {version - 1}.*canary_float32"):
                check_push(engine, model, PROMPTS, settings)
            engine.push(model, version)
            check_push(engine, model, PROMPTS, settings)


@pytest.mark.parametrize("kind", ["tied", "experts"])
def test_a_push_that_arrives_in_part_is_caught(kind, tmp_path, monkeypatch):
    """vLLM's own reload leaves packed copies on a CPU as they were: what repack is for."""
    model, engine, settings = start(tmp_path, kind)
    with closing(engine):
        monkeypatch.setattr(vllm, "repack", lambda model: None)
        move(*model.parameters())
        engine.push(model, 4)
        with pytest.raises(MismatchError, match="version 4"):
            check_push(engine, model, PROMPTS, settings)


def test_bfloat16_engine_beside_a_float32_learner(tmp_path):
    model, engine, settings = start(tmp_path, "untied", "rollout.precision=bfloat16")
    with closing(engine):
        check_push(engine, model, PROMPTS, settings)
        move(*model.parameters())
        with pytest.raises(MismatchError, match="canary_bfloat16"):
            check_push(engine, model, PROMPTS, settings)


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    plan = compose_plan([*RUN, f"runs_dir={tmp_path_factory.mktemp('runs')}", "train.steps=3", "eval.every=3"])
    assert attempt(plan, train, StopRequest()) == "completed"
    return plan.folder


def test_three_steps_give_a_sane_store(three_steps):
    assert list(examine(three_steps)) == []
    rows = three_steps.rows("metrics")
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows[:2]:
        assert row["mismatch/max_error"] < 1e-5 and row["mismatch/token_error"] < 1 + 1e-5
        assert row["cost/learned_tokens"] > 0 and row["actor/grad_norm"] > 0 and row["time/push"] > 0
    assert [row["staleness/versions"] for row in rows] == [1.5, 5.5, 5.5]
    scores = {step: [row for row in three_steps.rows("evals") if row["step"] == step] for step in (0, 3)}
    assert all(len(found) == 256 and 10 < sum(row["num_correct"] for row in found) < 246 for found in scores.values())
    assert json.loads((three_steps.path / "config.json").read_text())["operational"]["rollout"]["vllm"]["kv_cache_gb"] == 0.2


def test_a_checkpoint_is_evaluated_with_the_engine_of_its_run(three_steps, tmp_path):
    words = [f"run={three_steps.path}", "step=3", f"out={tmp_path}", "rollout.vllm.kv_cache_gb=0.2"]
    folder = evaluate.run_job(evaluate.read_job(words))
    rows = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    own = [row for row in three_steps.rows("evals") if row["step"] == 3]
    assert sum(row["num_correct"] for row in rows) == pytest.approx(sum(row["num_correct"] for row in own), abs=5)
    assert json.loads((folder / "evaluation.json").read_text())["identity"]["engine"] == "vllm"


def test_a_forgotten_push_stops_the_run(tmp_path, monkeypatch):
    """Before anything is sampled or evaluated with the weights that did not arrive."""
    receive, pushes = WeightReceiver.receive_weights, []

    def first_only(self, weights):
        pushes.append(None)
        if len(pushes) == 1:
            receive(self, weights)

    monkeypatch.setattr(WeightReceiver, "receive_weights", first_only)
    plan = compose_plan([*RUN, f"runs_dir={tmp_path}", "train.steps=3", "eval.every=1"])
    with pytest.raises(MismatchError):
        attempt(plan, train, StopRequest())
    status = plan.folder.read_status()
    assert status["state"] == "failed" and "canary after the push of weight version 4" in status["reason"]
    assert "doctor parity" in status["reason"]
    assert {row["step"] for row in plan.folder.rows("evals")} == {0} and plan.folder.rows("metrics") == []


def test_too_little_memory_for_the_cache_is_said_before_the_first_rollout(tmp_path):
    plan = compose_plan([*RUN, f"runs_dir={tmp_path}", "rollout.vllm.kv_cache_gb=0.00001"])
    with pytest.raises(ValueError, match=r"rollout.vllm.kv_cache_gb=1e-05.*data.max_response_length"):
        attempt(plan, train, StopRequest())
    assert plan.folder.read_status()["state"] == "failed" and plan.folder.rows("evals") == []


def test_sleep_without_a_gpu_is_refused(tmp_path):
    plan = compose_plan([*RUN, f"runs_dir={tmp_path}", "rollout.vllm.sleep=true"])
    with pytest.raises(ValueError, match="rollout.vllm.sleep"):
        attempt(plan, train, StopRequest())


def test_two_ranks_share_one_engine(three_steps, tmp_path):
    """Tensor parallelism through the external launcher: the tokens of step 1 are those of one rank."""
    words = [*RUN, "cluster.ranks=2", "rollout.vllm.tensor_parallel=2", "train.steps=1", "eval.benchmarks=[]"]
    command = [sys.executable, "-m", "harness", *words, f"runs_dir={tmp_path}"]
    result = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder,) = find_runs(tmp_path)
    (row,), alone = folder.rows("metrics"), three_steps.rows("metrics")[0]
    assert row["mismatch/max_error"] < 1e-5
    assert [row[key] for key in ("reward/mean", "cost/response_tokens")] == [
        alone[key] for key in ("reward/mean", "cost/response_tokens")
    ]


def test_parity(capsys):
    assert doctor.main(["parity", *VLLM, "train.prompts_per_step=4"]) == 0
    said = capsys.readouterr().out
    assert "rollout=vllm (float32)" in said and "within 1.05" in said and "90–100 %" in said
