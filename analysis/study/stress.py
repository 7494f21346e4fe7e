"""The stress map: every rule's cells as five settings leave their defaults, one at a time, and their table (docs/study.md)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from analysis.results import Results
from analysis.runs import InputError, Run, differing, listing
from analysis.scores import GroupScores
from analysis.study.cells import StudyCell, study_cell
from analysis.study.protocol import COMMAND, METRIC_NOTE, STRESS
from analysis.study.tables import behind
from analysis.style import TUNED, label, ordered
from analysis.tables.cells import MISSING, points
from analysis.tables.table import Cell, Table
from harness.telemetry.collapse import BY_MISMATCH, first_breach

NO_STRESS = f"missing: no finished runs of the stress map. Made by: {COMMAND.format(STRESS)}"
Place = tuple[str, str]  # (axis, level)


@dataclass(frozen=True)
class Axis:
    """One setting of the map. `levels`: value -> text, in order; `default`: its value while another axis is varied."""

    name: str
    key: str
    levels: dict
    default: object

    @property
    def default_place(self) -> Place:
        return self.name, self.levels[self.default]


AXES = [
    Axis("updates per batch", "train.updates_per_step", {2: "2", 4: "4", 8: "8"}, 4),
    Axis("learning rate", "train.lr", {1e-4: "1e-4", 2e-4: "2e-4", 4e-4: "4e-4"}, 2e-4),
    Axis("lag", "rollout.lag", {0: "0", 4: "4", 8: "8"}, 4),
    Axis("precision", "rollout.precision", {name: name for name in ("float32", "float16", "bfloat16")}, "float32"),
    Axis("operations", "data.operations", {(2, 5): "2–5 (short)", None: "4–8", (6, 9): "6–9 (long)"}, None),
]
DEFAULTS = {axis.default_place for axis in AXES}


@dataclass(frozen=True, eq=False)
class StressMap:
    """Cells by preset, at every level of every axis. The cells of the default stand at the default level of each axis.

    `cells` is empty if the experiment has no runs at all.
    """

    cells: dict[Place, dict[str, StudyCell]] = field(default_factory=dict)

    @property
    def default(self) -> dict[str, StudyCell]:
        return self.cells.get(AXES[0].default_place, {})

    @property
    def away(self) -> dict[Place, dict[str, StudyCell]]:
        """The cells of all places but the default ones."""
        return {place: cells for place, cells in self.cells.items() if place not in DEFAULTS}

    @cached_property
    def presets(self) -> list[str]:
        return ordered({preset for cells in self.cells.values() for preset in cells})

    @property
    def texts(self) -> dict[str, str]:
        """{preset: name in tables}: the rule's name alone, unless a rule is there both as published and as tuned."""
        short = {preset: label(preset.removesuffix(TUNED)) for preset in self.presets}
        return short if len(set(short.values())) == len(short) else {preset: label(preset) for preset in self.presets}

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for cells in self.cells.values() for cell in cells.values() for seed in cell.seeds})

    def changes(self, place: Place, preset: str) -> np.ndarray:
        """Late reward here − late reward at the default, for each seed that both cells have; [seeds], empty without a cell."""
        cell, default = self.cells[place].get(preset), self.default.get(preset)
        if cell is None or default is None:
            return np.array([])
        before = dict(zip(default.seeds, default.values["late"], strict=True))
        after = zip(cell.seeds, cell.values["late"], strict=True)
        return np.array([value - before[seed] for seed, value in after if seed in before])

    def breaks(self, place: Place, preset: str) -> bool:
        """True if all runs collapse here and none at the default, given at least two in both cells."""
        cell, default = self.cells[place].get(preset), self.default.get(preset)
        if cell is None or default is None or min(len(cell), len(default)) < 2:
            return False
        return cell.num_collapsed == len(cell) and default.num_collapsed == 0


def stress_map(results: Results | None) -> StressMap:
    if results is None:
        return StressMap()
    by_place: dict[Place, dict[str, StudyCell]] = {}
    for group in results.groups:
        place = place_of(group)
        if place in by_place:
            raise InputError(f"{group.group.label}: another group is at {' '.join(place)} too, pack only one of them")
        by_place[place] = {name: stress_cell(results, group, name) for name in ordered(group.scored)}
    default = by_place.get(AXES[0].default_place, {})
    places = [(axis.name, text) for axis in AXES for text in axis.levels.values()]
    return StressMap({place: default if place in DEFAULTS else by_place.get(place, {}) for place in places})


def stress_cell(results: Results, group: GroupScores, name: str) -> StudyCell:
    """The cell of a preset at one place, whose `collapsed` runs are those that failed to learn.

    A run that the collapse rule marked for its mismatch counts only if the rule without that check marks it too.
    """
    runs = {run.run_id: run for run in group.methods[name].runs}
    cell = study_cell(results, group, name)
    by_mismatch = [run_id for run_id in cell.collapsed if BY_MISMATCH in (runs[run_id].status.get("collapse_reason") or "")]
    passed = [run_id for run_id in by_mismatch if not fails_otherwise(results, group, runs[run_id])]
    return replace(cell, collapsed=[run_id for run_id in cell.collapsed if run_id not in passed], mismatched=by_mismatch)


def fails_otherwise(results: Results, group: GroupScores, run: Run) -> bool:
    """True if the collapse rule marks the run even without its check of the mismatch."""
    table = results.sweep.metrics[results.sweep.metrics["run_id"] == run.run_id].drop(columns="run_id")
    rows = [{key: value for key, value in row.items() if value == value} for row in table.to_dict("records")]
    steps, scores_EK = group.curves[run.run_id]
    thresholds = run.settings["train"]["collapse"] | {"mismatch_floor": float("inf")}
    evaluations = zip(steps.tolist(), scores_EK.mean(1).tolist(), strict=True)
    return first_breach(rows, evaluations, thresholds, run.steps) is not None


def place_of(group: GroupScores) -> Place:
    """The place of a group on the map, from the settings of its runs and not from the name of its stress point. The default
    has its place on the first axis. InputError if more than one setting is off its default, or one is at no level of its axis."""
    settings = next(run for method in group.methods.values() for run in method.all_runs).shared_settings
    values = {axis.name: hashable(settings.get(axis.key)) for axis in AXES}
    away = [axis for axis in AXES if values[axis.name] != axis.default]
    if len(away) > 1 or any(values[axis.name] not in axis.levels for axis in away):
        off = ", ".join(f"{axis.key} = {values[axis.name]}" for axis in away)
        raise InputError(f"{group.group.label} is no point of the stress map ({off}): analysis/study/stress.py has its axes")
    return (away[0].name, away[0].levels[values[away[0].name]]) if away else AXES[0].default_place


def hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def unmatched(results: Results | None) -> str:
    """A warning that lists the settings which differ between the points without being an axis; empty without any."""
    keys = differing([run.shared_settings for run in results.sweep.runs] if results else [])
    others = {key: values for key, values in keys.items() if key not in {axis.key for axis in AXES}}
    return f"MIXED SETTINGS in the stress map: {listing(others)}" if others else ""


def table_stress(stress: StressMap) -> Table:
    """The map: a row for each level of each axis, a column for each rule."""
    lines = [(": ".join(place), [table_cell(stress, place, preset) for preset in stress.presets]) for place in stress.cells]
    default = ", ".join(" ".join(axis.default_place) for axis in AXES)
    notes = [
        f"Late reward / held-out, collapsed runs. {METRIC_NOTE} Means over seeds {', '.join(map(str, stress.seeds))}. Held-out "
        "problems are the same everywhere, late rewards with other operations are of other problems.",
        f"Each line changes one setting of the default ({default}), whose own runs stand once in each axis. Rules as tuned at "
        "the default. Bold: the rule breaks, both of its runs collapse there and none at the default. (1 m): one run was marked "
        "for its mismatch: engine and learner came to differ more than at its start; it counts if it fails otherwise too.",
    ]
    columns = [stress.texts[preset] for preset in stress.presets]
    if not stress.presets:
        lines, notes = [], [NO_STRESS]
    return Table("table_stress", "The stress map", columns, lines, notes, corner="setting")


def table_cell(stress: StressMap, place: Place, preset: str) -> Cell:
    cell = stress.cells[place].get(preset)
    if cell is None:
        return Cell(MISSING)
    late, final = (float(cell.values[metric].mean()) for metric in ("late", "final"))
    values = {"late": late, "final": final, "num_collapsed": cell.num_collapsed, "num_seeds": len(cell)}
    marks = f" ({len(cell.mismatched)} m)" if cell.mismatched else ""
    text = f"{points(late)} / {points(final)}, {cell.num_collapsed}/{len(cell)}{marks}"
    return behind([Cell(text, values, emphasis="best" if stress.breaks(place, preset) else "")], cell.run_ids)[0]
