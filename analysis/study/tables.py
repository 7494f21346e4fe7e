"""The study's own tables: cells, pairs, collapses, tuned against published."""

from __future__ import annotations

from dataclasses import replace

from analysis.exact import clopper_pearson
from analysis.runs import differing
from analysis.stats import Interval
from analysis.study.cells import Family, StudyCell, share_text
from analysis.study.contrasts import CollapsePair, Pair, Tuned, all_pairs, collapse_pairs, same_runs, tuned_gaps
from analysis.study.protocol import COMMAND, METRIC_NOTE, METRICS, STUDY, USED_BEFORE
from analysis.style import label
from analysis.tables.cells import MISSING, NONE, interval_values, plus_minus, signed
from analysis.tables.scores import p_cell, span_cell
from analysis.tables.table import Cell, Table

NO_RUNS = f"missing: no finished runs of the study. Made by: {COMMAND.format(STUDY)}"
LISTED_P = 0.1  # the table of collapses has no line for a pair with a larger p


def behind(cells: list[Cell], run_ids: list[str]) -> list[Cell]:
    """The same cells, with these runs named as those that each number comes from."""
    return [replace(cell, run_ids=run_ids) for cell in cells]


def notes_of(families: list[Family], notes: list[str]) -> list[str]:
    """The notes, and one more for each family that lacks rules; a note on the missing study alone if no family has a cell."""
    if not any(family.cells for family in families):
        return [NO_RUNS]
    return notes + [f"Missing, {family.name}: {'; '.join(family.absent)}." for family in families if family.absent]


def table_study(families: list[Family]) -> Table:
    """A row for every cell of both families: late reward, held-out score, collapses, and the first two without the used seed."""
    lines = [(family.label(rule), cell_cells(cell)) for family in families for rule, cell in family.cells.items()]
    texts = [text for text, _ in METRICS.values()]
    columns = ["seeds", *texts, "collapsed", *(f"{text}, without seed {USED_BEFORE}" for text in texts), "runs"]
    notes = [
        f"{METRIC_NOTE} Mean ± half-width of the 95 % interval over seeds (Student's t).",
        "Collapsed: by the written rule, with the exact (Clopper–Pearson) 95 % interval of the share. "
        f"Seed {USED_BEFORE} had a part in choosing the default settings.",
    ]
    return Table("table_study", "The study's cells", columns, lines, notes_of(families, notes), corner="cell")


def cell_cells(cell: StudyCell) -> list[Cell]:
    means = [mean_cell(cell.mean(metric)) for metric in METRICS]
    without = [mean_cell(cell.mean(metric, without=USED_BEFORE)) for metric in METRICS]
    note = cell.preset + (f" ({cell.note})" if cell.note else "")
    return behind([Cell(str(len(cell)), {"value": len(cell)}), *means, collapse_cell(cell), *without, Cell(note)], cell.run_ids)


def mean_cell(mean: Interval | None) -> Cell:
    return NONE if mean is None else Cell(plus_minus(mean), interval_values(mean))


def collapse_cell(cell: StudyCell) -> Cell:
    low, high = clopper_pearson(cell.num_collapsed, len(cell))
    values = {"value": cell.num_collapsed, "low": low, "high": high}
    return Cell(share_text(cell.num_collapsed, len(cell)), values)


def table_study_pairs(families: list[Family]) -> Table:
    """A row for every pair of each family, in both metrics."""
    lines = [(pair_label(pair), pair_cells(pair)) for pair in all_pairs(families)]
    columns = ["difference", "95 % alone", "95 % all pairs together", "verdict", "seeds needed"]
    notes = [
        f"{METRIC_NOTE} Welch's intervals over seeds; all pairs of a family together: by Bonferroni, in each metric.",
        "Seeds needed, for each cell: at which a true difference of the observed size, with the observed spreads, would be told "
        "apart four times in five by the same intervals.",
    ]
    return Table("table_study_pairs", "All pairs of cells", columns, lines, notes_of(families, notes), corner="pair")


def pair_label(pair: Pair) -> str:
    return f"{pair.family.name}, {METRICS[pair.metric][0]}: {label(pair.one)} − {label(pair.other)}"


def pair_cells(pair: Pair) -> list[Cell]:
    cells = [
        Cell(signed(pair.gap.estimate), {"mean": pair.gap.estimate}),
        span_cell(pair.gap.low, pair.gap.high, signed),
        span_cell(pair.low, pair.high, signed),
        Cell(pair.verdict, {"told_apart": pair.told_apart}, emphasis="best" if pair.told_apart else ""),
        NONE if pair.told_apart else seeds_cell(pair.seeds_needed),
    ]
    return behind(cells, pair.run_ids)


def seeds_cell(needed: int | None) -> Cell:
    return NONE if needed is None else Cell(f"{needed:,}", {"value": needed})


def table_study_collapse(families: list[Family]) -> Table:
    """A row for each family as a whole, and one for each pair with p ≤ LISTED_P before correction."""
    lines = [line for family in families if family.cells for line in collapse_lines(family)]
    columns = ["collapsed", "against", "p (Fisher)", "p (Holm)"]
    notes = [
        "Shares of collapsed runs, pairs by Fisher's exact test, two-sided, Holm-corrected over the family. The line of a family "
        f"holds its smallest p-values; pairs with p ≤ {LISTED_P:g} are listed. table_study has each cell's exact interval."
    ]
    return Table("table_study_collapse", "Collapses", columns, lines, notes_of(families, notes), corner="cells")


def collapse_lines(family: Family) -> list[tuple[str, list[Cell]]]:
    compared = collapse_pairs(family)
    num_collapsed, total = sum(cell.num_collapsed for cell in family.cells.values()), sum(map(len, family.cells.values()))
    smallest = [p_cell(min(ps)) for ps in ([c.p for c in compared], [c.p_holm for c in compared]) if ps] or [NONE, NONE]
    run_ids = [run_id for cell in family.cells.values() for run_id in cell.run_ids]
    whole = [Cell(f"{num_collapsed}/{total}", {"value": num_collapsed}), NONE, *smallest]
    listed = [(collapse_label(c), collapse_cells(c)) for c in compared if c.p <= LISTED_P]
    return [(f"{family.name}: all {len(compared)} pairs", behind(whole, run_ids)), *listed]


def collapse_label(c: CollapsePair) -> str:
    return f"{c.family.name}: {label(c.one)}, {label(c.other)}"


def collapse_cells(c: CollapsePair) -> list[Cell]:
    one, other = c.family.cells[c.one], c.family.cells[c.other]
    counts = [Cell(f"{cell.num_collapsed}/{len(cell)}", {"value": cell.num_collapsed}) for cell in (one, other)]
    return behind([*counts, p_cell(c.p), p_cell(c.p_holm)], one.run_ids + other.run_ids)


def table_tuned(families: list[Family]) -> Table:
    """A row for each rule of both families: tuned minus published."""
    published, tuned = families
    gaps = {metric: tuned_gaps(published, tuned, metric) for metric in METRICS}
    lines = [(label(rule), tuned_cells(published, tuned, rule, gaps)) for rule in published.cells if rule in tuned.cells]
    columns = ["changed settings", "seeds"]
    columns += [f"{text}{part}" for text, _ in METRICS.values() for part in ("", ", 95 %", ", p (Holm)")]
    notes = [f"{METRIC_NOTE} Paired by seed; Student's t. p: corrected over the rules whose settings tuning changed."]
    return Table("table_tuned", "Tuned minus published", columns, lines, notes_of(families, notes), corner="rule")


def tuned_cells(published: Family, tuned: Family, rule: str, gaps: dict[str, dict[str, Tuned]]) -> list[Cell]:
    one, other = tuned.cells[rule], published.cells[rule]
    if same_runs(published, tuned, rule):
        return behind([Cell(one.note), Cell(str(len(one))), *[NONE] * (3 * len(METRICS))], one.run_ids)
    changed = ", ".join(f"{key}: {old} → {new}" for key, (old, new) in differing([other.settings, one.settings]).items())
    common = len(set(one.seeds) & set(other.seeds))
    cells = [Cell(changed + (f" ({one.note})" if one.note else "")), Cell(str(common), {"value": common})]
    cells += [cell for metric in METRICS for cell in gap_cells(gaps[metric][rule])]
    return behind(cells, one.run_ids + other.run_ids)


def gap_cells(tuned: Tuned) -> list[Cell]:
    if tuned.gap is None:
        return [Cell(MISSING), NONE, NONE]
    gap = tuned.gap
    return [Cell(signed(gap.estimate), interval_values(gap)), span_cell(gap.low, gap.high, signed), p_cell(tuned.p_holm)]
