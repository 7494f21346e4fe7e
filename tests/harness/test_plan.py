"""The plan of a sweep: counts by hand, published parameter counts, and memory against a process that really ran."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from harness import plan
from harness.learning.model import model_folder
from harness.planning.cost import GPUS, work
from harness.planning.measure import measure
from harness.planning.memory import LEARNING, SAMPLING, memory_parts, peak
from harness.planning.shape import Shape, shape_config
from harness.settings.compose import compose_config
from harness.settings.words import readable

PUBLISHED = {  # parameters, of which a token passes through
    "qwen3_0p6b": (596_049_920, 596_049_920),
    "qwen3_1p7b_base": (1_720_574_976, 1_720_574_976),
    "qwen3_8b_base": (8_190_735_360, 8_190_735_360),
    "qwen3_30b_a3b_base": (30_532_122_624, 3_353_032_704),
}


def record(capsys, *words: str) -> dict:
    assert plan.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(name):
    shape = Shape(shape_config(compose_config([f"model={name}"]).model))
    assert (shape.num_parameters, shape.num_active) == PUBLISHED[name]


def test_a_sweep_is_the_experiments_with_the_command_lines_changes():
    assert plan.cells(["method=dppo"]) == [["method=dppo"]]
    four = [[f"method={method}", f"seed={seed}"] for method in ("dppo", "cppo") for seed in (1, 2)]
    assert plan.cells(["method=dppo,cppo", "seed=1,2"]) == four
    runs = plan.cells(["experiment=qwen3_1p7b", "seed=7"])
    assert len(runs) == 7 and all("seed=7" in run and "experiment=qwen3_1p7b" in run for run in runs)


def test_everything_is_counted_before_anything_is_queued(capsys):
    found = record(capsys, "experiment=qwen3_1p7b", "--gpu", "h100", "--mean-response", "1000")
    assert len(found["runs"]) == 21 and found["steps"] == found["settings"]["train"]["steps"] == 1120
    sampled, evaluated = 1120 * 64 * 8 * 1000, 113 * 90 * 16 * 1000  # before the first step and every 10
    assert found["tokens"] == {"mean_response": 1000.0, "sampled": sampled, "learned": sampled, "evaluated": evaluated}
    weights = 4 * found["model"]["parameters"]
    assert found["memory"]["learning"]["weights"] == found["memory"]["learning"]["gradients"] == weights
    assert found["memory"]["learning"]["optimizer"] == 2 * weights and "gradients" not in found["memory"]["sampling"]
    assert found["disk"]["checkpoints"] == 3 * weights * 4  # two last, the best, and one being written
    assert found["device_hours"]["all"] == pytest.approx(21 * found["device_hours"]["each"], rel=1e-3)
    assert "not measured" in found["device_hours"]["rates"]["source"]


def test_runs_that_differ_are_added_up(capsys):
    words = ("experiment=qwen3_0p6b_1gpu", "method=grpo", "seed=1", "--gpu", "h100")
    hours = [record(capsys, *words, f"train.steps={steps}")["device_hours"]["all"] for steps in ("300", "3000", "300,3000")]
    assert hours[2] == pytest.approx(hours[0] + hours[1], rel=0.02) and hours[1] > 5 * hours[0]
    assert record(capsys, *words, "train.steps=3000,300")["device_hours"]["all"] == hours[2]


def test_evaluations_need_their_cache_too():
    shape = Shape(shape_config(compose_config([]).model))
    cache = lambda *more: {part.name: part.bytes for part in memory_parts(compose_config(more), shape)}["KV cache"]
    trained = cache("eval.benchmarks=[]")
    assert cache() == cache("eval.max_response_length=10") == trained  # 768 of one evaluation beside 960
    rollout = compose_config([]).rollout
    training = 960 * (rollout.max_prompt_length + rollout.max_response_length)
    evaluation = 768 * (rollout.max_prompt_length + 264)
    assert cache("eval.max_response_length=264") * training == trained * evaluation
    same = ("train.prompts_per_step=32", "eval.n=2")  # as many rows of both
    assert cache(*same, "eval.max_response_length=10") == cache(*same, "eval.benchmarks=[]")


def test_only_one_process_is_measured():
    with pytest.raises(ValueError, match="leave cluster.ranks"):
        plan.main(["--measure", "cluster.ranks=2"])
    with pytest.raises(ValueError, match="these are 2: sweep over method and seed alone"):
        plan.main(["--measure", "method=cppo,grpo", "train.steps=2,3"])


def test_ranks_share_what_is_sharded_and_offloading_moves_the_optimizer():
    words = ["experiment=qwen3_8b_base", "method=cppo"]
    shape = Shape(shape_config(compose_config(words).model))
    parts = lambda *more: {part.name: part for part in memory_parts(compose_config([*words, *more]), shape)}
    one, four = parts(), parts("cluster.ranks=4", "cluster.offload_optimizer=true", "cluster.activation_checkpointing=true")
    assert four["weights"].bytes * 4 == one["weights"].bytes and four["optimizer"].on_host and not one["optimizer"].on_host
    assert four["gathered layers"].bytes > 0 and "gathered layers" not in one
    assert four["activations"].bytes < one["activations"].bytes / 10
    assert peak(list(one.values()), device=True) > GPUS["h100"].memory > peak(list(four.values()), device=True)


def test_the_peak_is_that_of_the_fuller_moment():
    parts = memory_parts(compose_config(["method=cppo"]), Shape(shape_config(compose_config([]).model)))
    sums = [sum(part.bytes for part in parts if moment in part.moments) for moment in (LEARNING, SAMPLING)]
    assert peak(parts) == max(sums) == peak(parts, device=True) + next(p.bytes for p in parts if p.on_host)


def test_tokens_of_the_default_run():
    counted = work(compose_config(["method=cppo"]), 50)
    assert (counted.sampled, counted.evaluated) == (28 * 192 * 50, 5 * 768 * 50)


def test_rates_of_a_run_give_device_hours(capsys, small_run):
    found = record(capsys, "method=cppo", "--like", str(small_run))
    assert found["device_hours"]["rates"]["source"] == f"measured in {small_run}" and found["device_hours"]["each"] > 0
    with pytest.raises(ValueError, match="no time/tokens_per_s_rollout in its metrics"):
        plan.main(["method=cppo", "--like", str(small_run.parent)])
    with pytest.raises(ValueError, match="--like .*/none: no such folder"):
        plan.main(["method=cppo", "--like", str(small_run / "none")])


@pytest.mark.parametrize("length", ["-5", "0", "500"])
def test_a_response_is_as_long_as_the_run_allows(length):
    with pytest.raises(ValueError, match=f"--mean-response {length}: above 0 and at most 90"):
        plan.main(["method=cppo", "--mean-response", length])


def test_a_model_that_is_not_there():
    with pytest.raises(ValueError, match="model.path='/no/such': no such folder"):
        plan.main(["model=/no/such"])


def test_people_read_it_too(capsys):
    assert plan.main(["experiment=qwen3_30b_a3b_base", "--gpu", "h100"]) == 0
    said = capsys.readouterr().out
    for words in ("21 runs of 560 steps", "30.532 B parameters, 3.35 B active", "does not fit: raise cluster.ranks"):
        assert words in said


@pytest.fixture(scope="module")
def middling_model(tmp_path_factory) -> Path:
    """10 M parameters: enough for tensors to outweigh what every process holds."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("model")
    config = Qwen3Config(
        vocab_size=16_384, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True, max_position_embeddings=512, pad_token_id=0,
        eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(model_folder("builtin:chain")) / name, folder / name)
    return folder


SLOW = [("train.precision=bfloat16", "cluster.device=cpu"), ("cluster.activation_checkpointing=true",)]


@pytest.mark.parametrize("changes", [(), *(pytest.param(changes, marks=pytest.mark.slow) for changes in SLOW)])
def test_memory_is_within_a_fifth_of_what_a_process_takes(middling_model, changes):
    words = readable([f"model={middling_model}"]) + [
        "method=cppo", "train.prompts_per_step=2", "train.group_size=8", "train.updates_per_step=1", "train.token_budget=2048",
        "train.logprob_chunk=512", "train.steps=2", "rollout.lag=1",
        "data.max_response_length=128", "eval.benchmarks=[]", "record.shadow_every=0",
        *changes,
    ]  # fmt: skip
    config = compose_config(words)
    estimate, measured = peak(memory_parts(config, Shape(shape_config(config.model)))), measure(words)
    assert measured["device"] == "cpu" and measured["learner"] > 0 and measured["rollout"] > 0
    assert estimate == pytest.approx(measured["peak"], rel=0.2)
