"""python -m harness.export: from_pretrained reads what it writes."""

import pytest
import torch
from safetensors.torch import load_file

from harness import export
from harness.learning.model import load_model, load_tokenizer
from harness.settings.compose import compose_config, compose_plan
from harness.settings.words import readable


@pytest.mark.parametrize("step", ["1", "last"])
def test_from_pretrained_gets_the_checkpoint(step, small_run, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    assert export.main([str(small_run), "--step", step, "--out", str(out)]) == 0
    number = {"1": 1, "last": 2}[step]
    assert f"step {number} of default/chain/grpo/seed=1" in capsys.readouterr().out
    weights = load_file(small_run / "checkpoints" / f"step={number}" / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())
    assert model.generation_config.eos_token_id == 1 and model.dtype == torch.float32
    text = "47+58-21*37:"
    assert AutoTokenizer.from_pretrained(out)(text) == load_tokenizer("builtin:chain")(text)
    ids = torch.tensor([AutoTokenizer.from_pretrained(out)(text)["input_ids"]])
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 15)


def test_what_was_exported_is_a_model_of_the_harness(small_run, tmp_path, monkeypatch):
    out = tmp_path / "seed=1" / "step=2"
    export.main([str(small_run), "--out", str(out)])
    config = compose_config(readable([f"model={out}"]))
    weights = load_file(small_run / "checkpoints" / "step=2" / "model.safetensors")
    assert torch.equal(load_model(config.model).state_dict()["model.norm.weight"], weights["model.norm.weight"])
    monkeypatch.chdir(out)
    assert compose_plan(readable(["model=."])).model == "step=2"


def test_an_interrupted_export_leaves_nothing_and_can_be_repeated(small_run, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(load_tokenizer("builtin:chain")), "save_pretrained", interrupted)
        export.main([str(small_run), "--out", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    assert export.main([str(small_run), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_nothing_is_overwritten(small_run, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(ValueError, match="not empty"):
        export.main([str(small_run), "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
