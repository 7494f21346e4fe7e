"""Measure what grading costs: `python -m benchmarks.graders [--check]`.

It prints each grader's gradings per second, without its start-up, and the CPU seconds of all its processes, on 1,000 different
answers, eight to a problem; and how much longer math-verify's batch takes when one answer is a bomb (too large to evaluate). If
HARNESS_DATA names the folder with MATH answers, the gold answers are the LaTeX ones there; otherwise they are made up. `--check`
also grades each pair by plain math-verify, and compares.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from evals.grader import Grader
from evals.graders import make_grader
from evals.integers import read_integer

NUM_ANSWERS, GROUP = 1000, 8
BOMB = "\\boxed{9^{9^{9^{9}}}}"
Pair = tuple[str, str]  # gold, answer


def made_up_golds(rng: random.Random) -> list[str]:
    shapes = ("\\frac{%d}{%d}", "%d\\sqrt{%d}", "(%d,-%d)", "[%d,%d)", "x^2-%dx+%d", "\\frac{%d\\pi}{%d}", "%d+%di", "%d^{%d}")
    return [shape % (rng.randrange(2, 40), rng.randrange(41, 90)) for shape in shapes for _ in range(40)]


def latex_golds(rng: random.Random) -> list[str]:
    folder = os.environ.get("HARNESS_DATA")
    if not folder:
        return made_up_golds(rng)
    lines = (Path(folder) / "math_train_sample.jsonl").read_text().splitlines()
    golds = sorted({json.loads(line)["answer"] for line in lines})
    return [gold for gold in golds if read_integer(gold) is None]


def other_digits(gold: str, rng: random.Random) -> str:
    return re.sub(r"\d", lambda _: str(rng.randrange(1, 10)), gold)


def pairs(golds: list[str], rng: random.Random) -> Iterator[Pair]:
    """Pairs of each gold with eight different answers: itself in other words, near misses, and answers to other problems."""
    for gold in golds:
        yield from ((gold, answer) for answer in (gold.replace("\\frac", "\\dfrac "), f"x={gold}", f"{gold}+1", f"2({gold})/2"))
        yield from ((gold, other_digits(gold, rng)) for _ in range(2))
        yield from ((gold, answer) for answer in rng.sample(golds, 2))


def problem_batches(golds: list[str], rng: random.Random) -> list[list[Pair]]:
    """Batches of NUM_ANSWERS pairs, fewer if there are too few golds; no two batches share a gold."""
    shuffled, size = rng.sample(golds, len(golds)), NUM_ANSWERS // GROUP
    return [list(pairs(shuffled[start : start + size], rng)) for start in range(0, max(len(golds) - size, 0) + 1, size)]


def cpu_seconds(grader: Grader) -> float:
    """CPU seconds so far of this process and of the grader's workers."""
    seconds = time.process_time()
    for worker in grader.pool.workers if hasattr(grader, "pool") else ():
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rsplit(")")[-1].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(grader: Grader, responses: list[str], golds: list[str]) -> tuple[float, float, list[str]]:
    """Seconds, CPU seconds (nan if a worker was killed, as its share is lost) and verdicts of one batch."""
    start, cpu = time.perf_counter(), cpu_seconds(grader)
    grades = grader.grade_many(responses, golds, [False] * len(golds))
    seconds, verdicts = time.perf_counter() - start, [grade.verdict for grade in grades]
    return seconds, math.nan if "grader_timeout" in verdicts else cpu_seconds(grader) - cpu, verdicts


def report(name: str, seconds: float, cpu: float, verdicts: list[str]) -> None:
    count = len(verdicts)
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    print(f"{name:34} {count / seconds:10,.0f} /s {1000 * cpu / count:9.3f} CPU s per 1,000   {counts}")


def batch(latex: list[Pair]) -> tuple[list[str], list[str]]:
    """(responses, golds) of the pairs."""
    return [f"\\boxed{{{answer}}}" for _, answer in latex], [gold for gold, _ in latex]


def math_verify_rates(batches: list[list[Pair]]) -> None:
    """Print the rates of batches about different problems, as in training and evaluation, then of the first batch again."""
    responses, golds = batch(batches[0])
    with make_grader("math_verify") as grader:
        start = time.perf_counter()
        grader.grade_many(["\\boxed{\\frac12}"] * 4, [f"\\frac{{{i}}}{{3}}" for i in range(1, 5)], [False] * 4)
        print(f"math_verify: start {time.perf_counter() - start:.2f} s, {grader.pool.size} workers, deadline {grader.deadline} s")
        report("math_verify, first batch", *measure(grader, responses, golds))
        for number, latex in enumerate(batches[1:], start=2):
            report(f"math_verify, batch {number}, other problems", *measure(grader, *batch(latex)))
        report("math_verify, first batch again", *measure(grader, responses, golds))
        warm = measure(grader, responses, golds)[0]  # by now only the comparisons themselves take time
        responses[500], golds[500] = BOMB, "\\frac12"
        seconds, _, verdicts = measure(grader, responses, golds)
        if verdicts[500] != "grader_timeout":
            raise SystemExit(f"the bomb was no bomb: {verdicts[500]}")
        print(f"a bomb delays that batch by {seconds - warm:.2f} s")


def check(latex: list[Pair]) -> int:
    """Number of verdicts that differ between plain math-verify and math-verify with the parts that the worker replaces."""
    from math_verify.parser import parse_latex_cached

    from evals import math_verify_worker as worker

    logging.disable(logging.CRITICAL)
    plain = [worker.judge(*pair) for pair in latex]
    worker.parse_answer.cache_clear()
    parse_latex_cached.cache_clear()
    worker.speed_up()
    differing = [pair for pair, verdict in zip(latex, plain, strict=True) if worker.judge(*pair) != verdict]
    print(f"{len(latex)} pairs by plain math-verify: {len(differing)} differ", *differing, sep="\n  ")
    return len(differing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with plain math-verify (a minute)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    golds = latex_golds(rng)
    batches = problem_batches(golds, rng)
    integers = [str(rng.randrange(1000)) for _ in range(NUM_ANSWERS * 10)]
    responses = [f"Some steps.\nAnswer: ${rng.choice((gold, '17'))}$" for gold in integers]
    for name in ("integer", "math_dapo"):
        with make_grader(name) as grader:
            report(name, *measure(grader, responses, integers))
    math_verify_rates(batches)
    return 1 if arguments.check and check(batches[0]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
