"""Loads models and tokenizers (embedded ones, from a local folder or from the hub) and encodes prompts as token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError

from evals.prompts import render, template_hash
from evals.records import Problem
from harness.settings.config import ModelConfig

BUILTIN = "builtin:"
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # names in the configs of different model families
TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
FINGERPRINTED = ("*.safetensors", "*config.json", "*token*.json", "vocab*", "merges.txt", "chat_template*")


def model_folder(path: str) -> str:
    """The folder of a built-in model (builtin:chain) inside the package; any other path unchanged."""
    if path.startswith(BUILTIN):
        return str(files("harness") / "assets" / path.removeprefix(BUILTIN))
    return path


def check_model(config: ModelConfig) -> None:
    """ValueError unless model.path is a folder with a config.json, or looks like a hub id (org/name; the hub is not asked)."""
    folder = Path(model_folder(config.path))
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ValueError(f"model.path={config.path!r}: the folder has no config.json; give a Hugging Face model folder")
    elif config.path.startswith((".", "/", "~", BUILTIN)) or config.path.count("/") != 1:
        raise ValueError(f"model.path={config.path!r}: no such folder; give a local model folder or a hub id such as org/name")


def check_reachable(config: ModelConfig) -> None:
    """A hub id's config is in the hub's cache or to be had, and what is missing beside it is said when it is loaded; a folder
    has a tokenizer, without which transformers makes up one that knows no word."""
    folder = Path(model_folder(config.path))
    if not folder.is_dir():
        _hub_config(config.path, config.revision)
    elif not any(file for pattern in TOKENIZERS for file in folder.glob(pattern)):
        raise ValueError(f"model.path={config.path!r}: the folder has no tokenizer (tokenizer.json): put the model's own there")


@cache
def _hub_config(path: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(path, "config.json", revision=revision)
    with naming(path):
        return cached if isinstance(cached, str) else hf_hub_download(path, "config.json", revision=revision)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """A model that can't be had, as an error with key and remedy. A disk's error (it has a number) stays as it is."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        if getattr(error, "errno", None):
            raise
        remedy = (
            "give the folder of a causal LM with its safetensors weights and its tokenizer (model=FOLDER), "
            "or a hub id that can be reached or is in the hub's cache (HF_HOME)"
        )
        raise ValueError(f"model.path={path!r}: {remedy}: {str(error).splitlines()[0]}") from error


@cache
def model_fingerprint(path: str, revision: str | None) -> str:
    """A model's identity: a hash of its weights, configs (end tokens too) and tokenizer files; for a hub model id@revision."""
    folder = Path(model_folder(path))
    if not folder.is_dir():
        return f"{path}@{revision or 'main'}"
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted({file for pattern in FINGERPRINTED for file in folder.glob(pattern)}):
        digest.update(file.name.encode())
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "blake2b").digest())
    return digest.hexdigest()


@cache
def load_tokenizer(path: str, revision: str | None = None):
    from transformers import AutoTokenizer

    with naming(path):
        tokenizer = AutoTokenizer.from_pretrained(model_folder(path), revision=revision)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there are no files
            raise ValueError("the tokenizer has no vocabulary")
    return tokenizer


@cache
def wordlist_tokenizer(path: str):
    """The bare tokenizer of a local model that knows a closed list of words, and fails at any other; None for all others."""
    file = Path(model_folder(path)) / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer.from_file(str(file))
    is_closed = isinstance(tokenizer.model, models.WordLevel) and tokenizer.token_to_id(tokenizer.model.unk_token) is None
    return tokenizer if is_closed else None


def unwritten(tokenizer, text: str) -> str:
    """A character of the text that the tokenizer can't write, or all of it if it is no single one; "" if it can write all."""
    try:
        tokenizer.encode(text)
    except Exception:  # tokenizers has no class of its own for it
        if len(text) == 1:
            return text
        characters = sorted(text, key=str.isspace)  # a letter says more than the space before it
        return next(filter(None, map(partial(unwritten, tokenizer), characters)), text)
    return ""


def load_model(config: ModelConfig, with_weights: bool = True) -> torch.nn.Module:
    """A new causal LM on the CPU; remote code is never run.

    Without weights its memory is not initialised: for a rank that will receive its shards from the first rank.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights
    from transformers.utils.logging import disable_progress_bar

    from harness.rollout import attention

    disable_progress_bar()
    folder = model_folder(config.path)
    options = {"dtype": getattr(torch, config.dtype), "attn_implementation": attention.register()}
    if with_weights:
        with naming(config.path):
            return AutoModelForCausalLM.from_pretrained(folder, revision=config.revision, use_safetensors=True, **options)
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, revision=config.revision), **options)
    model.tie_weights()
    model.generation_config = load_generation_config(config.path, config.revision)
    return model.eval()


def num_experts(config) -> int:
    """Experts in each layer of a mixture of experts, from a text model's config; 0 for a dense model."""
    return next((count for name in EXPERT_COUNTS if (count := getattr(config, name, None))), 0)


def load_generation_config(path: str, revision: str | None):
    """The model's generation_config.json, or one derived from its config if there is none; no weights are read."""
    from transformers import AutoConfig, GenerationConfig

    try:
        return GenerationConfig.from_pretrained(model_folder(path), revision=revision)
    except OSError:
        return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model_folder(path), revision=revision))


def stop_token_ids(generation_config, tokenizer) -> list[int]:
    """The tokenizer's end token and those of the model's generation config, ascending."""
    declared = generation_config.eos_token_id
    declared = declared if isinstance(declared, list) else [declared]
    ids = {token for token in (*declared, tokenizer.eos_token_id) if token is not None}
    if not ids:
        raise ValueError("the model names no end token: set eos_token in its tokenizer or generation_config.json")
    return sorted(ids)


def prompt_texts(problems: Sequence[Problem], template: str, tokenizer, chat_template: bool) -> list[str]:
    """The texts to tokenise: each problem in `template`, and with `chat_template` as a user's turn in the tokenizer's."""
    texts = [render(template, problem.text) for problem in problems]
    if not chat_template:
        return texts
    if not tokenizer.chat_template:
        raise ValueError("model.chat_template=true, but the tokenizer has none: set model.chat_template=false")
    turns = ([{"role": "user", "content": text}] for text in texts)
    return [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]


def encode_prompts(problems: Sequence[Problem], template: str, tokenizer, chat_template: bool, limit: int) -> list[list[int]]:
    """Token ids of each prompt. ValueError names the problems whose prompts are longer than `limit`.

    A chat template writes its special tokens itself, so none are added around it.
    """
    texts = prompt_texts(problems, template, tokenizer, chat_template)
    prompts = tokenizer(texts, add_special_tokens=not chat_template)["input_ids"] if texts else []
    too_long = [f"{problem.id} ({len(ids)})" for problem, ids in zip(problems, prompts, strict=True) if len(ids) > limit]
    if too_long:
        more = f" and {len(too_long) - 5} more" if len(too_long) > 5 else ""
        raise ValueError(
            f"prompts of more than {limit} tokens: problem {', '.join(too_long[:5])}{more}; "
            f"raise data.max_prompt_length (rollout.max_prompt_length follows it) or remove the problems"
        )
    return prompts


def prompt_record(template: str, model: ModelConfig, tokenizer) -> dict:
    """The templates around every problem and the tokens that end a response, for config.json and the doctor."""
    stops = stop_token_ids(load_generation_config(model.path, model.revision), tokenizer)
    chat = json.dumps(tokenizer.chat_template) if model.chat_template else None
    return {
        "template": template,
        "template_hash": template_hash(template),
        "chat_template": model.chat_template,
        "chat_template_hash": chat and hashlib.sha256(chat.encode()).hexdigest()[:16],
        "stop_token_ids": stops,
        "stop_tokens": tokenizer.convert_ids_to_tokens(stops),
    }
