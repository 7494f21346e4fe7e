"""The processes behind MathVerifyGrader, which keep math-verify's hangs out of the harness. Run as a file.

The first process loads math-verify and then only forks, so that a worker starts in milliseconds. Its standard input is a
socket of orders, 4 bytes each, answered by 4 bytes: a connection sent with the order is handed to a new worker, whose
process id is the answer; without one, the order is the id of a worker to kill. When that socket ends, all end.

A worker reads JSON lines [gold, [answer, …]] and answers each answer with a letter: c correct, w wrong, u the answer cannot
be read, g the gold cannot.
"""

import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from functools import lru_cache

import sympy.physics.units  # noqa: F401  simplifying loads it, which every worker would have to do for itself
from antlr4.atn.PredictionMode import PredictionMode
from latex2sympy2_extended import latex2sympy2
from math_verify import grader, parse, verify
from sympy import Integer, Rational, Set, SymmetricDifference

MAX_MEMORY = 2 * 2**30
ORPHAN_SECONDS = 30
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
POINT = [Rational(n, 1009) for n in (733, 1327, 1741, 2393, 541, 3067)]
APART = 1e-6
YOUNG_OBJECTS = 20_000  # before garbage is looked for: parsing makes many objects and hardly any cycles
TYPICAL = (
    "\\frac{3}{4}", "-\\frac{\\sqrt{2}}{2}", "2\\sqrt{3}+1", "(1,-2)", "(-\\infty,3)\\cup[4,\\infty)", "\\{1,2\\}", "[0,1]",
    "x^2-3x+2", "y=2x+\\frac12", "\\frac{x+1}{2}", "12\\pi", "\\begin{pmatrix}1&-2\\\\0&3\\end{pmatrix}", "0.25", "50\\%",
    "2^{10}", "1+2i", "1<x\\le5", "10!", "\\log_2 3", "\\frac{3\\pi}{4}", "(x-2)(x+3)", "f(x)=-x^2", "2,3", "\\sin^2 x",
    "e^{-1}", "\\text{even}", "1,234", "12_{8}", "90^\\circ", "\\pm 3", "|x|", "\\sqrt[3]{5}",
    "\\left(\\frac12,\\frac{\\sqrt3}{2}\\right)", "(2+0)/3", "2(x+1)/2", "\\binom{5}{2}",
)  # fmt: skip


@lru_cache(4096)
def parse_answer(text: str) -> tuple:
    """What math-verify reads in a bare LaTeX answer; its own timeouts are off, they rely on signals."""
    return tuple(parse(f"\\boxed{{{text}}}", parsing_timeout=None))


def judge(gold: str, answer: str) -> bytes:
    golds, answers = list(parse_answer(gold)), list(parse_answer(answer))
    if not golds:
        return b"g"
    if all(isinstance(answer, str) for answer in answers) and not all(isinstance(gold, str) for gold in golds):
        return b"u"  # math-verify hands back what it can't parse as text
    return b"c" if verify(golds, answers, timeout_seconds=None) else b"w"  # not symmetric: gold first


class TwoStageParser(latex2sympy2.PSParser):
    """ANTLR's quick SLL prediction first, the full one if that finds an error.

    The tree is the same. Both resolve an ambiguity to the smallest alternative; if the quick mode's choices lead to the end of
    the input (the rule `math` matches it), then none of them was one that the full mode excludes.
    """

    def math(self):
        self._input.fill()  # unknown characters are an error in both; a second lexing would start behind them
        self._interp.predictionMode = PredictionMode.SLL
        try:
            return super().math()
        except Exception:
            self.reset()
            self._interp.predictionMode = PredictionMode.LL
            return super().math()


class Converter(latex2sympy2._Latex2Sympy):
    """Reads digits as an integer directly; sympy would evaluate them as a program."""

    def parse_number(self, text):
        digits = text.replace(",", "")
        return Integer(int(digits)) if digits.isascii() and digits.isdigit() else super().parse_number(text)


def apart(gold, answer) -> bool:
    """Whether the two differ clearly in value, at one point if they hold variables: then simplifying cannot make them equal."""
    try:
        difference = gold - answer
        variables = sorted(difference.free_symbols, key=str)
        value = difference.evalf(15, subs=dict(zip(variables, POINT, strict=False)), strict=True)
        return bool(value.is_number and value.is_finite and abs(value) > APART)
    except Exception:
        return False  # a matrix, say, or digits that cancel: left to math-verify


def symmetric_difference(one: Set, other: Set) -> Set:
    """sympy's, but for a finite and an infinite set the infinite one: it is asked only whether it is empty."""
    infinite = [each for each in (one, other) if each.is_finite_set is False]
    if len(infinite) == 1 and (one.is_finite_set or other.is_finite_set):
        return infinite[0]
    return SymmetricDifference(one, other)


def speed_up() -> None:
    """Replace slow parts of math-verify by ones with the same results. `python -m benchmarks.graders --check` compares."""
    symbolic_eq = grader.sympy_symbolic_eq
    grader.sympy_symbolic_eq = lambda gold, answer: not apart(gold, answer) and symbolic_eq(gold, answer)
    latex2sympy2.PSParser = TwoStageParser
    latex2sympy2._Latex2Sympy = Converter
    Set.symmetric_difference = symmetric_difference


def answer_questions(connection: socket.socket) -> None:
    for line in connection.makefile("rb"):
        gold, answers = json.loads(line)
        for answer in answers:
            # A hung computation outlives killed parents, since it never reads the end of its input. The default action of
            # SIGALRM ends the process even inside C code.
            signal.alarm(ORPHAN_SECONDS)
            connection.sendall(judge(gold, answer))
            signal.alarm(0)


def fork_worker(connection: socket.socket, control: socket.socket) -> int:
    """Start a worker on the connection; its process id."""
    worker = os.fork()
    if not worker:
        try:
            control.close()
            answer_questions(connection)
        finally:
            os._exit(0)
    connection.close()
    return worker


def serve(control: socket.socket) -> None:
    workers = set()
    while True:
        order, connections, _, _ = socket.recv_fds(control, 4, 1)
        if not order:
            break
        if connections:
            worker = fork_worker(socket.socket(fileno=connections[0]), control)
            workers.add(worker)
        else:
            worker = int.from_bytes(order)
            workers.remove(worker)
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        control.sendall(worker.to_bytes(4))
    for worker in workers:
        os.kill(worker, signal.SIGKILL)


def main() -> None:
    for number in STOP_SIGNALS:  # they are meant for the harness, which may still want its answers
        signal.signal(number, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    sys.setrecursionlimit(5000)
    speed_up()
    for text in TYPICAL:  # the parser learns the grammar as it goes, and its forks inherit that
        judge(text, text)
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    serve(socket.socket(fileno=0))


if __name__ == "__main__":
    main()
