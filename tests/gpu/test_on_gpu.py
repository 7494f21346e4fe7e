"""On a real GPU: decisions, log-probs, responses and updates as on a CPU, and runs that repeat. `pytest -m gpu tests/gpu`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch

import harness.distributed as distributed
from harness.distributed import Ranks
from harness.learning.experience import build_experience
from harness.learning.head import token_logprobs
from harness.learning.learner import Learner
from harness.learning.model import load_model, load_tokenizer, stop_token_ids
from harness.learning.sharded import on_device
from harness.rollout.canary import response_logprobs
from harness.rollout.decode import TransformersEngine
from harness.rollout.records import Sampling, request_seed
from harness.run import train
from harness.runs.attempt import StopRequest, attempt
from harness.settings.compose import compose_config, compose_plan
from harness.timing import Timer
from harness.vectors import PSEUDO_METHODS, build_rule, load_cases, token_batch

pytestmark = pytest.mark.gpu
CASES = [case for case in load_cases(Path(__file__).parents[1] / "vectors.json") if case["method"] not in PSEUDO_METHODS]
TEXTS = ("47+58-21*37:", "96-87*97-37-72*31+08+28-64:", "11+22:")
SEEDS = [request_seed(1, text, index) for text in TEXTS for index in range(16)]
GPU = Ranks(device=torch.device("cuda"))


@pytest.fixture
def gpu_for_runs(monkeypatch):
    """Runs in this process on the GPU, as `join` leaves it."""
    monkeypatch.setattr(distributed, "_here", GPU)


@pytest.mark.parametrize("method", sorted({case["method"] for case in CASES}))
def test_rules_decide_alike(method):
    for case in (case for case in CASES if case["method"] == method):
        rule = build_rule(case["method"], case["params"])
        batch = token_batch(case["inputs"], rule)
        ours, theirs = rule(batch), on_device(rule(on_device(batch, "cuda")), "cpu")
        assert theirs.aux.keys() == ours.aux.keys()
        pairs = [(ours.weight, theirs.weight), (ours.keep, theirs.keep), *((ours.aux[k], theirs.aux[k]) for k in ours.aux)]
        for expected, found in pairs:
            valid = batch.mask if expected.shape == batch.mask.shape else ...
            torch.testing.assert_close(found[valid], expected[valid], atol=1e-9, rtol=1e-9)


def engines(config):
    """The embedded model and an engine around it, on the CPU and on the GPU."""
    tokenizer = load_tokenizer(config.model.path)
    for ranks in (Ranks(), GPU):
        model = load_model(config.model)
        model.to(ranks.device)
        yield model, TransformersEngine(model, stop_token_ids(model.generation_config, tokenizer), model.dtype, 1024, ranks)


@pytest.fixture(scope="module")
def rollouts():
    config = compose_config(["data.max_response_length=90"])
    tokenizer = load_tokenizer(config.model.path)
    prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    sampled = []
    for model, engine in engines(config):
        with closing(engine):
            sampled.append((model, engine.generate(prompts, SEEDS, Sampling(90, top_k=5))))
    return prompts, sampled


def test_responses_follow_their_seeds(rollouts):
    """Rounding differs, so now and then a token may; most responses are the same to the last token."""
    (_, on_cpu), (_, on_gpu) = rollouts[1]
    same = sum(a == b for a, b in zip(on_cpu.responses(), on_gpu.responses(), strict=True))
    assert same >= 0.9 * len(SEEDS)


def test_logprobs_of_sampling_are_the_models(rollouts):
    prompts, (_, (model, rollout)) = rollouts
    pairs = zip([prompt for prompt in prompts for _ in range(rollout.group_size)], rollout.responses(), strict=True)
    with torch.no_grad():
        expected = torch.cat([response_logprobs(model, prompt, response) for prompt, response in pairs])
    torch.testing.assert_close(rollout.logprobs[rollout.mask], expected.cpu(), atol=2e-5, rtol=0)


def test_an_update_is_the_cpus(rollouts):
    _, ((_, rollout), _) = rollouts
    config = compose_config(["method=cppo"])
    advantages = torch.randn(len(SEEDS), generator=torch.Generator().manual_seed(0))
    experience = build_experience(rollout, advantages, torch.ones(len(SEEDS), dtype=torch.bool), SEEDS)
    updates, gradients = [], []
    for ranks in (Ranks(), GPU):
        learner = Learner(load_model(config.model), config.method, config.train, 90, ranks)
        learner.step = lambda loss: (0.0, False)
        updates.append(learner.update(experience, Timer()))
        gradients.append(torch.cat([parameter.grad.flatten().cpu() for parameter in learner.model.parameters()]))
    assert updates[1].loss == pytest.approx(updates[0].loss, rel=1e-4, abs=1e-7)
    assert (gradients[1] - gradients[0]).norm() < 1e-4 * gradients[0].norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_chunked_logprobs_at_a_large_vocabulary(dtype, tolerance):
    generator = torch.Generator("cuda").manual_seed(0)
    new = lambda *shape: torch.randn(*shape, device="cuda", generator=generator).to(dtype)
    hidden, weight = new(300, 64).requires_grad_(), (0.05 * new(151_936, 64)).requires_grad_()
    tokens = torch.randint(151_936, (300,), device="cuda", generator=generator)
    topk_ids = torch.randint(151_936, (300, 20), device="cuda", generator=generator)
    head = torch.nn.Linear(64, 151_936, bias=False, device="meta")
    head.weight = torch.nn.Parameter(weight.detach().clone())
    found = token_logprobs(hidden, head, tokens, topk_ids, 128)
    full = (hidden.double() @ weight.double().T).log_softmax(-1)
    torch.testing.assert_close(found.logprobs.double(), full.gather(-1, tokens[:, None])[:, 0], atol=tolerance, rtol=0)
    torch.testing.assert_close(found.topk_logprobs.double(), full.gather(-1, topk_ids), atol=tolerance, rtol=0)
    torch.testing.assert_close(found.entropy.double(), -(full.exp() * full).sum(-1), atol=tolerance, rtol=0)
    (expected,) = torch.autograd.grad(full.gather(-1, tokens[:, None]).sum(), weight)
    found.logprobs.sum().backward()
    assert (head.weight.grad.double() - expected.double()).norm() < tolerance * expected.double().norm()


STEPS = ("train.steps=4", "train.prompts_per_step=4", "train.group_size=4", "train.updates_per_step=2", "rollout.lag=1")


def trained(folder: Path, *overrides: str, stop_after: int | None = None) -> list[dict]:
    """The rows of a run without what a clock says; asked to stop after some step, it does."""
    plan = compose_plan([f"runs_dir={folder}", "method=cppo", "checkpoint.every=1", "eval.n=2", *STEPS, *overrides])
    state = attempt(plan, train, StopRequest(lambda: plan.folder.last_step() == stop_after))
    assert state == ("completed" if stop_after is None else "preempted")
    assert torch.cuda.memory_allocated() > 0
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in plan.folder.rows("metrics")]


LOW = ("train.precision=bfloat16", "rollout.precision=bfloat16")


@pytest.mark.parametrize("precision", [(), LOW], ids=["float32", "bfloat16"])
def test_a_run_repeats_and_resumes(tmp_path, gpu_for_runs, precision):
    first = trained(tmp_path / "first", *precision)
    assert [row["step"] for row in first] == [1, 2, 3, 4]
    assert trained(tmp_path / "again", *precision) == first
    assert len(trained(tmp_path / "stopped", *precision, stop_after=2)) == 2
    assert trained(tmp_path / "stopped", *precision) == first
