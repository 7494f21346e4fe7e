"""From words on the command line to checked plans of runs. The only place that speaks to Hydra's composition."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from harness.config import Config
from harness.identity import RunPlan, plan_run
from methods import all_methods

CONFIG_MODULE = "conf"

HELP = {
    "app_name": "harness",
    "header": "Compare trust-region rules for RL of language models under matched settings.",
    "footer": "Runs go to runs_dir (default: runs). Finished runs are skipped, stopped ones resumed. Then: python -m analysis runs",
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
  cluster     where runs execute: local, debug
  tracker     a mirror of the metrics
  experiment  a named sweep, for a table or figure

$APP_CONFIG_GROUPS
Any key can be set as key=value; --cfg job prints them all.

${hydra.help.footer}
""",
}


def register() -> None:
    """Schemas, the launcher and the help text, for Hydra to find by name."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for name, rule in all_methods().items():
        store.store(group="schema/method", name=name, node=rule)
    store.store(group="hydra/launcher", name="harness", node={"_target_": "hydra_plugins.harness.HarnessLauncher"})
    store.store(group="hydra/help", name="harness", node=HELP)


def plan_from(composed: DictConfig) -> RunPlan:
    """The checked plan of one composed config (its `hydra` node included). ValueError names the key and the remedy."""
    choices, overrides = dict(composed.hydra.runtime.choices), list(composed.hydra.overrides.task)
    settings = copy.deepcopy(composed)
    with open_dict(settings):
        del settings["hydra"]
    return plan_run(OmegaConf.to_object(settings), choices, overrides)


def compose_plan(overrides: Sequence[str]) -> RunPlan:
    """The plan that these overrides give, outside a Hydra application."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        return plan_from(compose("config", overrides=list(overrides), return_hydra_config=True))


def expand_model(arguments: Sequence[str]) -> list[str]:
    """`model=FOLDER_OR_HUB_ID` is short for `model=hf model.path=…`; the names of conf/model/ stay as they are.

    >>> expand_model(["method=cppo", "model=org/name"])
    ['method=cppo', 'model=hf', 'model.path=org/name']
    """
    presets = {path.stem for path in (Path(__file__).parent.parent / "conf" / "model").glob("*.yaml")}
    expanded = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "model" and not set(value.split(",")) <= presets:
            expanded += ["model=hf", f"model.path={value}"]
        else:
            expanded.append(argument)
    return expanded
