"""The graders by name, and AIME's own. The verdict rules are written out in docs/evaluation.md.

Training reward and evaluation share them. All are deterministic and keep no state between responses.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from evals import chain, math_dapo
from evals.grader import Grader, SingleGrader, kept, unanswered
from evals.integers import has_digit, read_integer
from evals.markers import find_marker
from evals.math_verify_grader import MathVerifyGrader
from evals.records import VERDICTS, Grade

__all__ = ["GRADERS", "VERDICTS", "Grade", "Grader", "make_grader"]


class BothGrader(Grader):
    """Two graders side by side: the first one's grade where they agree on correctness, else "disagree"."""

    def __init__(self, first: Grader, second: Grader):
        self.graders = (first, second)
        self.name, self.version = f"{first.name}+{second.name}", f"{first.version}+{second.version}"

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        both = (grader.grade_many(responses, answers, truncated) for grader in self.graders)
        return [_agree(first, second) for first, second in zip(*both, strict=True)]

    def close(self) -> None:
        for grader in self.graders:
            grader.close()


def _agree(first: Grade, second: Grade) -> Grade:
    if first.correct == second.correct or "grader_timeout" in (first.verdict, second.verdict):
        return first
    return Grade("disagree", first.extracted, f"{first.verdict}_{second.verdict}")


def grade_integer(response: str, answer: str, truncated: bool = False) -> Grade:
    """AIME's rule: the deciding marker (evals/markers.py) holds exactly one integer (evals/integers.py), equal to the gold."""
    gold, marker = gold_integer(answer), find_marker(response)
    if marker is None or not has_digit(marker.stated):
        return unanswered(marker, truncated)
    extracted = read_integer(marker.stated)
    correct = extracted == gold
    if truncated and not (correct and marker.complete):
        return Grade("truncated", kept(extracted or marker.stated))
    if extracted is None:
        return Grade("wrong", kept(marker.stated), "not_an_integer")
    return Grade("correct" if correct else "wrong", kept(extracted))


@lru_cache(4096)
def gold_integer(answer: str) -> str:
    """The gold as canonical digits. A gold that is no integer is the data's fault and never a wrong answer."""
    gold = read_integer(answer)
    if gold is None:
        raise ValueError(f"the gold answer {answer[:100]!r} is not an integer: use grader=math_verify for this data")
    return gold


GRADERS: dict[str, Callable[[], Grader]] = {
    "integer": partial(SingleGrader, "integer", 4, grade_integer),
    "math_verify": MathVerifyGrader,
    "math_dapo": partial(SingleGrader, "math_dapo", 2, math_dapo.grade),
    "chain": partial(SingleGrader, "chain", 1, chain.grade),
}


def is_grader(name: str) -> bool:
    """Whether make_grader knows it: one of GRADERS, or two of them joined by +."""
    parts = name.split("+")
    return len(parts) <= 2 and set(parts) <= GRADERS.keys()


def make_grader(name: str) -> Grader:
    """A grader by name, or two of them as "integer+math_verify"."""
    first, plus, second = name.partition("+")
    if not is_grader(name):
        raise ValueError(f"no grader {name!r}; choose from {', '.join(GRADERS)}, or two of them joined by +")
    return BothGrader(make_grader(first), make_grader(second)) if plus else GRADERS[first]()
