"""Saves and loads checkpoints. They are written to a temporary folder, hashed, fsynced and renamed; no file is a pickle.

    checkpoints/step=<n>/
        model.safetensors  optimizer.safetensors  queue.<i>.safetensors (batches sampled but not yet learned from)
        manifest.json      run, step, counters, score, hash of every file and of itself; written last: marks a complete checkpoint

The files are the same for any number of ranks. Sharded tensors are gathered one at a time, so a run may resume on more or
fewer ranks and no process ever holds the whole model. No random state is stored, because none exists: every draw comes from a
generator that is seeded with the run's seed and the purpose of the draw.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from harness.distributed import ALONE, Ranks
from harness.files import read_json, sync_folder, write_json, writing
from harness.learning.sharded import fill
from harness.rollout.records import Rollout
from harness.runs.tensor_file import TensorFile, send, write_tensors
from harness.store import by_step, complete_steps, content_hash

log = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """The state that resuming a run needs, beside its settings."""

    step: int
    num_updates: int
    model: Mapping[str, Tensor]  # sharded over ranks, or whole
    optimizer: Mapping[str, Tensor]
    queue: list[Rollout]
    score: float | None = None  # mean of this step's evaluation; None if there was none

    def send(self) -> None:
        """Take part in gathering sharded tensors while the first rank saves; for the other ranks."""
        send(self.model)
        send(self.optimizer)


def save_checkpoint(root: Path, checkpoint: Checkpoint, keep_last: int, keep_best: int) -> Path:
    """Write checkpoints/step=<n> atomically, then remove all but the keep_last newest and the keep_best of highest score."""
    final = root / f"step={checkpoint.step}"
    aside = root / f".step={checkpoint.step}.{os.getpid()}.tmp"
    with writing(final):
        remove_leftovers(root)
        try:
            aside.mkdir(parents=True)
            _write_all(aside, checkpoint, run_hash(root))
            _remove(final)
            os.replace(aside, final)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)  # on a full disk the next attempt needs the space
            raise
        sync_folder(root)
    for step in dropped_steps(root, checkpoint.step, keep_last, keep_best):
        _remove(root / f"step={step}")
    return final


def run_hash(root: Path) -> str | None:
    """Hash of the settings of the run whose checkpoints are in `root`; None without a config.json."""
    return (read_json(root.parent / "config.json") or {}).get("config_hash")


def _write_all(folder: Path, checkpoint: Checkpoint, run: str | None) -> None:
    contents = {"model": checkpoint.model, "optimizer": checkpoint.optimizer}
    contents |= {f"queue.{i}": rollout.tensors() for i, rollout in enumerate(checkpoint.queue)}
    hashes = {f"{name}.safetensors": write_tensors(folder / f"{name}.safetensors", tensors) for name, tensors in contents.items()}
    counters = {"step": checkpoint.step, "num_updates": checkpoint.num_updates, "num_queued": len(checkpoint.queue)}
    manifest = {"run": run} | counters | {"score": checkpoint.score, "files": hashes}
    write_json(folder / "manifest.json", manifest | {"hash": content_hash(manifest)})


def file_hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _remove(folder: Path) -> None:
    """Remove a checkpoint, its manifest first, so that a half-removed checkpoint never looks complete."""
    (folder / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(root: Path) -> None:
    """Remove half-written and half-removed checkpoints of a killed process. Only the folder's owner may call this."""
    for folder in [*root.glob(".step=*.tmp"), *by_step(root).values()]:
        if not (folder / "manifest.json").exists() or folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)


def dropped_steps(root: Path, newest: int, keep_last: int, keep_best: int) -> list[int]:
    """Steps whose checkpoints save_checkpoint removes. Those above `newest` are there only if the run could not use them."""
    steps = complete_steps(root)
    past = [step for step in steps if step <= newest]
    scores = {step: (read_json(root / f"step={step}" / "manifest.json") or {}).get("score") for step in past}
    scored = sorted((step for step in past if scores[step] is not None), key=lambda step: (-scores[step], step))
    kept = {*past[-keep_last:], *scored[:keep_best]}
    return [step for step in steps if step not in kept]


def load_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose hashes match, or None. A damaged checkpoint is skipped with a warning."""
    for step in reversed(complete_steps(root)):
        try:
            return read_checkpoint(root / f"step={step}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            log.warning("checkpoint step=%d in %s is damaged (%s): falling back to the one before", step, root, error)
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in a folder. ValueError or OSError if it is damaged."""
    manifest = read_manifest(folder)
    if problems := damage(folder, manifest):
        raise ValueError("; ".join(problems))
    queue = [Rollout(**TensorFile(folder / f"queue.{i}.safetensors")) for i in range(manifest["num_queued"])]
    model, optimizer = TensorFile(folder / "model.safetensors"), TensorFile(folder / "optimizer.safetensors")
    return Checkpoint(manifest["step"], manifest["num_updates"], model, optimizer, queue, manifest["score"])


def read_manifest(folder: Path) -> dict:
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        raise ValueError("manifest.json is not readable")
    return manifest


def damage(folder: Path, manifest: dict) -> list[str]:
    """Messages about what has changed since the checkpoint was written, its manifest included; empty for a whole checkpoint.

    A manifest of an earlier version names neither its run nor its own hash.
    """
    problems = []
    facts = {key: value for key, value in manifest.items() if key != "hash"}
    if manifest.get("hash", content_hash(facts)) != content_hash(facts) or f"step={manifest['step']}" != folder.name:
        problems.append("manifest.json was changed")
    own = run_hash(folder.parent)
    if own and manifest.get("run", own) != own:
        problems.append("it is a checkpoint of another run")
    names = ["model", "optimizer", *(f"queue.{i}" for i in range(manifest["num_queued"]))]
    if missing := {f"{name}.safetensors" for name in names} - manifest["files"].keys():
        problems.append(f"manifest.json does not name {', '.join(sorted(missing))}")
    for name, expected in manifest["files"].items():
        if not (folder / name).exists():
            problems.append(f"{name} is missing")
        elif file_hash(folder / name) != expected:
            problems.append(f"{name} does not match its hash")
    return problems


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; tied weights appear once."""
    tied = getattr(model, "all_tied_weights_keys", None) or ()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor], ranks: Ranks = ALONE) -> None:
    """Copy the first rank's `tensors` into the model; the other ranks receive their shards from it."""
    targets = model_tensors(model)
    ranks.on_first(lambda: check_same_model(targets, tensors))
    for name, target in targets.items():
        fill(target, tensors[name] if ranks.is_first else None, ranks)


def check_same_model(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(targets.keys() - tensors.keys()), sorted(tensors.keys() - targets.keys())
    if missing or unexpected:
        raise ValueError(f"the checkpoint is of another model: missing {missing[:3]}, unexpected {unexpected[:3]}")
    for name, target in targets.items():
        if tensors[name].shape != target.shape:
            shapes = f"{name} has shape {list(tensors[name].shape)} there and {list(target.shape)} here"
            raise ValueError(f"the checkpoint is of another model: {shapes}")


def optimizer_tensors(stepped: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state by parameter name: <name>/exp_avg, <name>/exp_avg_sq, <name>/step. `stepped` is Learner.stepped."""
    return {f"{name}/{key}": value for name, tensor in stepped.items() for key, value in optimizer.state.get(tensor, {}).items()}


def restore_optimizer(
    stepped: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], ranks: Ranks = ALONE
) -> None:
    """Copy the first rank's `tensors` into the optimizer's state. Call restore_model first: it checks that the names fit."""
    for full_name in ranks.on_first(lambda: list(tensors)):
        name, key = full_name.rsplit("/", 1)
        tensor = stepped[name]
        target = torch.zeros((), device=tensor.device) if key == "step" else torch.zeros_like(tensor, requires_grad=False)
        fill(target, tensors[full_name] if ranks.is_first else None, ranks)
        optimizer.state[tensor][key] = target
