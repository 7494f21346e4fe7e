"""Tuning with equal budgets: the scores of each rule's settings in the grid, and the setting that is chosen by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results import Results
from analysis.runs import differing
from analysis.study.cells import StudyCell, study_cells
from analysis.study.protocol import COMMAND, LATE_STEPS, TIE, TUNING, grid
from analysis.style import label
from analysis.tables.cells import MISSING, NONE, points
from analysis.tables.table import Cell, Table


@dataclass(frozen=True, eq=False)
class Row:
    """A rule's settings in the order of the grid, the published one first. `cells` by preset; one without runs has no cell."""

    rule: str
    presets: list[str]
    cells: dict[str, StudyCell]

    @property
    def complete(self) -> bool:
        return all(preset in self.cells and set(grid().seeds) <= set(self.cells[preset].seeds) for preset in self.presets)

    @property
    def winner(self) -> str | None:
        """The first preset, in the grid's order, whose score is within TIE of the highest; None while runs are missing."""
        return first_near_best({preset: score(self.cells[preset]) for preset in self.presets}) if self.complete else None

    @property
    def chosen_settings(self) -> dict:
        return self.cells[self.winner].settings if self.winner else {}


def score(cell: StudyCell) -> float:
    return float(cell.values["late"].mean())


def first_near_best(scores: dict[str, float]) -> str:
    """The first name whose score is at most TIE below the highest.

    >>> first_near_best({"a": 0.700, "b": 0.704, "c": 0.690})  # "a" is 0.004 below the best, and stands before it
    'a'
    """
    best = max(scores.values())
    return next(name for name, value in scores.items() if value >= best - TIE)


def tuning_rows(results: Results | None) -> list[Row]:
    cells = study_cells(results)
    return [
        Row(rule, presets, {preset: cells[preset] for preset in presets if preset in cells})
        for rule, presets in grid().presets.items()
    ]


def table_tuning(rows: list[Row]) -> Table:
    seeds = grid().seeds
    columns = ["setting", "score", *(f"seed {seed}" for seed in seeds), "held-out", "collapsed", "chosen"]
    notes = [
        f"Score: training reward, mean over the last {LATE_STEPS} steps, then over both seeds. Held-out: points at the last "
        "evaluation, on problems used for tuning alone. The published setting stands first in each row of the grid.",
        f"Chosen: the highest score, or a setting within {TIE} of it that stands further left.",
    ]
    unfinished = [label(row.rule) for row in rows if not row.complete]
    if unfinished:
        notes.append(f"Runs are missing, nothing chosen yet: {', '.join(unfinished)}. Made by: {COMMAND.format(TUNING)}")
    listed = [line for row in rows if row.cells for line in setting_lines(row)]
    return Table("table_tuning", "Tuning: the grid and its outcome", columns, listed, notes, corner="rule")


def setting_lines(row: Row) -> list[tuple[str, list[Cell]]]:
    """A table row for each of a rule's settings, described by the keys in which they differ."""
    keys = list(differing([cell.settings for cell in row.cells.values()]))
    return [(label(row.rule), setting_cells(row, preset, keys)) for preset in row.presets]


def setting_cells(row: Row, preset: str, keys: list[str]) -> list[Cell]:
    cell = row.cells.get(preset)
    if cell is None:
        return [Cell(f"{preset}: {MISSING}"), *[NONE] * (4 + len(grid().seeds))]
    by_seed = dict(zip(cell.seeds, cell.values["late"], strict=True))
    seeds = [fourth(by_seed[seed]) if seed in by_seed else Cell(MISSING) for seed in grid().seeds]
    held_out, is_winner = float(cell.values["final"].mean()), preset == row.winner
    cells = [
        Cell(", ".join(f"{key} = {cell.settings.get(key)}" for key in keys) or preset),
        fourth(score(cell)),
        *seeds,
        Cell(points(held_out), {"value": held_out}),
        Cell(f"{cell.num_collapsed}/{len(cell)}", {"value": cell.num_collapsed}),
        Cell("yes" if is_winner else "", {"chosen": is_winner}),
    ]
    return [Cell(c.text, c.values, cell.run_ids, "best" if is_winner and i == 1 else "") for i, c in enumerate(cells)]


def fourth(value: float) -> Cell:
    return Cell("–" if np.isnan(value) else f"{value:.4f}", {} if np.isnan(value) else {"value": float(value)})
