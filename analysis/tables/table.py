"""Tables as data, and functions that write them as Markdown, LaTeX (booktabs) and CSV. A JSON file beside each, the sidecar,
names the runs that each cell comes from."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

from analysis.runs import Run


@dataclass(frozen=True)
class Cell:
    """`text` as shown; `values` unrounded, for CSV and JSON; `run_ids`: the runs behind it. emphasis: "", "best" or "second"."""

    text: str
    values: dict = field(default_factory=dict)
    run_ids: list[str] = field(default_factory=list)
    emphasis: str = ""


@dataclass(frozen=True)
class Table:
    name: str  # of its files, without an ending
    title: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]  # (label, one cell for each column)
    notes: list[str] = field(default_factory=list)
    corner: str = "method"  # header of the column of labels
    warning: str = ""  # printed in red above everything: the runs mix settings


def ids(runs: list[Run]) -> list[str]:
    return [run.run_id for run in runs]


def red(text: str) -> str:
    """Bold Markdown, in red where HTML is allowed in it."""
    return f'<span style="color:red">**{text}**</span>'


def markdown(table: Table) -> str:
    wrap = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
    escape = lambda text: one_line(text).replace("|", "\\|")
    lines = [f"# {table.title}", ""]
    if table.warning:
        lines += [red(table.warning), ""]
    lines += ["| " + " | ".join([table.corner, *map(escape, table.columns)]) + " |", "|---" * (len(table.columns) + 1) + "|"]
    for label, cells in table.rows:
        lines.append(
            "| " + " | ".join([escape(label), *(wrap[cell.emphasis].format(escape(cell.text)) for cell in cells)]) + " |"
        )
    return "\n".join(lines + [""] + [f"{note}  " for note in table.notes]) + "\n"


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "†": r"$\dagger$", "‡": r"$\ddagger$", "–": "--",
    "−": r"$-$", "×": r"$\times$", "≥": r"$\ge$", "≤": r"$\le$", "δ": r"$\delta$", "→": r"$\rightarrow$", "·": r"$\cdot$",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", "…": r"\ldots{}", "ρ": r"$\rho$", "σ": r"$\sigma$", "∧": r"$\wedge$", "—": "---",
    "≈": r"$\approx$", "π": r"$\pi$", "μ": r"$\mu$",
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Escaped text. Characters that LaTeX may not know become their code points, so that a table compiles for any run's name."""
    known = lambda c: LATEX.get(c) or (c if ord(c) < 256 else f"[U+{ord(c):04X}]")
    return "".join(map(known, one_line(text)))


def row_start(text: str) -> str:
    """The row, with {} before a bracket or a star: after the \\\\ of the row before, LaTeX would take these for its argument."""
    return "{}" + text if text[:1] in ("[", "*") else text


def one_line(text: str) -> str:
    """The text without line breaks, which an error's message may have and a table's row may not."""
    return " ".join(text.splitlines())


def latex(table: Table) -> str:
    """A complete table environment; the preamble needs booktabs (and xcolor when the runs mix settings)."""
    wrap = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
    head = " & ".join(map(latex_escape, [table.corner, *table.columns])) + r" \\"
    wrapped = lambda cell: wrap[cell.emphasis].format(latex_escape(cell.text))
    body = [row_start(" & ".join([latex_escape(label), *map(wrapped, cells)])) + r" \\" for label, cells in table.rows]
    notes = r"\par ".join(map(latex_escape, table.notes))
    warning = [r"\textcolor{red}{" + latex_escape(table.warning) + r"}\par"] if table.warning else []
    return "\n".join(
        ["% needs \\usepackage{booktabs}" + (" and \\usepackage{xcolor}" if warning else ""), r"\begin{table}", r"\centering"]
        + [r"\caption{" + latex_escape(table.title) + "}", rf"\label{{tab:{table.name}}}", *warning]
        + [r"\begin{tabular}{l" + "r" * len(table.columns) + "}", r"\toprule", head, r"\midrule", *body]
        + [r"\bottomrule", r"\end{tabular}", r"\par\smallskip\footnotesize", notes, r"\end{table}", ""]
    )


def as_csv(table: Table) -> str:
    """The table in long form: one line per cell, with its unrounded numbers."""
    keys = list(dict.fromkeys(key for _, cells in table.rows for cell in cells for key in cell.values))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if table.warning:
        writer.writerow([f"# {table.warning}"])
    writer.writerow([table.corner, "column", *keys, "text"])
    for label, cells in table.rows:
        for column, cell in zip(table.columns, cells, strict=True):
            writer.writerow([label, column, *(cell.values.get(key, "") for key in keys), cell.text])
    return out.getvalue()


def sidecar(table: Table) -> dict:
    """The content of the table's JSON file: {"title", "warning", "notes", "cells": [{row, column, text, values, run_ids}]}."""
    cells = [
        {"row": label, "column": column, "text": cell.text, "values": cell.values, "run_ids": cell.run_ids}
        for label, row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
    ]
    return {"title": table.title, "warning": table.warning, "notes": table.notes, "cells": cells}


WRITERS = {"md": markdown, "tex": latex, "csv": as_csv}
