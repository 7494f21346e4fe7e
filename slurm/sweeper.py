"""Hydra's sweeper without a check that the launcher makes anyhow. To be imported once Hydra has looked for its own plugins."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class HarnessSweeper(BasicSweeper):
    __module__ = "hydra_plugins.harness"

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """The launcher composes every run before any starts; composing takes a sixth of a second each."""
