"""Check a copy of a benchmark, or grade a file of responses.

python -m evals verify aime24 FILE [--strict]
python -m evals grade --grader integer FILE.jsonl --out OUT.jsonl
"""

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

from evals.benchmarks import BENCHMARKS, check_copy
from evals.graders import GRADERS, Grade, make_grader
from evals.problems import json_lines, read_rows


def verify(arguments: argparse.Namespace) -> int:
    """Exit status 0: every problem is there, once or equally often, with its answer; rewordings pass unless --strict."""
    check = check_copy(arguments.name, read_rows(arguments.file))
    print("\n".join(check.lines()))
    return int(bool(check.faults or (arguments.strict and check.warnings)))


def grade(arguments: argparse.Namespace) -> int:
    """Write each row of the file with verdict, extracted, reason and the grader's version added."""
    rows = [_response_row(row, f"{arguments.file}:{number}") for number, row in json_lines(Path(arguments.file))]
    if not rows:
        raise ValueError(f"{arguments.file} holds no responses")
    columns = zip(*((row["response"], row["answer"], bool(row.get("truncated", False))) for row in rows), strict=True)
    out = Path(arguments.out)
    if not out.parent.is_dir():
        raise ValueError(f"no folder {out.parent} for --out")
    with make_grader(arguments.grader) as grader:
        grades = grader.grade_many(*columns)
    _write(out, [row | _added(one, grader.version) for row, one in zip(rows, grades, strict=True)])
    counts = Counter(one.verdict for one in grades)
    print(f"{grader.version}: {len(rows)} responses, " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()))
    return 0


def _added(grade: Grade, version: str) -> dict:
    return {"verdict": grade.verdict, "extracted": grade.extracted, "reason": grade.reason, "grader": version}


def _write(out: Path, rows: list[dict]) -> None:
    """Replace the file, which may be the one that was read, as a whole; what is no file, like /dev/stdout, is written to."""
    aside = out.with_name(f"{out.name}.partial") if out.is_file() or not out.exists() else out
    aside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if aside != out:
        os.replace(aside, out)


def _response_row(row, place: str) -> dict:
    missing = [key for key in ("id", "response", "answer") if not isinstance(row, dict) or key not in row]
    if missing:
        raise ValueError(f"{place}: no {', '.join(missing)}; each line is an object with id, response and answer")
    if not isinstance(row["response"], str) or isinstance(row["answer"], bool) or not isinstance(row["answer"], str | int):
        raise ValueError(f"{place}: response must be text, and answer text or an integer")
    if not str(row["answer"]).strip():
        raise ValueError(f"{place}: the answer is empty: no response to it could be graded")
    if row.get("truncated", False) not in (False, True):
        raise ValueError(f"{place}: truncated must be true or false, not {row['truncated']!r}")
    return row | {"answer": str(row["answer"])}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m evals", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = top.add_subparsers(required=True)
    check = commands.add_parser("verify", help="check a local copy of a benchmark against the shipped facts")
    check.add_argument("name", choices=[name for name, benchmark in BENCHMARKS.items() if not benchmark.make])
    check.add_argument("file", help=".jsonl or .parquet")
    check.add_argument("--strict", action="store_true", help="reworded problems fail as well")
    check.set_defaults(run=verify)
    marks = commands.add_parser("grade", help="add a verdict to each row of {id, response, answer[, truncated]}")
    marks.add_argument("--grader", required=True, help=f"{', '.join(GRADERS)}, or two joined by + to see where they disagree")
    marks.add_argument("file", help=".jsonl")
    marks.add_argument("--out", required=True, help=".jsonl, overwritten")
    marks.set_defaults(run=grade)
    return top


def main(arguments: list[str] | None = None) -> int:
    parsed = parser().parse_args(arguments)
    try:
        return parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
