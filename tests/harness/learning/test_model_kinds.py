"""Any Hugging Face causal LM: tiny random models of several kinds, dense and mixtures of experts, through the harness."""

import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from harness import export
from harness.learning.learner import Learner
from harness.learning.model import load_model, load_tokenizer
from harness.learning.routing import recorded_routing, routers, routing_mismatch
from harness.rollout.canary import as_experience
from harness.rollout.decode import TransformersEngine
from harness.rollout.records import Sampling
from harness.runs.attempt import StopRequest, attempt
from harness.runs.checkpoint import model_tensors
from harness.runs.trained import find_trained
from harness.settings.compose import compose_config, compose_plan, compose_rule
from harness.settings.words import readable
from harness.timing import Timer

PROMPTS, SEEDS = [[5, 6, 7], [8, 9, 10, 11, 12], [4]], list(range(12))


def load_models():
    """tests/harness/distributed/models.py, by its path."""
    path = Path(__file__).parents[1] / "distributed" / "models.py"
    spec = importlib.util.spec_from_file_location("tiny_models", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = module
    spec.loader.exec_module(module)
    return module


MODELS = load_models()


@pytest.fixture(params=MODELS.KINDS)
def kind(request):
    return request.param


def make_learner(model, **savings) -> Learner:
    config = compose_config(["train.lr=0.01", "train.warmup_updates=0", "train.token_budget=40"])
    return Learner(model, compose_rule("pg_is"), config.train, 9, **savings)


def test_logprobs_are_those_of_the_models_own_logits(kind):
    model, experience = MODELS.make_model(kind), MODELS.make_experience()
    found, _ = make_learner(model).logprobs(experience)
    for row in range(len(experience)):
        length, start = int(experience.lengths[row]), int(experience.prompt_lengths[row])
        with torch.no_grad():
            logits = model(experience.inputs[None, row, : start + length]).logits[0, start - 1 : -1]
        expected = torch.log_softmax(logits, -1).gather(-1, experience.tokens[row, :length, None]).squeeze(-1)
        torch.testing.assert_close(found[row, :length], expected, atol=1e-5, rtol=0)


def test_a_head_of_an_unknown_kind_is_refused():
    model = MODELS.make_model("llama")
    forward = model.forward

    def halved(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits / 2
        return out

    model.forward = halved
    with pytest.raises(ValueError, match="model.path: the logits of LlamaForCausalLM are not"):
        make_learner(model)


def test_the_decode_loop_samples_what_the_learner_scores(kind):
    model = MODELS.make_model(kind)
    engine = TransformersEngine(model, [1], torch.float32, 64)
    rollout = engine.generate(PROMPTS, SEEDS, Sampling(12, top_k=5))
    experience = as_experience(rollout, len(rollout.tokens))
    logprobs, topk = make_learner(model).logprobs(experience)
    mask = experience.mask
    torch.testing.assert_close(rollout.logprobs[mask], logprobs[mask], atol=2e-5, rtol=0)
    torch.testing.assert_close(rollout.topk_logprobs[mask], topk[mask], atol=2e-5, rtol=0)


def test_saving_memory_changes_no_bit(kind):
    """On a CPU: activations computed again, the optimizer's moments in host memory."""
    experience, models = MODELS.make_experience(), [MODELS.make_model(kind) for _ in range(2)]
    learners = [make_learner(models[0]), make_learner(models[1], recompute=True, offload=True)]
    for _ in range(2):
        updates = [learner.update(experience, Timer()) for learner in learners]
    assert updates[0].loss == updates[1].loss and updates[0].grad_norm == updates[1].grad_norm
    tensors = [model_tensors(model) for model in models]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    start = model_tensors(MODELS.make_model(kind))
    assert not all(torch.equal(tensors[0][name], start[name]) for name in start)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Model folders of each kind, with the embedded task's tokenizer."""
    made = {}
    for kind in MODELS.KINDS:
        folder = tmp_path_factory.mktemp("models") / kind
        MODELS.make_model(kind).save_pretrained(folder)
        load_tokenizer("builtin:chain").save_pretrained(folder)
        made[kind] = folder
    return made


@pytest.mark.parametrize("kind", ["qwen3_moe", "gemma2"])
def test_a_run_and_its_export(kind, folders, tmp_path, problem_file, capsys):
    from transformers import AutoModelForCausalLM

    overrides = readable([f"model={folders[kind]}"]) + [
        f"runs_dir={tmp_path}", "train.steps=1", "train.prompts_per_step=2", "train.group_size=4", "rollout.lag=0",
        "data.max_response_length=8", "record.shadow_every=0", f"eval.benchmarks=['jsonl:{problem_file}']",
    ]  # fmt: skip
    plan = compose_plan(overrides)
    assert attempt(plan, harness_train(), StopRequest()) == "completed"
    row = plan.folder.rows("metrics")[0]
    assert row["mismatch/max_error"] < 1e-4
    assert ("mismatch/routing" in row) == (kind == "qwen3_moe") and row.get("mismatch/routing", 0) < 0.01
    assert export.main([str(plan.folder.path), "--step", "best"]) == 0
    out = plan.folder.path / "export" / "step=1"
    assert str(out) in capsys.readouterr().out
    exported, trained = AutoModelForCausalLM.from_pretrained(out), find_trained(plan.folder.path, "1").load()
    assert exported.state_dict().keys() == trained.state_dict().keys()
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in exported.state_dict().items())


def harness_train():
    from harness.run import train

    return train


def test_routers_are_found_by_what_the_model_declares(kind):
    found = routers(MODELS.make_model(kind))
    assert len(found) == (2 if kind == "qwen3_moe" else 0)


def test_routing_mismatch_sees_other_experts_and_says_so(caplog):
    learner = make_learner(MODELS.make_model("qwen3_moe"))
    experience = MODELS.make_experience()
    engine = TransformersEngine(learner.model, [1], torch.float32, 64)
    assert routing_mismatch(learner, engine, experience) == {"mismatch/routing": 0.0}
    half = TransformersEngine(learner.model, [1], torch.bfloat16, 64)
    assert 0 <= routing_mismatch(learner, half, experience)["mismatch/routing"] < 0.2
    other = copy.deepcopy(learner.model)
    for router in routers(other):
        router.weight.data = router.weight.data.flip(0)
    strange = TransformersEngine(other, [1], torch.float32, 64)
    assert strange.router_replay is False
    assert routing_mismatch(learner, strange, experience)["mismatch/routing"] > 0.5
    assert "choose other experts" in caplog.text and "no router replay" in caplog.text


def test_routing_counts_by_hand():
    """Two layers; one of three response tokens goes elsewhere in the second layer: one of six."""
    learner = make_learner(MODELS.make_model("qwen3_moe"))
    experience = MODELS.make_experience().rows(torch.tensor([2]))
    length, start = int(experience.lengths[0]), int(experience.prompt_lengths[0])
    with recorded_routing(learner.model) as calls:
        learner.score(experience)
    own = torch.stack([call.view(-1, 2)[start : start + length] for (call,) in calls], 1)

    class Engine:
        router_replay = True

        def routing(self, prompts, responses):
            changed = own.clone()
            changed[0, 1] = torch.tensor([2, 3]) if own[0, 1].tolist() != [2, 3] else torch.tensor([0, 1])
            return [changed]

    assert routing_mismatch(learner, Engine(), experience)["mismatch/routing"] == pytest.approx(1 / (2 * length))


def test_a_rank_without_weights_has_the_same_model(folders, kind):
    """What the other ranks build before they are sent their shards: names, shapes and ties, no weights."""
    config = compose_config(readable([f"model={folders[kind]}"])).model
    full, empty = load_model(config), load_model(config, with_weights=False)
    assert {n: t.shape for n, t in model_tensors(full).items()} == {n: t.shape for n, t in model_tensors(empty).items()}
    assert [n for n, _ in full.named_parameters()] == [n for n, _ in empty.named_parameters()]
    assert {n: t.tolist() for n, t in full.named_buffers()} == {n: t.tolist() for n, t in empty.named_buffers()}
    assert full.generation_config.eos_token_id == empty.generation_config.eos_token_id and not empty.training


