"""Run folders -> tables, figures, verdict.

python -m analysis runs --out results
python -m analysis runs/default --out results --only table1,fig4 --format png
"""

from __future__ import annotations

import sys

from analysis.figures import FIGURES
from analysis.load import load
from analysis.options import parse
from analysis.output import Output
from analysis.results import analyse
from analysis.tables import TABLES
from analysis.verdict import verdict


def main(argv: list[str]) -> None:
    options = parse(argv, [*TABLES, *FIGURES])
    output = Output(options.out, options.formats)
    sweep = load(options.roots, cache=options.out / ".cache", allow_mixed=options.allow_mixed)
    results = analyse(sweep, options.select, options.t_stop, options.paper)
    for name in options.chosen(TABLES):
        output.table(TABLES[name](results))
    for name in options.chosen(FIGURES):
        output.figure(name, FIGURES[name](results), results.warning)
    output.text("verdict.md", verdict(results))
    print(verdict(results))


if __name__ == "__main__":
    main(sys.argv[1:])
