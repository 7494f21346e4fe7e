"""Finds a checkpoint of a run and loads its model, for commands beside the main job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from harness.learning.model import load_model, model_fingerprint, model_folder
from harness.runs.checkpoint import complete_steps, damage, read_manifest, restore_model
from harness.runs.tensor_file import TensorFile
from harness.settings.config import ModelConfig
from harness.store import RunFolder


@dataclass(frozen=True)
class Trained:
    """One checkpoint of one run."""

    run: Path
    step: int
    config: dict  # the run's config.json

    @property
    def folder(self) -> Path:
        return self.run / "checkpoints" / f"step={self.step}"

    @property
    def model_config(self) -> ModelConfig:
        return ModelConfig(**self.config["settings"]["model"] | {"path": self.config["paths"]["model"]})

    @property
    def weights_hash(self) -> str:
        return read_manifest(self.folder)["files"]["model.safetensors"]

    def require_model(self) -> None:
        """Raise ValueError when the run's base model is missing or has changed."""
        model, expected = self.model_config, self.config["settings"]["model"]["path"]
        if "@" not in expected and not Path(model_folder(model.path)).is_dir():
            raise ValueError(f"{model.path}, which {self.run} started from, is not there any more: put it back, or a link to it")
        if model_fingerprint(model.path, model.revision) != expected:
            raise ValueError(f"{model.path} is no longer the model that {self.run} started from: put that one back")

    def load(self) -> nn.Module:
        """The model with the checkpoint's weights. ValueError when the base model or the checkpoint has changed."""
        self.require_model()
        if problems := damage(self.folder, read_manifest(self.folder)):
            raise ValueError(f"{self.folder} is damaged ({'; '.join(problems)}): choose another step")
        module = load_model(self.model_config)
        restore_model(module, TensorFile(self.folder / "model.safetensors"))
        return module


def find_trained(run: str | Path, wanted: str) -> Trained:
    """The checkpoint that `wanted` names: last, best (highest evaluation mean; the earliest of equal ones), or a step number."""
    run = Path(run)
    config = RunFolder(run).read_config()
    if config is None:
        raise ValueError(f"{run} is not a run's folder: it has no config.json")
    root = run / "checkpoints"
    steps = complete_steps(root)
    if not steps:
        raise ValueError(f"{run} has no checkpoint yet")
    if wanted == "last":
        return Trained(run, steps[-1], config)
    if wanted == "best":
        return Trained(run, _best(root, steps), config)
    if not wanted.isdecimal() or int(wanted) not in steps:
        raise ValueError(f"step={wanted}: choose last, best, or a checkpointed step of {run}: {', '.join(map(str, steps))}")
    return Trained(run, int(wanted), config)


def _best(root: Path, steps: list[int]) -> int:
    scores = {step: read_manifest(root / f"step={step}")["score"] for step in steps}
    scored = [step for step in steps if scores[step] is not None]
    if not scored:
        raise ValueError(f"no checkpoint in {root} was evaluated (steps {', '.join(map(str, steps))}): give last or a step")
    return max(scored, key=lambda step: (scores[step], -step))
