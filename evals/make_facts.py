"""Write the shipped facts of a benchmark (evals/data/NAME.jsonl) from a trusted copy: python -m evals.make_facts NAME FILE."""

import json
import sys
from pathlib import Path

from evals.benchmarks import sketch
from evals.problems import read_rows, text_hash


def fact_line(problem, with_sketch: bool) -> str:
    """Facts only: id, answer and hashes; the text can't be had back from them."""
    fact = {"id": problem.id, "answer": problem.answer, "text_hash": text_hash(problem.text)}
    return json.dumps(fact | ({"sketch": sketch(problem.text)} if with_sketch else {}))


def main(name: str, file: str) -> None:
    problems = read_rows(file)
    lines = [fact_line(problem, with_sketch=len(problems) <= 100) for problem in problems]
    (Path(__file__).parent / "data" / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
