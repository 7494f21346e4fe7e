"""A learner divided over two ranks does what it does alone: gradients, updates, and checkpoints of either for the other."""

import json

import pytest

CASES = ["qwen3/grpo", "qwen3_moe/grpo", "llama/grpo", "gemma/grpo", "gemma2/grpo", "qwen3/cppo", "qwen3/m2po"]
CASES += ["qwen3/saving", "qwen3_moe/saving"]  # activations computed again, the optimizer in host memory


@pytest.fixture(scope="module")
def found(ranks, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("two") / "found.json"
    ranks.run(2, "learner_on_ranks.py", out)
    return json.loads(out.read_text())


@pytest.mark.parametrize("case", [f"{case}/11" for case in CASES] + ["qwen3/pg_is/1", "qwen3_moe/pg_is/1"])
def test_the_gradient_is_that_of_one_process(found, case):
    """11 responses of unequal length, or a single one: then the second rank has no row at all, and takes part nevertheless."""
    of = found[case]
    assert of["gradient"] < 2e-6 * of["scale"] and of["scale"] > 0.01
    assert of["grad_norm"] < 1e-6 and of["loss"] < 1e-7 and of["logprobs"] < 1e-5
    assert of["weights"] < 1e-6, "after an AdamW step of size 1e-3"
    assert of["same_rows_judged"], "the first rank sees every response for the metrics"


def test_bfloat16_keeps_weights_gradients_and_moments_in_float32(found):
    of = found["qwen3/bfloat16"]
    assert of["dtypes"] == ["torch.float32"]
    assert of["gradient"] < 0.02 * of["scale"] and of["grad_norm"] < 0.02


@pytest.mark.parametrize("kind", ["qwen3", "qwen3_moe"])
def test_a_checkpoint_fits_any_number_of_ranks_bit_for_bit(found, kind):
    of = found[f"reshard/{kind}"]
    assert of == {"two_to_one": 0.0, "one_to_two": 0.0, "same_bytes": True}


def test_ranks_sample_what_one_would(found):
    """384 responses of 24 × 2 prompts: less than a thousandth of the draws may be flipped by float rounding."""
    assert found["rollout"]["draws"] > 10_000
    assert found["rollout"]["flipped"] < 1e-3 * found["rollout"]["draws"]
    print(found["rollout"])
