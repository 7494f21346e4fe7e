"""The record that tables, figures and the verdict are made from: a sweep, its groups' scores, and comparisons computed once."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis.compare import Comparison, compare
from analysis.load import Sweep
from analysis.scores import PRIMARY_RULE, GroupScores, group_scores
from analysis.style import ordered


@dataclass(frozen=True)
class Results:
    """A sweep with the scores of its groups. `rule`: the selection rule; `paper`: show the published numbers beside ours."""

    sweep: Sweep
    groups: list[GroupScores]
    rule: str = PRIMARY_RULE
    paper: bool = False
    _comparisons: dict = field(default_factory=dict, repr=False)

    def main_methods(self, group: GroupScores) -> list[str]:
        """The compared methods of a group: all but the variants of a rule whose own preset is there too."""
        first = {name: method.all_runs[0] for name, method in group.methods.items()}
        return ordered(name for name, run in first.items() if not (run.is_variant and run.rule in first))

    def variants(self, group: GroupScores, base: str) -> list[str]:
        """The ablations and changed settings of the rule `base`; empty if the rule's own preset is not among the runs."""
        main = self.main_methods(group)
        rules = {name: method.all_runs[0].rule for name, method in group.methods.items()}
        return ordered(name for name in rules if rules[name] == base and name not in main)

    def comparison(self, group: GroupScores, rule: str | None = None) -> Comparison:
        """The main methods of a group compared under a selection rule (default: the results' own), computed once."""
        key = (group.group, rule or self.rule)
        if key not in self._comparisons:
            self._comparisons[key] = compare(group, rule or self.rule, self.main_methods(group))
        return self._comparisons[key]

    @property
    def group_labels(self) -> list[str]:
        """The groups' names in tables: model or stress point alone where these differ between all groups, else the full label."""
        groups = [group.group for group in self.groups]
        alone = [group.model for group in groups], [group.stress or "default" for group in groups]
        return next((texts for texts in alone if len(set(texts)) == len(texts)), [group.label for group in groups])

    def group_label(self, group: GroupScores) -> str:
        return self.group_labels[self.groups.index(group)]

    @property
    def warning(self) -> str:
        return "MIXED SETTINGS, not a matched comparison: " + " | ".join(self.sweep.mixed) if self.sweep.mixed else ""


def analyse(sweep: Sweep, rule: str = PRIMARY_RULE, t_stop: int | None = None, paper: bool = False) -> Results:
    return Results(sweep, group_scores(sweep, t_stop), rule, paper)
