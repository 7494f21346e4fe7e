"""Compares fresh seeds, run once at the end, with the study: are their means inside its prediction intervals, are signs kept?"""

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
    """One cell in one metric: the study's mean, the interval mean ± half_width predicted for the mean of the fresh seeds, and
    their mean."""

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
    """The prediction for a cell; None if the study has one seed of it and so no spread."""
    mean = cell.mean(metric)
    if not mean.df:
        return None
    return Prediction(mean, prediction_half_width(mean, len(cell), len(fresh)), fresh.mean(metric))


def distinct(families: list[Family]) -> dict[str, tuple[str, StudyCell]]:
    """(label, cell) by preset. A cell that stands in both families comes once, as it is one prediction."""
    by_preset: dict[str, tuple[str, StudyCell]] = {}
    for family in families:
        for rule, cell in family.cells.items():
            known = by_preset.get(cell.preset)
            by_preset[cell.preset] = (f"both: {label(rule)}" if known else family.label(rule), known[1] if known else cell)
    return by_preset


def predictions(families: list[Family], fresh: dict[str, StudyCell]) -> dict[str, dict[str, Prediction]]:
    """{metric: {preset: prediction}} for the cells that have fresh runs, and of which the study has two seeds or more."""
    cells = {preset: cell for preset, (_, cell) in distinct(families).items() if preset in fresh}
    made = {metric: {preset: predict(cell, fresh[preset], metric) for preset, cell in cells.items()} for metric in METRICS}
    return {metric: {preset: known for preset, known in by_preset.items() if known} for metric, by_preset in made.items()}


@dataclass(frozen=True)
class Hits:
    """Number of fresh means inside their prediction intervals. p: exact binomial, two-sided, against a share of 0.95."""

    inside: int
    total: int

    @property
    def p(self) -> float:
        return binomial_two_sided(self.inside, self.total, LEVEL)

    @property
    def text(self) -> str:
        return f"{self.inside} of {self.total}, p = {self.p:.2g}"


def hits(predictions: list[Prediction]) -> Hits:
    return Hits(sum(prediction.inside for prediction in predictions), len(predictions))


def table_fresh(families: list[Family], fresh: dict[str, StudyCell]) -> Table:
    made, cells = predictions(families, fresh), distinct(families)
    parts = ("study", "prediction", "fresh seeds", "inside")
    columns = [f"{text}: {part}" for text, _ in METRICS.values() for part in parts]
    lines = [(text, fresh_cells(cell, fresh[preset], made, preset)) for preset, (text, cell) in cells.items() if preset in fresh]
    totals = {metric: hits(list(by_preset.values())) for metric, by_preset in made.items()}
    if lines:
        lines.append(("all", [cell for metric in METRICS for cell in (NONE, NONE, NONE, hits_cell(totals[metric]))]))
    table = ("table_fresh", "Fresh seeds against the study's predictions", columns, lines)
    return Table(*table, fresh_notes(families, fresh, made), corner="cell")


def fresh_notes(families: list[Family], fresh: dict[str, StudyCell], made: dict[str, dict[str, Prediction]]) -> list[str]:
    if not any(family.cells for family in families):
        return [NO_RUNS]
    if not fresh:
        return [NO_FRESH]
    both = hits([prediction for by_preset in made.values() for prediction in by_preset.values()])
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


def prediction_cells(cell: StudyCell, fresh: StudyCell, metric: str, prediction: Prediction | None) -> list[Cell]:
    study, new = mean_cell(cell.mean(metric)), fresh.mean(metric)
    fresh_cell = Cell(points(new.estimate), interval_values(new))
    if prediction is None:
        return [study, NONE, fresh_cell, NONE]
    inside = Cell("yes" if prediction.inside else "NO", {"inside": prediction.inside})
    return [study, span_cell(prediction.low, prediction.high), fresh_cell, inside]


def hits_cell(hits: Hits) -> Cell:
    return Cell(hits.text, {"inside": hits.inside, "total": hits.total, "p": hits.p})


@dataclass(frozen=True, eq=False)
class Sign:
    """A pair that the study tells apart, and its difference on fresh seeds: None if a cell of the pair has no fresh runs."""

    pair: Pair
    fresh: Interval | None
    run_ids: list[str]

    @property
    def kept(self) -> bool:
        return self.fresh is not None and self.fresh.estimate * self.pair.gap.estimate > 0


def signs(families: list[Family], fresh: dict[str, StudyCell]) -> list[Sign]:
    compared = []
    for pair in all_pairs(families):
        if pair.told_apart:
            new = [fresh[cell.preset] for cell in pair.cells if cell.preset in fresh]
            gap = of_samples(*(cell.values[pair.metric] for cell in new)) if len(new) == 2 else None
            compared.append(Sign(pair, gap, pair.run_ids + [run_id for cell in new for run_id in cell.run_ids]))
    return compared


def table_fresh_pairs(families: list[Family], fresh: dict[str, StudyCell]) -> Table:
    """The pairs that the study tells apart: does their difference keep its sign on fresh seeds?"""
    compared = signs(families, fresh) if fresh else []
    lines = [(pair_label(sign.pair), sign_cells(sign)) for sign in compared]
    known = [sign for sign in compared if sign.fresh is not None]
    notes = [f"{METRIC_NOTE} Sign kept: {sum(sign.kept for sign in known)} of {len(known)} pairs that the study tells apart."]
    if not fresh:
        notes = [NO_FRESH]
    elif not compared:
        notes = ["missing: the study tells no pair apart."]
    columns = ["study", "fresh seeds", "fresh seeds, 95 %", "sign kept"]
    return Table("table_fresh_pairs", "Pairs told apart, on fresh seeds", columns, lines, notes, corner="pair")


def sign_cells(sign: Sign) -> list[Cell]:
    study = Cell(signed(sign.pair.gap.estimate), {"mean": sign.pair.gap.estimate})
    if sign.fresh is None:
        return behind([study, NONE, NONE, NONE], sign.run_ids)
    new = Cell(signed(sign.fresh.estimate), interval_values(sign.fresh))
    kept = Cell("yes" if sign.kept else "NO", {"kept": sign.kept})
    return behind([study, new, span_cell(sign.fresh.low, sign.fresh.high, signed), kept], sign.run_ids)
