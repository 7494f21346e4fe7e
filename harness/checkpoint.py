"""Checkpoints: written aside, fsynced, renamed; hashed; no pickle.

    checkpoints/step=<n>/
        model.safetensors  optimizer.safetensors  queue.<i>.safetensors (batches sampled but not yet learned from)
        manifest.json      step, counters and the hash of every file: written last, its presence is the completion mark

No random state is stored, since none exists: every draw comes from a generator made of the seed and what it is for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.rollout.records import Rollout
from harness.store import read_json, sync_folder, write_json

log = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """What resuming needs beside the settings."""

    step: int
    num_updates: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    queue: list[Rollout]


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write checkpoints/step=<n> atomically and drop all but the newest keep_last."""
    final = root / f"step={checkpoint.step}"
    aside = root / f".step={checkpoint.step}.{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    contents = {"model": checkpoint.model, "optimizer": checkpoint.optimizer}
    contents |= {f"queue.{i}": rollout.tensors() for i, rollout in enumerate(checkpoint.queue)}
    hashes = {f"{name}.safetensors": _write(aside / f"{name}.safetensors", tensors) for name, tensors in contents.items()}
    counters = {"step": checkpoint.step, "num_updates": checkpoint.num_updates, "num_queued": len(checkpoint.queue)}
    write_json(aside / "manifest.json", counters | {"files": hashes})
    shutil.rmtree(final, ignore_errors=True)
    os.replace(aside, final)
    sync_folder(root)
    for old in complete_steps(root)[:-keep_last]:
        shutil.rmtree(root / f"step={old}")
    return final


def _write(path: Path, tensors: dict[str, Tensor]) -> str:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return _file_hash(path)


def _file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def complete_steps(root: Path) -> list[int]:
    """Steps of the checkpoints with a completion mark, ascending."""
    return sorted(int(path.parent.name.removeprefix("step=")) for path in root.glob("step=*/manifest.json"))


def load_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose hashes hold; a damaged one is passed over and said."""
    for step in reversed(complete_steps(root)):
        try:
            return _read(root / f"step={step}")
        except (OSError, ValueError, KeyError) as error:
            log.warning("checkpoint step=%d in %s is damaged (%s): falling back to the one before", step, root, error)
    return None


def _read(folder: Path) -> Checkpoint:
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        raise ValueError("manifest.json is not readable")
    for name, expected in manifest["files"].items():
        if _file_hash(folder / name) != expected:
            raise ValueError(f"{name} does not match its hash")
    queue = [Rollout(**load_file(folder / f"queue.{i}.safetensors")) for i in range(manifest["num_queued"])]
    model, optimizer = load_file(folder / "model.safetensors"), load_file(folder / "optimizer.safetensors")
    return Checkpoint(manifest["step"], manifest["num_updates"], model, optimizer, queue)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state by parameter name: <name>/exp_avg, <name>/exp_avg_sq, <name>/step."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("/", 1)
        parameter = parameters[name]
        optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers; tied weights once."""
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if model.config.get_text_config().tie_word_embeddings else set()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def restore_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = set(missing) - set(getattr(model, "_tied_weights_keys", None) or ())
    if missing or unexpected:
        raise ValueError(f"the checkpoint is of another model: missing {sorted(missing)[:3]}, unexpected {unexpected[:3]}")
