"""Composes checked plans of runs from overrides, by Hydra's composition."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness.settings.config import Config, SlurmConfig
from harness.settings.explain import nearest
from harness.settings.identity import RunPlan, plan_run
from methods import METHODS, Rule, all_methods

log = logging.getLogger(__name__)

CONFIG_MODULE = "conf"

HELP = {
    "app_name": "harness",
    "header": "Compare trust-region rules for RL of language models under matched settings.",
    "footer": "Runs go to runs_dir. Finished ones are skipped, stopped ones resumed. Then: python -m analysis runs",
    "template": """${hydra.help.header}

  python -m harness -m method=cppo,dppo,grpo seed=1,2,3     a sweep: every method with every seed
  python -m harness method=cppo seed=1                      one run
  python -m harness -m … harness.dry_run=true               what would run, where, and what exists already

Groups (choose with group=name)
  method      the trust-region rule, or a preset of one; its settings are method.<key>
  model       chain (embedded), or a local folder or hub id of a Hugging Face causal LM
  train       settings that all methods share
  data        chain (embedded task), or jsonl with data.path=FILE
  rollout     the engine that samples responses
  eval        held-out benchmarks: chain, aime
  cluster     where runs execute: local, debug, slurm
  tracker     a mirror of the metrics
  stress      one setting away from the default: a point of the stress map
  experiment  a named sweep, for a table or figure

$APP_CONFIG_GROUPS
Any key can be set as key=value; --cfg job prints them all.

${hydra.help.footer}
""",
}


def register() -> None:
    """Register schemas, the launcher and the help text, so that Hydra finds them by name."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    store.store(group="schema/cluster", name="slurm", node=SlurmConfig)
    for name, rule in all_methods().items():
        store.store(group="schema/method", name=name, node=rule)
    for name in all_methods().keys() - METHODS.keys():  # a plug-in's defaults; a YAML on Hydra's search path takes precedence
        store.store(group="method", name=name, node=all_methods()[name])
    store.store(group="hydra/launcher", name="harness", node={"_target_": "hydra_plugins.harness.HarnessLauncher"})
    store.store(group="hydra/sweeper", name="harness", node=BasicSweeperConf(_target_="hydra_plugins.harness.HarnessSweeper"))
    store.store(group="hydra/help", name="harness", node=HELP)


def plan_from(composed: DictConfig) -> RunPlan:
    """The checked plan of one composed config (its `hydra` node included). ValueError names the key and the remedy."""
    choices, overrides = dict(composed.hydra.runtime.choices), list(composed.hydra.overrides.task)
    return plan_run(config_from(composed), choices, overrides)


def config_from(composed: DictConfig) -> Config:
    """The typed settings with their ranges checked, without the `hydra` node."""
    settings = copy.deepcopy(composed)
    with open_dict(settings):
        settings.pop("hydra", None)
    return typed(settings)


def typed(settings: DictConfig) -> Config | Rule:
    """The settings as objects of their schemas. ValueError for a value out of range, and for a key that no schema has."""
    refuse_unknown(settings)
    return OmegaConf.to_object(settings)


def refuse_unknown(settings: DictConfig, section: str = "") -> None:
    """ValueError for a key that no schema has: Hydra adds one for `+key=value`, and nothing would read it."""
    known = [f.name for f in fields(OmegaConf.get_type(settings))]
    for key, value in settings.items_ex(resolve=False):
        if key not in known:
            raise ValueError(f"{section}{key}: there is no such setting{nearest(key, known)}")
        if is_dataclass(OmegaConf.get_type(value)):
            refuse_unknown(value, f"{section}{key}.")


def compose_config(overrides: Sequence[str]) -> Config:
    """The settings that these overrides give, for commands that start no run. Files that they name are not checked."""
    with composition():
        return config_from(compose("config", overrides=list(overrides)))


def compose_plan(overrides: Sequence[str]) -> RunPlan:
    """The plan that these overrides give, outside a Hydra application."""
    with composition():
        return plan_from(compose("config", overrides=list(overrides), return_hydra_config=True))


@contextmanager
def composition():
    """Context in which Hydra can compose; the Hydra state of an application in this process is restored afterwards."""
    register()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def compose_rule(preset: str, overrides: Sequence[str] = ()) -> Rule:
    """The rule of one preset, with overrides such as method.delta=0.1."""
    with composition():
        presets = GlobalHydra.instance().config_loader().get_group_options("method")
        if preset not in presets:
            raise ValueError(f"method={preset}: choose from {' '.join(presets)}")
        return typed(compose(f"method/{preset}", overrides=list(overrides)).method)


@cache
def shipped_rules() -> dict[str, Rule]:
    """Every registered rule at its shipped settings, by registered name. One without settings is skipped with a warning."""
    rules = {}
    for name, settings in shipped_settings().items():
        try:
            rules[name] = OmegaConf.to_object(settings)
        except (ValueError, OmegaConfBaseException) as error:
            log.warning("rule %s has no complete settings of its own, and is not evaluated beside others: %s", name, error)
    return rules


def shipped_settings() -> DictConfig:
    """Shipped settings of every rule, composed at once: composing them one by one takes three times as long."""
    defaults = {"defaults": [{f"method@{name}": name} for name in all_methods()]}
    ConfigStore.instance().store(name="shipped_rules", node=defaults)
    with composition():
        return compose("shipped_rules")
