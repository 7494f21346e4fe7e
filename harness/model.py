"""Models and tokenizers from the embedded default, a local folder or the hub; prompts to token ids."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from evals.prompts import render
from evals.records import Problem
from harness.config import ModelConfig

BUILTIN = "builtin:"


def model_folder(path: str) -> str:
    """builtin:chain → the folder in the package; anything else as it is."""
    if path.startswith(BUILTIN):
        return str(files("harness") / "assets" / path.removeprefix(BUILTIN))
    return path


def check_model(config: ModelConfig) -> None:
    """A path must exist and hold a config.json; a hub id looks like org/name and is left to the hub."""
    folder = Path(model_folder(config.path))
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ValueError(f"model.path={config.path!r}: the folder has no config.json; give a Hugging Face model folder")
    elif config.path.startswith((".", "/", "~", BUILTIN)) or config.path.count("/") != 1:
        raise ValueError(f"model.path={config.path!r}: no such folder; give a local model folder or a hub id such as org/name")


@cache
def model_fingerprint(path: str, revision: str | None) -> str:
    """A local model by the content of its weights and config, a hub model by id and revision."""
    folder = Path(model_folder(path))
    if not folder.is_dir():
        return f"{path}@{revision or 'main'}"
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(file.name.encode())
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()


@cache
def load_tokenizer(path: str, revision: str | None = None):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder(path), revision=revision)


def load_model(config: ModelConfig) -> torch.nn.Module:
    """A fresh causal LM; never remote code."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from harness.rollout import attention

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        model_folder(config.path),
        revision=config.revision,
        dtype=getattr(torch, config.dtype),
        attn_implementation=attention.register(),
        use_safetensors=True,
    )


def stop_token_ids(model: torch.nn.Module, tokenizer) -> list[int]:
    """The tokenizer's end token and those of the model's generation config."""
    declared = model.generation_config.eos_token_id
    declared = declared if isinstance(declared, list) else [declared]
    ids = {token for token in (*declared, tokenizer.eos_token_id) if token is not None}
    if not ids:
        raise ValueError("the model names no end token: set eos_token in its tokenizer or generation_config.json")
    return sorted(ids)


def encode_prompt(problem: Problem, template: str, tokenizer, chat_template: bool, limit: int) -> list[int]:
    """Token ids of one prompt; ValueError when it is longer than `limit`."""
    text = render(template, problem.text)
    if chat_template:
        if not tokenizer.chat_template:
            raise ValueError("model.chat_template=true, but the tokenizer has none: set model.chat_template=false")
        message = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=not chat_template)["input_ids"]
    if len(ids) > limit:
        raise ValueError(
            f"problem {problem.id}: its prompt has {len(ids)} tokens, above rollout.max_prompt_length={limit}; "
            f"raise the limit or remove the problem"
        )
    return ids
