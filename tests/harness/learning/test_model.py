"""Model folders: what identifies them, what ends a response, and how a prompt becomes token ids."""

import json
import shutil
from types import SimpleNamespace

import pytest

from evals.prompts import template_hash
from evals.records import Problem
from harness.learning.model import (
    check_model,
    check_reachable,
    encode_prompts,
    load_generation_config,
    load_model,
    load_tokenizer,
    model_fingerprint,
    model_folder,
    prompt_record,
    stop_token_ids,
)
from harness.planning.shape import shape_config
from harness.settings.compose import compose_plan
from harness.settings.config import ModelConfig

CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}#{% endif %}"
PROBLEM = Problem("p", "1+2", "3")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(model_folder("builtin:chain"), tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"initializer_range": 0.1}),
        ("generation_config.json", {"eos_token_id": [1, 2]}),
        ("tokenizer_config.json", {"chat_template": CHAT}),
    ],
)
def test_fingerprint_sees_what_changes_a_run(folder, tmp_path, name, change):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert model_fingerprint(str(copy), None) == model_fingerprint("builtin:chain", None)
    other = shutil.copytree(folder, tmp_path / "other")
    edit(other / name, **change)
    assert model_fingerprint(str(other), None) != model_fingerprint("builtin:chain", None)


def test_fingerprint_of_a_hub_model_is_id_and_revision():
    assert model_fingerprint("org/name", "abc") == "org/name@abc"


@pytest.mark.parametrize(
    ("declared", "tokenizers", "expected"), [(1, 1, [1]), ([9, 5], 7, [5, 7, 9]), (None, 4, [4]), ([3], None, [3])]
)
def test_a_response_ends_at_the_end_tokens_of_both(declared, tokenizers, expected):
    found = stop_token_ids(SimpleNamespace(eos_token_id=declared), SimpleNamespace(eos_token_id=tokenizers))
    assert found == expected


def test_a_model_without_end_token_is_refused():
    with pytest.raises(ValueError, match="set eos_token"):
        stop_token_ids(SimpleNamespace(eos_token_id=None), SimpleNamespace(eos_token_id=None))


def test_end_tokens_are_known_without_weights(folder):
    (folder / "model.safetensors").unlink()
    assert load_generation_config(str(folder), None).eos_token_id == 1
    (folder / "generation_config.json").unlink()
    assert load_generation_config(str(folder), None).eos_token_id == 1


def test_chat_template_goes_around_the_prompt(folder):
    edit(folder / "tokenizer_config.json", chat_template=CHAT)
    tokenizer = load_tokenizer(str(folder))
    assert encode_prompts([PROBLEM], "raw", tokenizer, True, 9) == [[3, 12, 4, 17]]
    assert encode_prompts([PROBLEM], "raw", tokenizer, False, 9) == [[3, 12, 4]]
    model = ModelConfig(str(folder), None, "float32", True)
    record = prompt_record("raw", model, tokenizer)
    assert (record["template_hash"], record["chat_template"]) == (template_hash("raw"), True)
    assert len(record["chat_template_hash"]) == 16
    assert (record["stop_token_ids"], record["stop_tokens"]) == ([1], ["<eos>"])


def test_a_missing_chat_template_and_a_long_prompt_are_said():
    tokenizer = load_tokenizer("builtin:chain")
    with pytest.raises(ValueError, match="model.chat_template=false"):
        encode_prompts([PROBLEM], "raw", tokenizer, True, 9)
    with pytest.raises(ValueError, match=r"more than 2 tokens: problem p \(3\)"):
        encode_prompts([PROBLEM], "raw", tokenizer, False, 2)
    assert encode_prompts([], "raw", tokenizer, False, 2) == []


def test_paths(folder, tmp_path):
    check_model(ModelConfig(str(folder), None, "float32", False))
    check_model(ModelConfig("org/name", None, "float32", False))
    for path, said in ((str(tmp_path), "no config.json"), ("./nowhere", "no such folder"), ("name", "no such folder")):
        with pytest.raises(ValueError, match=said):
            check_model(ModelConfig(path, None, "float32", False))


def test_a_folder_without_tokenizer_is_refused_before_a_run(folder):
    check_reachable(ModelConfig("builtin:chain", None, "float32", False))
    words = ["model=hf", f"model.path={folder}"]
    compose_plan(words)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="the folder has no tokenizer"):
        compose_plan(words)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: edit(folder / "config.json", model_type="t5"),
        lambda folder: (folder / "tokenizer.json").unlink() or (folder / "tokenizer_config.json").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
    ids=["no causal LM", "no tokenizer", "damaged weights", "no weights"],
)
def test_what_a_folder_lacks_is_said_with_key_and_remedy(folder, damage):
    damage(folder)
    with pytest.raises(ValueError, match=r"^model.path='.*': give the folder of a causal LM .* its tokenizer \(model=FOLDER\)"):
        load_tokenizer(str(folder))
        shape_config(ModelConfig(str(folder), None, "float32", False))
        load_model(ModelConfig(str(folder), None, "float32", False))


def test_a_template_enters_the_settings_by_its_text(tmp_path):
    """A file that says what a named template says is the same setting; an edited one is another."""
    named = compose_plan([])
    file = tmp_path / "same.txt"
    file.write_text("{problem}")
    other = tmp_path / "other.txt"
    other.write_text("1+{problem}")
    assert compose_plan([f"data.template={file}"]).config_hash == named.config_hash
    assert compose_plan([f"data.template={other}"]).config_hash != named.config_hash
    prompts = compose_plan([f"data.template={file}"]).record()["prompts"]
    assert prompts["train"]["template"] == prompts["eval"]["template"] == str(file)
    assert prompts["train"]["template_hash"] == template_hash("raw")
