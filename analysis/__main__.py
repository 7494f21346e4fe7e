"""The command `python -m analysis`: makes tables, figures, a verdict and report.html from run folders.

python -m analysis runs --out results
python -m analysis runs --out results --only table1,fig4 --format png
python -m analysis serve runs        report.html in the browser, made again while runs go on
python -m analysis power runs        how many seeds a difference needs
python -m analysis diff runs_a runs_b               two sweeps side by side
python -m analysis pack runs         finished runs as small files to commit; `unpack` makes folders of them
python -m analysis --study --out results/study      the study's tables and figures from its packs in docs/study
"""

from __future__ import annotations

import os
import sys

from analysis import diff, packs, power, serve
from analysis.figures import FIGURES
from analysis.load import load
from analysis.options import parse
from analysis.output import Output
from analysis.publish import publish
from analysis.report import report
from analysis.results import analyse
from analysis.runs import InputError
from analysis.study import command as study
from analysis.tables import TABLES
from analysis.verdict import verdict
from harness.files import WriteError

COMMANDS = {
    "power": power.main,
    "diff": diff.main,
    "serve": serve.main,
    "pack": packs.pack_main,
    "unpack": packs.unpack_main,
}


def main(argv: list[str]) -> None:
    if "--study" in argv:
        return study.main([word for word in argv if word != "--study"])
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]](argv[1:])
    options = parse(argv, [*TABLES, *FIGURES, "report"])
    sweep = load(options.roots, cache=options.out / ".cache", allow_mixed=options.allow_mixed)
    results = analyse(sweep, options.select, options.t_stop, options.paper)
    output = Output(options.out, options.formats)
    publish(results, output, options.chosen)
    if options.chosen(["report"]):
        output.page("report.html", report(results))
    print(verdict(results), output.summary(), sep="\n", end="")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without ± or ü is no reason to fail
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except InputError as error:
        sys.exit(f"analysis: {error}")
    except WriteError as error:
        sys.exit(f"analysis: {error.what}: make room there, or give another --out")
    except BrokenPipeError:  # the reader (head, less) has seen enough; Python would complain once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit("analysis: stopped")
