"""All tables, all figures, the verdict and the index of some results, into a folder."""

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
    for name in progress(chosen(TABLES), "tables"):
        output.table(TABLES[name](results))
    for name in progress(chosen(FIGURES), "figures"):
        output.figure(name, FIGURES[name](results), results.warning)
    output.page("verdict.md", verdict(results))
    output.index(results.warning)
