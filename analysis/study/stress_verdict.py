"""Verdict on the stress map, in words: no more than two seeds can show, by the protocol in docs/study.md."""

from __future__ import annotations

import numpy as np

from analysis.study.cells import StudyCell, share_text
from analysis.study.protocol import COMMAND, STRESS
from analysis.study.stress import AXES, NO_STRESS, Axis, Place, StressMap
from analysis.tables.cells import signed
from analysis.verdict import join


def stress_texts(stress: StressMap) -> list[str]:
    """Which rules break and collapse anywhere, then a paragraph for each axis, then the missing runs."""
    if not stress.presets:
        return [NO_STRESS]
    parts = [stress_breaks(stress), stress_collapses(stress), how_to_read(stress)]
    return [*parts, *(axis_text(stress, axis) for axis in AXES), *absent(stress)]


def how_to_read(stress: StressMap) -> str:
    # P equal rules and S seeds: one of the rules loses most in every seed with chance P · P^−S
    one_in = len(stress.presets) ** (len(stress.seeds) - 1)
    gone = [stress.texts[preset] for preset, cell in stress.default.items() if cell.num_collapsed == len(cell)]
    parts = [
        "Below, by axis: the change of each rule's late reward from its own at the default, in points, largest loss first, mean "
        "and each seed. Two seeds carry no test of a pair: were all rules alike, some rule would still lose most in every seed "
        f"at one level in {one_in}. With other operations, the rewards are of other problems."
    ]
    parts += [f"Every run of {join(gone)} collapsed at the default already."] if gone else []
    return " ".join(parts)


def stress_breaks(stress: StressMap) -> str:
    by_preset = {preset: [place for place in stress.away if stress.breaks(place, preset)] for preset in stress.presets}
    texts = [f"{stress.texts[preset]} at {join(map(' '.join, places))}" for preset, places in by_preset.items() if places]
    listed = f"{'; '.join(texts)}; no other rule." if texts else "no rule anywhere."
    return f"Breaks (both runs collapse there, none at the default): {listed}"


def stress_collapses(stress: StressMap) -> str:
    """Collapsed runs at the default, and of each rule over all other points together, with the exact interval of the share."""
    away = {preset: [cells[preset] for cells in stress.away.values() if preset in cells] for preset in stress.presets}
    texts = [f"{stress.texts[preset]} {pooled(cells)}" for preset, cells in away.items() if cells]
    default = f"At the default {collapsed(stress, stress.default)}." if stress.default else "The default is missing."
    return f"Collapsed runs. {default} Away from it, all points together: {join(texts)}."


def pooled(cells: list[StudyCell]) -> str:
    return share_text(sum(cell.num_collapsed for cell in cells), sum(map(len, cells)))


def collapsed(stress: StressMap, cells: dict[str, StudyCell]) -> str:
    """Collapsed runs of these cells, together and by rule, such as: 3/14 (5 to 51 %): CISPO 2/2 and PG-IS 1/2"""
    hit = [f"{stress.texts[preset]} {cell.num_collapsed}/{len(cell)}" for preset, cell in cells.items() if cell.num_collapsed]
    return pooled(list(cells.values())) + (f": {join(hit)}" if hit else "")


def axis_text(stress: StressMap, axis: Axis) -> str:
    places = [(axis.name, text) for value, text in axis.levels.items() if value != axis.default]
    lines = [f"- {place[1]}: {level_text(stress, place)}" for place in places]
    return f"**{axis.name.capitalize()}**, {axis.default_place[1]} at the default:\n\n" + "\n".join(lines)


def level_text(stress: StressMap, place: Place) -> str:
    cells = stress.cells[place]
    if not cells:
        return "missing."
    moved = {preset: change for preset in cells if len(change := stress.changes(place, preset))}
    texts = [
        f"{stress.texts[preset]} {signed(moved[preset].mean())} ({join(map(signed, moved[preset]))})"
        for preset in sorted(moved, key=lambda preset: moved[preset].mean())
    ]
    first = loses_most(moved, len(stress.seeds))
    most = f" {stress.texts[first]} loses most in every seed." if first else ""
    return f"{join(texts) if texts else 'no change is known'}.{most} Collapsed {collapsed(stress, cells)}."


def loses_most(moved: dict[str, np.ndarray], num_seeds: int) -> str | None:
    """The rule that has the largest loss in every seed; None if no rule has. Only rules with all seeds are compared, and
    there must be two such rules and two seeds. `moved`: by preset its changes [seeds], as `StressMap.changes`."""
    full = {preset: change for preset, change in moved.items() if len(change) == num_seeds > 1}
    lowest = {min(full, key=lambda preset: full[preset][i]) for i in range(num_seeds)} if len(full) > 1 else set()
    return next((preset for preset in lowest if len(lowest) == 1 and max(full[preset]) < 0), None)


def absent(stress: StressMap) -> list[str]:
    """A line that counts the missing runs at each point: those of every rule and seed that any point has. Empty without any."""
    points = {"the default": stress.default} | {" ".join(place): cells for place, cells in stress.away.items()}
    every = len(stress.presets) * len(stress.seeds)
    short = {text: every - sum(map(len, cells.values())) for text, cells in points.items()}
    listed = join(f"{text} ({number} of {every})" for text, number in short.items() if number)
    return [f"Missing runs: {listed}. Made by: {COMMAND.format(STRESS)}"] if listed else []
