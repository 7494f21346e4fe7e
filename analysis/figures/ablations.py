"""Figures 5 and 6 of arXiv 2606.10968: CPPO beside variants of its settings, which are found by settings and not by names."""

from __future__ import annotations

import numpy as np

from analysis.figures.curves import score_series
from analysis.figures.paper import BAND_NOTE, SCORE, all_looks
from analysis.figures.plot import Matrix, Missing, Panel, Plot
from analysis.results import Results
from analysis.scores import SELECTION_RULES, GroupScores

BASE = "cppo"
BUDGET = {"adaptive", "delta_b", "delta_b_min", "delta_b_ceiling"}
# panel title: (settings in which a variant in this panel may differ from CPPO, methods shown beside CPPO and the variants)
FIG5 = {
    "position weight": ({"position_weights"}, ["dppo"]),
    "prefix budget": ({"prefix_budget", *BUDGET}, ["dppo"]),
    "shuffled weights": ({"position_weights", "prefix_budget"}, ["dppo"]),
}
FIG6 = {
    "w_min": ({"w_min"}, []),
    "prefix budget δ_b": (BUDGET, []),
    "divergence score": ({"divergence", "delta", "soft", *BUDGET}, []),
    "TRM Max ∧ Avg as control": (set(), ["trm"]),
}


def fig5(results: Results) -> Plot | Missing:
    """Ablations: position weight, prefix budget, shuffled weights."""
    command = "python -m harness experiment=ablation_weight; python -m harness experiment=ablation_budget"
    panels, absent = variant_panels(results, FIG5)
    return plot("Ablations of CPPO", panels, absent, list(FIG5), command)


def fig6(results: Results) -> Plot | Missing:
    """Sensitivity to w_min and δ_b, alone and together, and other scores."""
    command = "python -m harness experiment=sensitivity; python -m harness experiment=score"
    panels, absent = variant_panels(results, FIG6)
    grids = [grid for group in results.groups if (grid := settings_grid(results, group)) is not None]
    absent += [] if grids else ["w_min × δ_b,min"]
    return plot("Sensitivity of CPPO", panels + grids, absent, [*FIG6, "w_min × δ_b,min"], command)


def plot(title: str, panels: list, absent: list[str], wanted: list[str], command: str) -> Plot | Missing:
    if not panels:
        return Missing(title, "CPPO beside variants of its settings: " + ", ".join(wanted), command)
    gaps = [f"Missing panels: {', '.join(absent)}; made by: {command}."] if absent else []
    return Plot(title, panels, [BAND_NOTE, *gaps], columns=2)


def variant_panels(results: Results, wanted: dict[str, tuple[set, list[str]]]) -> tuple[list[Panel], list[str]]:
    """(panels, titles without a panel in any group). `wanted` as FIG5."""
    look, panels = all_looks(results), []
    absent = list(wanted)
    for group in results.groups:
        claimed: set[str] = set()  # a variant is shown only in the first panel that it fits
        for title, (keys, beside) in wanted.items():
            names = [name for name in explained_by(results, group, keys) if name not in claimed]
            names = names if keys else [name for name in beside if name in group.methods]
            claimed.update(names)
            if names and BASE in group.methods:
                extra = [name for name in beside if name in group.methods and name not in names]
                curves = score_series(results, group, [BASE, *extra, *names], look)
                panels.append(Panel(f"{results.group_label(group)}: {title}", "step", SCORE, curves))
                absent = [other for other in absent if other != title]
    return panels, absent


def explained_by(results: Results, group: GroupScores, keys: set[str]) -> list[str]:
    """Variants of CPPO whose settings differ from its own in one or more of these keys, and in no others."""
    return [name for name in results.variants(group, BASE) if changed(group, name) and changed(group, name) <= keys]


def settings(group: GroupScores, name: str) -> dict:
    return group.methods[name].settings


def changed(group: GroupScores, variant: str) -> set[str]:
    base, varied = settings(group, BASE), settings(group, variant)
    return {key for key in base.keys() | varied.keys() if base.get(key) != varied.get(key)}


def settings_grid(results: Results, group: GroupScores) -> Matrix | None:
    """Mean score for each w_min and δ_b,min; None unless both take several values among CPPO and its variants."""
    if BASE not in group.methods:
        return None
    names = [BASE, *explained_by(results, group, {"w_min", "delta_b_min"})]
    places = {name: (settings(group, name).get("w_min"), settings(group, name).get("delta_b_min")) for name in names}
    rows, columns = (sorted({place[i] for place in places.values()}) for i in (0, 1))
    if len(rows) < 2 or len(columns) < 2:
        return None
    values, run_ids = np.full((len(rows), len(columns)), np.nan), []
    cell_ids = [[[] for _ in columns] for _ in rows]
    for name, (w_min, least) in places.items():
        if group.methods[name].runs:
            i, j = rows.index(w_min), columns.index(least)
            values[i, j] = 100 * group.summary(group.selected(name, results.rule)).mean()
            cell_ids[i][j] = group.methods[name].run_ids
            run_ids += cell_ids[i][j]
    texts = [["" if np.isnan(value) else f"{value:.1f}" for value in row] for row in values]
    title = f"{results.group_label(group)}: points, {SELECTION_RULES[results.rule].label}"
    labels = [f"w_min {w:g}" for w in rows], [f"δ_b,min {b:g}" for b in columns]
    return Matrix(title, values, *labels, "points", run_ids, texts, cell_ids=cell_ids)
