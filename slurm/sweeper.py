"""Hydra's basic sweeper without a check that the launcher makes too. Import it only after Hydra has searched for its plugins."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class HarnessSweeper(BasicSweeper):
    __module__ = "hydra_plugins.harness"

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Skip Hydra's check, which takes a sixth of a second a run: the launcher composes every run before any starts."""
