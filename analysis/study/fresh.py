"""New seeds, run once at the end: do their means fall where the study says that they will?"""

from __future__ import annotations

from dataclasses import dataclass

from analysis.exact import binomial_two_sided
from analysis.stats import LEVEL, Interval, prediction_half_width
from analysis.study.cells import Family, StudyCell, of_samples
from analysis.study.contrasts import Pair, all_pairs
from analysis.study.protocol import COMMAND, FRESH, METRIC_NOTE, METRICS
from analysis.study.tables import NO_RUNS, behind, mean_cell, pair_label
from analysis.style import label
from analysis.tables.cells import NONE, interval_values, points, signed
from analysis.tables.scores import span_cell
from analysis.tables.table import Cell, Table

NO_FRESH = f"missing: no finished runs of fresh seeds. Made by: {COMMAND.format(FRESH)}"


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of one cell in one metric: the study's mean, where the fresh seeds' mean should lie, and where it does."""

    mean: Interval
    half_width: float
    fresh: Interval

    @property
    def low(self) -> float:
        return self.mean.estimate - self.half_width

    @property
    def high(self) -> float:
        return self.mean.estimate + self.half_width

    @property
    def inside(self) -> bool:
        return self.low <= self.fresh.estimate <= self.high


def predict(cell: StudyCell, fresh: StudyCell, metric: str) -> Prediction | None:
    """None where the study has one seed only and so no spread."""
    mean = cell.mean(metric)
    if not mean.df:
        return None
    return Prediction(mean, prediction_half_width(mean, len(cell), len(fresh)), fresh.mean(metric))


def distinct(families: list[Family]) -> dict[str, tuple[str, StudyCell]]:
    """Every cell once, by preset, with its label: a cell that stands in both families is predicted once."""
    found: dict[str, tuple[str, StudyCell]] = {}
    for family in families:
        for rule, cell in family.cells.items():
            known = found.get(cell.preset)
            found[cell.preset] = (f"both: {label(rule)}" if known else family.label(rule), known[1] if known else cell)
    return found


def predictions(families: list[Family], fresh: dict[str, StudyCell]) -> dict[str, dict[str, Prediction]]:
    """By metric and preset, of the cells that have both."""
    cells = {preset: cell for preset, (_, cell) in distinct(families).items() if preset in fresh}
    made = {metric: {p: predict(cell, fresh[p], metric) for p, cell in cells.items()} for metric in METRICS}
    return {metric: {preset: one for preset, one in of.items() if one} for metric, of in made.items()}


@dataclass(frozen=True)
class Hits:
    inside: int
    total: int

    @property
    def p(self) -> float:
        return binomial_two_sided(self.inside, self.total, LEVEL)

    @property
    def text(self) -> str:
        return f"{self.inside} of {self.total}, p = {self.p:.2g}"


def hits(found: list[Prediction]) -> Hits:
    return Hits(sum(one.inside for one in found), len(found))


def table_fresh(families: list[Family], fresh: dict[str, StudyCell]) -> Table:
    made, cells = predictions(families, fresh), distinct(families)
    parts = ("study", "prediction", "fresh seeds", "inside")
    columns = [f"{text}: {part}" for text, _ in METRICS.values() for part in parts]
    lines = [(text, fresh_cells(cell, fresh[preset], made, preset)) for preset, (text, cell) in cells.items() if preset in fresh]
    totals = {metric: hits(list(of.values())) for metric, of in made.items()}
    if lines:
        lines.append(("all", [cell for metric in METRICS for cell in (NONE, NONE, NONE, hits_cell(totals[metric]))]))
    table = ("table_fresh", "Fresh seeds against the study's predictions", columns, lines)
    return Table(*table, fresh_notes(families, fresh, made), corner="cell")


def fresh_notes(families: list[Family], fresh: dict[str, StudyCell], made: dict[str, dict[str, Prediction]]) -> list[str]:
    if not any(family.cells for family in families):
        return [NO_RUNS]
    if not fresh:
        return [NO_FRESH]
    both = hits([one for of in made.values() for one in of.values()])
    notes = [
        f"{METRIC_NOTE} Prediction: mean ± t · s · √(1/n + 1/m) for the mean of m fresh seeds, at 95 %, n and s of the study.",
        f"Inside, both metrics: {both.text} (two-sided, exact binomial, against 0.95). Cells that share seeds, and the two "
        "metrics of one run, are not independent; the p is read with that in mind.",
    ]
    absent = [text for preset, (text, _) in distinct(families).items() if preset not in fresh]
    return notes + ([f"No fresh runs yet: {', '.join(absent)}."] if absent else [])


def fresh_cells(cell: StudyCell, fresh: StudyCell, made: dict[str, dict[str, Prediction]], preset: str) -> list[Cell]:
    cells = [part for metric in METRICS for part in prediction_cells(cell, fresh, metric, made[metric].get(preset))]
    return behind(cells, cell.run_ids + fresh.run_ids)


def prediction_cells(cell: StudyCell, fresh: StudyCell, metric: str, one: Prediction | None) -> list[Cell]:
    study, new = mean_cell(cell.mean(metric)), fresh.mean(metric)
    fresh_cell = Cell(points(new.estimate), interval_values(new))
    if one is None:
        return [study, NONE, fresh_cell, NONE]
    return [study, span_cell(one.low, one.high), fresh_cell, Cell("yes" if one.inside else "NO", {"inside": one.inside})]


def hits_cell(found: Hits) -> Cell:
    return Cell(found.text, {"inside": found.inside, "total": found.total, "p": found.p})


@dataclass(frozen=True, eq=False)
class Sign:
    """A pair that the study tells apart, and the fresh seeds' difference; None where a cell has none."""

    pair: Pair
    fresh: Interval | None
    run_ids: list[str]

    @property
    def kept(self) -> bool:
        return self.fresh is not None and self.fresh.estimate * self.pair.gap.estimate > 0


def signs(families: list[Family], fresh: dict[str, StudyCell]) -> list[Sign]:
    found = []
    for pair in all_pairs(families):
        if pair.told_apart:
            new = [fresh[cell.preset] for cell in pair.cells if cell.preset in fresh]
            gap = of_samples(*(cell.values[pair.metric] for cell in new)) if len(new) == 2 else None
            found.append(Sign(pair, gap, pair.run_ids + [run_id for cell in new for run_id in cell.run_ids]))
    return found


def table_fresh_pairs(families: list[Family], fresh: dict[str, StudyCell]) -> Table:
    """Of the pairs that the study tells apart: does the difference keep its sign?"""
    found = signs(families, fresh) if fresh else []
    lines = [(pair_label(one.pair), sign_cells(one)) for one in found]
    known = [one for one in found if one.fresh is not None]
    notes = [f"{METRIC_NOTE} Sign kept: {sum(one.kept for one in known)} of {len(known)} pairs that the study tells apart."]
    if not fresh:
        notes = [NO_FRESH]
    elif not found:
        notes = ["missing: the study tells no pair apart."]
    columns = ["study", "fresh seeds", "fresh seeds, 95 %", "sign kept"]
    return Table("table_fresh_pairs", "Pairs told apart, on fresh seeds", columns, lines, notes, corner="pair")


def sign_cells(one: Sign) -> list[Cell]:
    study = Cell(signed(one.pair.gap.estimate), {"mean": one.pair.gap.estimate})
    if one.fresh is None:
        return behind([study, NONE, NONE, NONE], one.run_ids)
    new = Cell(signed(one.fresh.estimate), interval_values(one.fresh))
    kept = Cell("yes" if one.kept else "NO", {"kept": one.kept})
    return behind([study, new, span_cell(one.fresh.low, one.fresh.high, signed), kept], one.run_ids)
