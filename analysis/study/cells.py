"""Collects the study's cells (a rule at one setting, with a value of each run) into the families that are compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from analysis.exact import clopper_pearson
from analysis.results import Results
from analysis.runs import InputError
from analysis.scores import GroupScores
from analysis.stats import Interval, interval
from analysis.study.protocol import METRICS
from analysis.style import TUNED as SUFFIX
from analysis.style import label, ordered
from analysis.tables.table import ids

PUBLISHED, TUNED = "published", "tuned"
ONE_PROBLEM = np.zeros(1, dtype=int)


@dataclass(frozen=True, eq=False)
class StudyCell:
    """The finished runs of one preset, in order of their seeds.

    `values`: for each metric of METRICS an array [runs], in [0, 1]. `note`: says where the runs are not those of the setting
    that the cell stands for, or also stand for another one; else empty.
    """

    preset: str
    rule: str
    settings: dict
    seeds: list[int]
    run_ids: list[str]
    values: dict[str, np.ndarray]
    collapsed: list[str]  # run ids
    note: str = ""
    mismatched: list[str] = field(default_factory=list)  # run ids marked for their mismatch; filled on the stress map only

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def num_collapsed(self) -> int:
        return len(self.collapsed)

    def mean(self, metric: str, without: int | None = None) -> Interval | None:
        """Mean over seeds with its interval; None without runs."""
        values = self.values[metric][[seed != without for seed in self.seeds]]
        return of_samples(values) if len(values) else None


def of_samples(*samples: np.ndarray) -> Interval:
    """Mean of one sample with Student's t interval, or mean(first) − mean(second) with Welch's. Samples are [runs]."""
    return interval([sample[:, None] for sample in samples], ONE_PROBLEM)


def share_text(count: int, total: int) -> str:
    """A share with its exact 95 % interval, such as: 3/14 (5 to 51 %)."""
    low, high = clopper_pearson(count, total)
    return f"{count}/{total} ({100 * low:.0f} to {100 * high:.0f} %)"


def only_group(results: Results) -> GroupScores:
    if len(results.groups) > 1:
        labels = ", ".join(group.group.label for group in results.groups)
        raise InputError(f"an experiment of the study has one model and one stress point, here: {labels}")
    return results.groups[0]


def study_cells(results: Results | None) -> dict[str, StudyCell]:
    """The cell of every preset with finished runs, by preset; empty if the experiment has no runs at all."""
    if results is None:
        return {}
    group = only_group(results)
    return {name: study_cell(results, group, name) for name in ordered(group.scored)}


def study_cell(results: Results, group: GroupScores, name: str) -> StudyCell:
    method = group.methods[name]
    values = {metric: measure(results, group, method) for metric, (_, measure) in METRICS.items()}
    first, collapsed = method.runs[0], ids(method.collapsed)
    return StudyCell(name, first.rule, first.method_settings, method.seeds, method.run_ids, values, collapsed)


@dataclass(frozen=True, eq=False)
class Family:
    """Cells that are compared with each other, by rule. `absent`: a clause for each rule that should have a cell and has none."""

    name: str
    cells: dict[str, StudyCell]
    absent: list[str] = field(default_factory=list)

    def label(self, rule: str) -> str:
        return f"{self.name}: {label(rule)}"

    def by_mean(self, metric: str) -> list[str]:
        """Rules from the highest mean to the lowest."""
        return sorted(self.cells, key=lambda rule: -self.cells[rule].values[metric].mean())


def families(cells: dict[str, StudyCell], chosen: dict[str, dict]) -> list[Family]:
    """The published and the tuned family. `chosen`: by rule the settings that tuning chose, {} while its runs are incomplete."""
    published = {cell.rule: cell for name, cell in cells.items() if name == cell.rule}
    absent = [f"{label(rule)} has no finished runs" for rule in ordered(chosen) if rule not in published] if cells else []
    return [Family(PUBLISHED, published, absent), tuned_family(cells, published, chosen)]


def tuned_family(cells: dict[str, StudyCell], published: dict[str, StudyCell], chosen: dict[str, dict]) -> Family:
    """The tuned family. A rule that was not tuned stands in it with its published runs."""
    tuned, absent = {}, []
    for rule in ordered({*published, *chosen}) if cells else []:
        if rule not in chosen:
            tuned[rule] = replace(published[rule], note="nothing to tune: the published runs")
        elif cell := tuned_cell(cells, rule, chosen[rule]):
            tuned[rule] = cell
        else:
            absent.append(f"{label(rule)} has no finished runs at its tuned setting")
    return Family(TUNED, tuned, absent)


def tuned_cell(cells: dict[str, StudyCell], rule: str, settings: dict) -> StudyCell | None:
    """The cell whose settings are those that tuning chose. The preset "<rule>_tuned" comes first: it is also taken, with a note,
    where it has other settings, and without a check while nothing is chosen yet. None if there is no such cell."""
    named = cells.get(f"{rule}{SUFFIX}")
    same = [cell for cell in cells.values() if settings and cell.settings == settings]
    if named and (not settings or named in same):
        return named
    if named:
        return replace(named, note="NOT the setting that tuning chose")
    return replace(same[0], note="tuning chose the published setting: the published runs") if same else None
