"""Hydra's basic sweeper without what it does for others. Import it only after Hydra has searched for its plugins."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn


class HarnessSweeper(BasicSweeper):
    __module__ = "hydra_plugins.harness"

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Hand the whole sweep to the launcher, which checks it before anything is written.

        Hydra would write multirun.yaml into runs_dir first, and compose each run once more, a sixth of a second each.
        """
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (batch,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        return self.launcher.launch(batch, 0)
