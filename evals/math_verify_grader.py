"""math-verify in a process of its own, with a deadline for each answer."""

import json
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from evals.grader import Grader, kept, unanswered
from evals.integers import plain_characters, read_integer
from evals.markers import Marker, find_marker
from evals.records import Grade

WORKER = Path(__file__).with_name("math_verify_worker.py")
MAX_ANSWER = 1000
START_SECONDS = 120
_TAIL = "\\.,;:。 "  # full stops and LaTeX spaces
_SPACING = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;:! ]")
_FREE_SPACE = re.compile(r"(?<!\w) | (?!\w)")  # "2 04" is not 204
_OUTCOMES = {
    "correct": ("correct", ""),
    "wrong": ("wrong", ""),
    "unreadable": ("no_answer", "unreadable"),
    "died": ("grader_timeout", "died"),  # out of memory, say
    None: ("grader_timeout", "deadline"),
}


class Worker:
    """One running worker process. Its first line says that it is ready."""

    def __init__(self):
        # -P keeps this package's folder off the module path. A fixed hash seed makes set orders, hence verdicts, repeat.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.ready = False

    def wait_ready(self) -> None:
        if not self.ready and self.receive(START_SECONDS) != "ready":
            raise RuntimeError(f"the math-verify worker did not start; run {sys.executable} -P {WORKER} to see why")
        self.ready = True

    def send(self, gold: str, answer: str) -> None:
        with suppress(BrokenPipeError):  # a dead worker is told by `receive`
            self.process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            self.process.stdin.flush()

    def receive(self, seconds: float) -> str | None:
        """The next answer; None if it does not come in time, "died" if the process ended."""
        if not self.selector.select(seconds):
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else "died"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.selector.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class MathVerifyGrader(Grader):
    """Compares what the deciding marker holds with the gold by math-verify 0.9; two integers, or texts equal but for
    spacing, need no process.

    The worker starts with the first answer that needs it and is killed when an answer takes `deadline` seconds; its
    successor starts while the deadline still runs, so that a bomb costs the deadline and no more. Not for several threads.
    """

    name = "math_verify"
    version = "math_verify/1"

    def __init__(self, deadline: float = 2.0):
        self.deadline = deadline
        self._worker: Worker | None = None
        self._spare: Worker | None = None

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        known: dict[tuple[str, str], Grade] = {}  # the samples of a problem often state the same
        return [self._grade(known, *one) for one in zip(responses, answers, truncated, strict=True)]

    def _grade(self, known: dict[tuple[str, str], Grade], response: str, answer: str, truncated: bool) -> Grade:
        marker = find_marker(response)
        stated = _stated(marker)
        if not stated:
            return unanswered(marker, truncated)
        if (answer, stated) not in known:
            known[answer, stated] = self._verify(answer.strip(), stated)
        grade = known[answer, stated]
        if truncated and not (grade.correct and marker.complete):
            return Grade("truncated", grade.extracted)
        return grade

    def _verify(self, gold: str, stated: str) -> Grade:
        integers = read_integer(gold), read_integer(stated)
        same = _compact(gold) == _compact(stated)
        if same or None not in integers:
            return Grade("correct" if same or integers[0] == integers[1] else "wrong", kept(stated))
        if len(stated) > MAX_ANSWER:
            return Grade("wrong", kept(stated), "too_long")
        result = self._ask(gold, stated)
        if result == "bad_gold":
            raise ValueError(f"math-verify cannot read the gold answer {gold[:100]!r}: correct the data, or use another grader")
        verdict, reason = _OUTCOMES[result]
        return Grade(verdict, kept(stated), reason)

    def _ask(self, gold: str, stated: str) -> str | None:
        self._take_worker()
        start = time.monotonic()
        self._worker.send(gold, stated)
        result = self._worker.receive(self.deadline / 4)
        if result is None:
            self._spare = self._spare or Worker()
            result = self._worker.receive(max(0.0, start + self.deadline - time.monotonic()))
        if result in (None, "died"):
            self._worker.kill()
            self._worker = None
        return result

    def _take_worker(self) -> None:
        """Make `_worker` a running, loaded one: itself, else the spare, else a new one."""
        if self._worker and self._worker.process.poll() is not None:
            self._worker.kill()
            self._worker = None
        if self._worker is None:
            self._worker, self._spare = self._spare or Worker(), None
        self._worker.wait_ready()

    def close(self) -> None:
        for worker in filter(None, (self._worker, self._spare)):
            worker.kill()
        self._worker = self._spare = None

    def __del__(self):
        self.close()


def _stated(marker: Marker | None) -> str:
    r"""What is compared: the marker's content without the dress around it. "$\frac12$." is \frac12."""
    stated = plain_characters(marker.stated if marker else "").strip("*_` ").rstrip(_TAIL)
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if len(stated) > len(left + right) and stated.startswith(left) and stated.endswith(right):
            stated = stated.removeprefix(left).removesuffix(right)
    return stated.strip("$ ").rstrip(_TAIL)


def _compact(latex: str) -> str:
    """The LaTeX without spacing and size commands: what prints the same but for its spacing is equal."""
    spaced = " ".join(_SPACING.sub(" ", latex.rstrip(_TAIL)).split())
    return _FREE_SPACE.sub("", spaced).replace("dfrac", "frac").replace("tfrac", "frac")
