"""Turns words on the command line into checked plans of runs, by Hydra's composition."""

from __future__ import annotations

import copy
import difflib
import logging
import re
import textwrap
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness.settings.config import Config, SlurmConfig
from harness.settings.identity import RunPlan, plan_run
from methods import METHODS, Rule, all_methods

log = logging.getLogger(__name__)

CONFIG_MODULE = "conf"
CONF = Path(__file__).parents[2] / "conf"

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
    return OmegaConf.to_object(settings)


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
        return OmegaConf.to_object(compose(f"method/{preset}", overrides=list(overrides)).method)


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


def expand_model(arguments: Sequence[str]) -> list[str]:
    """`model=FOLDER_OR_HUB_ID` is short for `model=hf model.path=…`; the names of conf/model/ stay as they are.

    >>> expand_model(["method=cppo", "model=org/name"])
    ['method=cppo', 'model=hf', 'model.path=org/name']
    >>> expand_model(["model=export/step=3,org/name"])
    ['model=hf', "model.path='export/step=3',org/name"]
    """
    presets = {path.stem for path in (CONF / "model").glob("*.yaml")}
    expanded = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        others = set(value.split(",")) - presets
        if key != "model" or not others:
            expanded.append(argument)
        elif named := presets & set(value.split(",")):
            raise ValueError(
                f"model: {', '.join(sorted(named))} of conf/model/ and {', '.join(sorted(others))}, which would be a folder or "
                f"a hub id, can't stand in one list: give each a sweep of its own"
            )
        else:
            expanded += ["model=hf", f"model.path={quoted(value)}"]
    return expanded


def quoted(value: str) -> str:
    """The value as Hydra's grammar can read it: if it cannot, each comma-separated part that it refuses is put in quotes."""
    if is_read(value):
        return value
    parts = value.split(",")
    return ",".join(part if is_read(part) else QuotedString(part, Quote.single).with_quotes() for part in parts)


def is_read(value: str) -> bool:
    try:
        OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return False
    return True


def explain(error: Exception) -> str:
    """Error message of a few lines for wrong settings, with the nearest key if one was misspelt."""
    if isinstance(error, MissingConfigException) and error.options and "/" in error.missing_cfg_file:
        return unknown_choice(*error.missing_cfg_file.rsplit("/", 1), error.options)
    message = str(error).split("Config search path:")[0].strip()
    cause = error.__cause__
    reason = str(cause).splitlines()[0] if cause else ""
    if reason and reason not in message:
        message += f"\n  {reason}"
    known = list(getattr(getattr(cause, "object_type", None), "__dataclass_fields__", ()))
    bare = groups() - set(known) if "model" in known else set()  # of the root: chosen by name, and without keys
    key = str(getattr(cause, "key", ""))
    if key in bare:
        message += f"\n  {key} is a group: choose with {key}=NAME; a file conf/{key}/NAME.yaml makes a new choice"
    elif key not in known and (similar := difflib.get_close_matches(key, [*known, *bare], n=1, cutoff=0.5)):
        message += f"\n  did you mean {similar[0]}?"
    if (rule := re.search(r"In 'method/(\w+)'", message)) and "not in 'Rule'" in message:
        message += f"\n  conf/method/{rule[1]}.yaml must begin with its schema: /schema/method@_here_ (README.md, Add a rule)"
    return f"error: {message}"


def groups() -> set[str]:
    return {path.name for path in CONF.iterdir() if path.is_dir()}


def unknown_choice(group: str, name: str, options: Sequence[str]) -> str:
    """That a group has no such choice, the nearest ones, and all of them in few lines."""
    if group == "method" and name in METHODS:
        hint = f"the rule is registered, and its numbers are missing: write conf/method/{name}.yaml (README.md, Add a rule)"
    else:
        similar = difflib.get_close_matches(name, options, n=2, cutoff=0.6)
        similar.sort(key=lambda option: not option.startswith(name))
        hint = f"did you mean {' or '.join(similar)}?" if similar else "it is none of the choices"
    indented = {"width": 100, "initial_indent": "  ", "subsequent_indent": "    ", "break_on_hyphens": False}
    listed = textwrap.fill(f"choose from {' '.join(options)}", **indented)
    return f"error: {group}={name}: {hint}\n{listed}"
