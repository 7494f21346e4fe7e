"""Chain arithmetic, the embedded task: two-digit numbers, operations applied digit by digit modulo 10, no carry.

    prompt    47+58-21*37:                               3n + 3 characters for n operations
    response  47+58=95;95-21=74;74*37=18;#18             9n + 3 characters, then the end token

    4+5=9 and 7+8=5 (mod 10); 9−2=7 and 5−1=4; 7·3=1 and 4·7=8

Factors hold the digits 1, 3, 7, 9 only, so that every step is invertible: an error anywhere in the chain stays in the
answer. Guessing scores 1 %. With n operations there are 100·216ⁿ problems, 2·10¹¹ at n = 4.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import repeat

from evals.records import Grade, Problem

DIGITS = "0123456789"
INVERTIBLE = "1379"
OPERATIONS = "+-*"
TRAIN_OPERATIONS = range(4, 9)
LEVELS = (4, 6, 8)
LEVEL_SIZE = 256
MAX_RESPONSE_TOKENS = 90

_PROMPT = re.compile(r"\d\d(?:[+\-*]\d\d)+:")
_OPERATION = re.compile(r"([+\-*])(\d\d)")


def digit(left: int, operation: str, right: int) -> int:
    """One digit of a step, e.g. digit(7, "*", 8) = 6."""
    result = {"+": left + right, "-": left - right, "*": left * right}[operation]
    return result % 10


def step(left: str, operation: str, right: str) -> str:
    """One step on two-digit strings, e.g. step("47", "+", "58") = "95"."""
    return "".join(str(digit(int(x), operation, int(y))) for x, y in zip(left, right, strict=True))


def sample_problem(rng: random.Random, num_operations: int) -> Problem:
    """One problem, uniform over all with `num_operations` operations; its id is its text."""
    text = "".join(rng.choices(DIGITS, k=2))
    for operation in rng.choices(OPERATIONS, k=num_operations):
        text += operation + "".join(rng.choices(INVERTIBLE if operation == "*" else DIGITS, k=2))
    text += ":"
    return Problem(id=text, text=text, answer=solution(text).rpartition("#")[2], source="chain")


def is_problem(text: str) -> bool:
    return bool(_PROMPT.fullmatch(text))


def solution(problem_text: str, step: Callable[[str, str, str], str] = step) -> str:
    """The worked response without the end token. Another `step` writes other (say, faulty) chains in the same form."""
    if not is_problem(problem_text):
        raise ValueError(f"not a chain problem: {problem_text!r}; expected two-digit numbers such as '47+58-21*37:'")
    value, response = problem_text[:2], ""
    for operation, operand in _OPERATION.findall(problem_text):
        result = step(value, operation, operand)
        response += f"{value}{operation}{operand}={result};"
        value = result
    return f"{response}#{value}"


def level(num_operations: int) -> list[Problem]:
    """The 256 fixed held-out problems with this many operations (4, 6 or 8)."""
    return _level(f"chain{num_operations}", f"chain level {num_operations}", num_operations)


def tuning_level(num_operations: int) -> list[Problem]:
    """256 other fixed problems, to choose settings by; no held-out level holds any of them."""
    return _level(f"chain{num_operations}tune", f"chain tuning level {num_operations}", num_operations)


def _level(name: str, seed: str, num_operations: int) -> list[Problem]:
    if num_operations not in LEVELS:
        raise ValueError(f"no held-out level with {num_operations} operations; choose one of {LEVELS}")
    rng = random.Random(seed)
    problems = (sample_problem(rng, num_operations) for _ in range(LEVEL_SIZE))
    return [replace(problem, id=f"{name}-{i:03d}") for i, problem in enumerate(problems)]


@cache
def _level_texts() -> frozenset[str]:
    return frozenset(problem.text for num_operations in LEVELS for problem in level(num_operations))


def outside_levels(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems that no held-out level holds: what keeps training and levels disjoint by construction."""
    return (problem for problem in problems if problem.text not in _level_texts())


def training_problems(rng: random.Random, operations: range = TRAIN_OPERATIONS) -> Iterator[Problem]:
    """An endless stream outside the levels, the number of operations uniform over `operations`."""
    return outside_levels(sample_problem(rng, *rng.choices(operations)) for _ in repeat(None))


def train_problem(seed: int, index: int, operations: Sequence[int] | None = None) -> Problem:
    """Problem `index` of the training stream `seed`, computed without the ones before it. `operations`: fewest and most."""
    allowed = range(operations[0], operations[1] + 1) if operations else TRAIN_OPERATIONS
    problem = next(training_problems(random.Random(f"chain train {seed} {index}"), allowed))
    return replace(problem, id=f"chain-train-{seed}-{index}")


def grade(response: str, answer: str, truncated: bool) -> Grade:
    """Grade a response (special tokens removed). It is correct iff it ended by itself and all that follows its last `#`,
    outer spaces aside, is the answer, digit for digit: "#18;" and "#018" are wrong where "#18" is right.

    A response cut at the token limit is "truncated" whatever it says. No `#`, or no digit after the last, is "no_answer".
    """
    _, mark, tail = response.rpartition("#")
    extracted = tail.strip() if mark else ""
    if truncated:
        return Grade("truncated", extracted or None)
    if not any(character in DIGITS for character in extracted):
        return Grade("no_answer", reason="no_marker" if not mark else "no_digit")
    return Grade("correct" if extracted == answer else "wrong", extracted)
