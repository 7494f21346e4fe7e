import pytest

from harness import doctor


def test_prompt_shows_ids_text_and_stops(capsys):
    assert doctor.main(["prompt", "eval.benchmarks=[chain8]"]) == 0
    training, benchmark = capsys.readouterr().out.split("\n\n")
    assert training.startswith("training: problem chain-train-1-0, answer ")
    lines = dict(line.strip().split("  ", 1) for line in benchmark.strip().splitlines()[1:])
    shown = {key: value.strip() for key, value in lines.items()}
    text = "96-87*97-37-72*31+08+28-64:"
    ids = [2 + "0123456789+-*=;#:".index(character) for character in text]
    assert shown["text"] == shown["read back"] == repr(text)
    assert shown["tokens"] == f"27 of at most 64: {ids}"
    assert (shown["chat template"], shown["stop tokens"]) == ("not used", "1 '<eos>'")
    assert shown["template"].startswith("raw (") and len(shown["template"]) == len("raw ()") + 16


def test_a_prompt_that_is_too_long_is_named():
    with pytest.raises(ValueError, match=r"more than 20 tokens: problem chain-train-1-0 \(27\)"):
        doctor.main(["prompt", "rollout.max_prompt_length=20"])


@pytest.mark.parametrize(("words", "status"), [([], 2), (["nonsense"], 2), (["--help"], 0)])
def test_usage_names_every_command(words, status, capsys):
    assert doctor.main(words) == status
    said = "".join(capsys.readouterr())
    assert all(f"harness.doctor {name}" in said for name in doctor.COMMANDS)
    assert ("nonsense is none of the commands" in said) == (words == ["nonsense"])


@pytest.mark.parametrize("name", ["prompt", "parity"])
def test_a_prompt_that_the_tokenizer_cannot_write_is_named(name):
    with pytest.raises(ValueError, match="can't write 'P' .*set data.template=raw"):
        doctor.main([name, "data.template=boxed"])


@pytest.mark.parametrize("name", doctor.COMMANDS)
def test_each_command_has_a_usage(name, capsys):
    assert doctor.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m harness.doctor {name} ")
