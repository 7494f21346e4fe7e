"""The project's Hydra launcher: plans every run of a sweep before any starts, then hands them to an executor."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from harness.display import Display, describe, summary
from harness.distributed import current_ranks, is_first, world_size
from harness.settings.compose import plan_from
from harness.settings.identity import RunPlan
from slurm import submit
from slurm.local import run_in_process, run_in_workers


@dataclass(frozen=True)
class Executor:
    """How runs are executed. `run` returns when they have ended.

    For a scheduler, `submit` first hands it the runs and returns a message; `preview` returns what would be submitted.
    """

    run: Callable[[list[RunPlan], list[list[str]], Display], None]
    submit: Callable[[list[RunPlan], list[list[str]]], str] | None = None
    preview: Callable[[list[RunPlan], list[list[str]]], str] | None = None


EXECUTORS = {
    "local": Executor(run_in_workers),
    "debug": Executor(run_in_process),
    "slurm": Executor(submit.wait, submit.submit, submit.preview),
}


PLUGIN_MODULE = "hydra_plugins.harness"
SEED = re.compile(r"seed=\d+")


def register() -> None:
    """Register launcher and sweeper in a module made here: Hydra accepts only plugins named inside the package hydra_plugins."""
    plugins = Plugins.instance()
    from slurm.sweeper import HarnessSweeper  # not earlier: Hydra's search for plugins creates its base class anew

    module = ModuleType(PLUGIN_MODULE)
    sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    sys.modules[PLUGIN_MODULE] = module
    for plugin in (HarnessLauncher, HarnessSweeper):
        setattr(module, plugin.__name__, plugin)
        plugins.register(plugin)


class HarnessLauncher(Launcher):
    """The launcher of every sweep (conf/config.yaml); `cluster.executor` says where the runs execute."""

    __module__ = PLUGIN_MODULE

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        overrides = [[*job, *search_path(self.config)] for job in job_overrides]
        plans = [self.plan(job) for job in overrides]
        code = launch(plans, overrides)
        if code:
            sys.exit(code)
        return [JobReturn(overrides=job, status=JobStatus.COMPLETED, _return_value=None) for job in overrides]

    def plan(self, overrides: list[str]) -> RunPlan:
        seeds = [word for word in overrides if SEED.fullmatch(word)]
        composed = copy.deepcopy(self.compose(tuple(word for word in overrides if word not in seeds)))
        with open_dict(composed):
            composed.hydra.overrides.task = overrides
            if seeds:
                composed.seed = int(seeds[-1].removeprefix("seed="))
        return plan_from(composed)

    def compose(self, overrides: tuple[str, ...]) -> DictConfig:
        """Compose a config, once for all seeds, since it takes a sixth of a second."""
        if overrides not in self._composed:
            self._composed[overrides] = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        return self._composed[overrides]


def search_path(config: DictConfig) -> list[str]:
    """The option --config-dir as an override, so that workers compose from the same folders."""
    sources = config.hydra.runtime.config_sources
    folders = [source.path for source in sources if source.provider == "command-line"]
    return [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []


def launch(plans: list[RunPlan], overrides: list[list[str]], executor: str | None = None) -> int:
    """Run or submit the runs that are not finished; print progress and the final tables. Returns the exit code."""
    refuse_duplicates(plans)
    for plan in plans:
        require_last_row(plan)
    config = plans[0].config
    if world_size() > 1:  # started as one of several ranks, by torchrun for example: they go through the runs together
        return work_together(plans)
    chosen = EXECUTORS[executor or config.cluster.executor]
    not_done = [i for i, plan in enumerate(plans) if not plan.folder.finished]
    open_plans, jobs = [plans[i] for i in not_done], [overrides[i] for i in not_done]
    if config.harness.dry_run:
        print(describe(plans))
        if chosen.preview and open_plans:
            print(f"\n{chosen.preview(open_plans, jobs)}")
        return 0
    if not open_plans:
        print(f"All {len(plans)} runs are done: nothing to do.")
    else:
        if chosen.submit:
            print(chosen.submit(open_plans, jobs), flush=True)
            if not config.cluster.wait:
                return 0
        with Display(plans, config.harness.display) as display:
            chosen.run(open_plans, jobs, display)
    print(summary(plans))
    return 0 if all(plan.folder.finished for plan in plans) else 1


def require_last_row(plan: RunPlan) -> None:
    """Raise ValueError if a run is finished according to its status, but its last step is not stored."""
    folder = plan.folder
    if folder.finished and folder.last_step() != (folder.read_status() or {}).get("step"):
        raise ValueError(
            f"{folder.path} is finished by its status, but metrics.jsonl ends at step {folder.last_step()}: restore the file, "
            f"or move the folder away to run it again (python -m harness.doctor run {folder.path})"
        )


def work_together(plans: list[RunPlan]) -> int:
    """Go through the runs on all ranks together; the first rank shows progress. Returns the exit code."""
    with Display(plans, plans[0].config.harness.display if is_first() else "none") as display:
        run_in_process(plans, [], display)
    if is_first():
        print(summary(plans))
    return current_ranks().on_first(lambda: 0 if all(plan.folder.finished for plan in plans) else 1)


def refuse_duplicates(plans: list[RunPlan]) -> None:
    seen: set[str] = set()
    for plan in plans:
        if plan.run_id in seen:
            raise ValueError(f"the sweep names {plan.run_id} twice: give each method and seed once")
        seen.add(plan.run_id)
