"""Derives the identity of a run from its settings: the scientific settings, their hashes, and the run's folder.

    runs/<experiment>/<model>/<method>/seed=<n>-<hash8>

Re-issuing a sweep finds the same folders: nothing is ever overwritten, finished runs are skipped, and the others resume.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path

from evals.problems import fingerprint
from evals.prompts import template_hash
from harness.contamination import check_overlap
from harness.data import data_fingerprint, load_benchmark
from harness.learning.model import check_model, check_reachable, load_tokenizer, model_fingerprint, prompt_record, prompt_texts
from harness.preflight import all_sources, check_answers, check_prompts, check_templates
from harness.settings.config import Config, EvalConfig, require
from harness.store import RunFolder, content_hash, flatten
from methods import rule_name


@dataclass(frozen=True)
class RunPlan:
    """One run before it starts. `plan_run` makes it after checking the settings."""

    config: Config
    preset: str  # the choice of the group `method`, with overrides of its settings
    experiment: str
    model: str
    stress: str = ""  # the choice of the group `stress`, if any

    @cached_property
    def rule(self) -> str:
        return rule_name(self.config.method)

    @cached_property
    def data_fingerprints(self) -> dict[str, str]:
        """Content hashes of the training data ("train") and of each benchmark."""
        prints = {"train": data_fingerprint(self.config.data)}
        for name in self.config.eval.benchmarks:
            prints[name] = benchmark_fingerprint(name, self.config.eval.root)
        return prints

    @cached_property
    def settings(self) -> dict:
        """The scientific settings, resolved. Paths are replaced by hashes of the content that they name."""
        settings = scientific(self.config)
        settings["method"] = {"rule": self.rule} | settings["method"]
        settings["model"]["path"] = model_fingerprint(self.config.model.path, self.config.model.revision)
        settings["data"]["path"] = self.data_fingerprints["train"]
        settings["data"]["template"] = template_hash(self.config.data.template)
        settings["eval"] = eval_settings(self.config.eval)
        return settings

    @cached_property
    def config_hash(self) -> str:
        return content_hash(self.settings)

    @cached_property
    def settings_fingerprint(self) -> str:
        """Hash of the settings that runs of one comparison must share: all but method and seed."""
        return content_hash({key: value for key, value in self.settings.items() if key not in ("method", "seed")})

    @cached_property
    def run_id(self) -> str:
        return f"{self.experiment}/{self.model}/{self.preset}/seed={self.config.seed}-{self.config_hash[:8]}"

    @property
    def folder(self) -> RunFolder:
        return RunFolder(Path(self.config.runs_dir) / self.run_id)

    def record(self) -> dict:
        """Content of config.json."""
        identity = {key: getattr(self, key) for key in ("preset", "rule", "experiment", "model", "stress")}
        hashes = {"config_hash": self.config_hash, "settings_fingerprint": self.settings_fingerprint}
        return (
            identity
            | {"seed": self.config.seed, "run_id": self.run_id}
            | hashes
            | {"data_fingerprints": self.data_fingerprints, "settings": self.settings}
            | {"operational": operational(self.config)}
            | {"paths": {name: whole_path(path) for name, path in self.paths().items()}}
            | {"prompts": self.prompts(), "allowed_overlap": check_overlap(self.config)}
        )

    def paths(self) -> dict[str, str | None]:
        return {"model": self.config.model.path, "data": self.config.data.path, "eval": self.config.eval.root}

    def prompts(self) -> dict[str, dict]:
        """Templates by name and hash, chat template and stop tokens, for training and for evaluation."""
        model = self.config.model
        tokenizer = load_tokenizer(model.path, model.revision)
        templates = {"train": self.config.data.template, "eval": self.config.eval.template}
        return {use: prompt_record(template, model, tokenizer) for use, template in templates.items()}

    def check_folder(self) -> None:
        """Raise ValueError if the folder holds a run with other settings (a copied folder), or its config.json was changed."""
        stored = self.folder.read_config()
        if stored and stored.get("config_hash") != self.config_hash:
            raise ValueError(
                f"{self.folder.path} was written under another config "
                f"(hash {stored.get('config_hash')}, now {self.config_hash}): move that folder away, or choose another runs_dir"
            )
        if stored and content_hash(stored.get("settings")) != self.config_hash:
            raise ValueError(
                f"{self.folder.path}/config.json was changed: its settings no longer have its hash {self.config_hash}: "
                f"remove it, and the same command writes it again"
            )


def whole_path(path: str | None) -> str | None:
    """Absolute path of a file or folder that exists; a hub id or builtin:… is returned unchanged."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path


def plan_run(config: Config, choices: Mapping[str, str], overrides: list[str]) -> RunPlan:
    """The plan of one run. Checks what types and ranges cannot, such as that named files exist and are readable."""
    for group in ("method", "model", "experiment", "stress"):
        require(group in choices, group, "[…]", f"a run has one: choose with {group}=NAME")
    check_model(config.model)
    require(config.data.kind != "none", "data", "none", "training needs data: data=chain, or data=jsonl data.path=FILE")
    check_templates(config)
    check_overlap(config)
    check_answers(config)
    check_ready(config)
    method_overrides = [o.removeprefix("method.") for o in overrides if o.startswith("method.")]
    preset = ",".join([choices["method"], *method_overrides])
    stress = "" if choices["stress"] == "none" else choices["stress"]
    plan = RunPlan(config, preset, choices["experiment"], model_name(config, choices), stress)
    plan.check_folder()
    return plan


def check_ready(config: Config) -> None:
    """Raise ValueError if machine or model lack what a run needs. Not for a dry run, whose sweep may be for another machine."""
    if config.harness.dry_run:
        return
    if config.cluster.executor != "slurm" or "SLURM_JOB_ID" in os.environ:  # a login node may have neither network nor cache
        check_reachable(config.model)
    check_prompts(config.model.path, all_sources(config))
    if config.model.chat_template:
        prompt_texts([], config.data.template, load_tokenizer(config.model.path, config.model.revision), chat_template=True)
    if config.rollout.engine == "vllm":
        from harness.rollout.vllm import require_vllm

        require_vllm()


def model_name(config: Config, choices: Mapping[str, str]) -> str:
    """Name of the model in a run's path: that of its preset, or the last part of the path or hub id."""
    return Path(os.path.abspath(config.model.path)).name if choices["model"] == "hf" else choices["model"]


def eval_settings(config: EvalConfig) -> dict:
    """The scientific settings of evaluation. Files are replaced by hashes of their content."""
    prints = {name: benchmark_fingerprint(name, config.root) for name in config.benchmarks}
    return scientific(config) | {"root": prints, "template": template_hash(config.template)}


@cache
def benchmark_fingerprint(name: str, root: str | None) -> str:
    return fingerprint(load_benchmark(name, root))


def scientific(config) -> dict:
    """All fields but the operational ones, as plain values: the settings that decide a run's results."""
    values = {}
    for f in fields(config):
        if f.metadata.get("operational"):
            continue
        value = getattr(config, f.name)
        if value is None and f.metadata.get("newer"):
            continue
        values[f.name] = scientific(value) if is_dataclass(value) else value
    return values


def operational(config) -> dict:
    """The operational fields, as plain values: where and how a run executes."""
    values = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("operational"):
            values[f.name] = asdict(value) if is_dataclass(value) else value
        elif is_dataclass(value) and (nested := operational(value)):
            values[f.name] = nested
    return values


def different_keys(settings: list[dict]) -> list[str]:
    """Dotted keys whose values differ between the settings."""
    flat = [flatten(nested) for nested in settings]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    return [key for key in keys if any(values.get(key) != flat[0].get(key) for values in flat)]
