"""Writes the tables and figures of some results, their verdict and their index into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from analysis.figures import FIGURES
from analysis.output import Output
from analysis.progress import progress
from analysis.results import Results
from analysis.tables import TABLES
from analysis.verdict import verdict

Choose = Callable[[Iterable[str]], list[str]]


def publish(results: Results, output: Output, chosen: Choose = list) -> None:
    """`chosen`: the names to write, of all that are offered to it (default: all). Verdict and index are always written."""
    for name in progress(chosen(TABLES), "tables"):
        output.table(TABLES[name](results))
    for name in progress(chosen(FIGURES), "figures"):
        output.figure(name, FIGURES[name](results), results.warning)
    output.page("verdict.md", verdict(results))
    output.index(results.warning)
