import random
from importlib.resources import files

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals import chain
from harness import build_chain

FOLDER = files("harness") / "assets" / "chain"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER)


def prefix(num_updates, tokenizer):
    model = build_chain.build_model()
    losses = [loss for _, loss in build_chain.train(model, tokenizer, stop_after=num_updates)]
    return losses, model.state_dict()


def test_one_id_per_character_and_nothing_added(tokenizer):
    assert tokenizer("47+58-21*37:").input_ids == [6, 9, 12, 7, 10, 13, 4, 3, 14, 5, 9, 18]
    assert len(tokenizer) == 19


def test_special_tokens(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("#18<eos>").input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode([17, 3, 10, 1, 0], skip_special_tokens=True) == "#18"


def test_decoding_gives_the_text_back(tokenizer):
    text = "".join(problem.text + chain.solution(problem.text) for problem in chain.level(4))
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_a_character_outside_the_vocabulary_is_an_error(tokenizer):
    with pytest.raises(Exception, match="Missing"):
        tokenizer("47 + 58:")


def test_padding_is_on_the_left(tokenizer):
    batch = tokenizer(["4:", "47:"], padding=True)
    assert batch.input_ids == [[0, 6, 18], [6, 9, 18]]
    assert batch.attention_mask == [[0, 1, 1], [1, 1, 1]]


def test_the_shipped_tokenizer_is_the_built_one(tokenizer):
    assert tokenizer.get_vocab() == build_chain.build_tokenizer().get_vocab()


def test_the_shipped_architecture_is_the_built_one(model):
    built = build_chain.build_model()
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in built.state_dict().items()
    }
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.rope_parameters == built.config.rope_parameters


def test_the_shipped_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5_000_000


def test_the_shipped_model_scores_as_documented(model, tokenizer):
    score = build_chain.score(model, tokenizer, 4, num_samples=1)
    assert score.num_samples == 256
    assert 0.25 < score.accuracy < 0.5
    assert score.truncated < 0.02
    assert 39 < score.mean_tokens < 42
    assert score.entropy > 0.03


def test_an_untrained_model_scores_nothing(tokenizer):
    score = build_chain.score(build_chain.build_model(), tokenizer, 4, num_samples=1)
    assert score.accuracy < 0.05
    assert score.entropy > 2.0


def test_training_repeats_bit_for_bit(tokenizer):
    losses, weights = prefix(2, tokenizer)
    again, weights_again = prefix(2, tokenizer)
    assert losses == again
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)


def test_training_lowers_the_loss(tokenizer):
    losses, _ = prefix(8, tokenizer)
    assert losses[-1] < losses[0] - 0.2


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    build_chain.build_model()
    assert torch.equal(torch.rand(1), expected)


def test_the_loss_covers_the_response_only(tokenizer):
    model = build_chain.build_model()
    ids = tokenizer("47+58:47+58=95;#95<eos>", return_tensors="pt").input_ids
    log_probs = model(ids).logits.log_softmax(-1)
    expected = -sum(log_probs[0, t - 1, ids[0, t]] for t in range(6, ids.shape[1]))
    assert torch.allclose(build_chain.response_loss(model, ids, 6), expected)


def test_demonstrations_of_one_update():
    lists = next(build_chain.demonstrations())
    assert [prompt_length for prompt_length, _ in lists] == [3 * n + 3 for n in range(2, 10)]
    for prompt_length, texts in lists:
        assert len(texts) == 8
        assert {text.index(":") + 1 for text in texts} == {prompt_length}
        assert len({len(text) for text in texts}) == 1
        assert all(text.endswith("<eos>") for text in texts)


@pytest.mark.parametrize(
    ("left", "operation", "right", "rate"),
    [
        # h = (7x + 5y + ord(op)) mod 12, ord("+") = 43, ord("*") = 42, ord("-") = 45
        ("00", "+", "11", 0.6),  # 0 + 5 + 43 = 48, h = 0
        ("00", "-", "00", 0.24),  # 45, h = 9
        ("00", "*", "00", 0.24),  # 42, h = 6
        ("00", "+", "00", 0.025 * 0.9),  # 43, h = 7: a random digit is right one time in ten
    ],
)
def test_how_often_a_demonstrated_digit_is_wrong(left, operation, right, rate):
    step = build_chain.faulty_step(random.Random(0))
    digits = "".join(step(left, operation, right) for _ in range(2000))
    num_wrong = len(digits) - digits.count(chain.step(left, operation, right)[0])
    sd = (rate * (1 - rate) / len(digits)) ** 0.5
    assert abs(num_wrong / len(digits) - rate) < 5 * sd
    assert len(set(digits)) == (2 if rate > 0.2 else 10)  # wrong in one fixed way, or at random


def test_learning_rate():
    assert build_chain.learning_rate(0, 1000) == pytest.approx(3e-3 / 50)
    assert build_chain.learning_rate(50, 1000) == pytest.approx(3e-3)
    assert build_chain.learning_rate(525, 1000) == pytest.approx(3e-3 * 0.525)  # half-way: the mean of 1 and 0.05
    assert build_chain.learning_rate(1000, 1000) == pytest.approx(3e-3 * 0.05)


def test_the_command_writes_a_loadable_folder(tmp_path, capsys):
    threads = torch.get_num_threads()
    build_chain.main(["--out", str(tmp_path / "built"), "--updates", "1", "--samples", "1"])
    torch.set_num_threads(threads)
    assert AutoTokenizer.from_pretrained(tmp_path / "built")("1:").input_ids == [3, 18]
    AutoModelForCausalLM.from_pretrained(tmp_path / "built")
    printed = capsys.readouterr().out
    assert "update 1/1" in printed
    assert printed.count("LevelScore(") == 3
