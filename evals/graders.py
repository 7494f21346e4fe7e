"""Graders: from a response and a gold answer to a verdict. The verdict rules are written out in docs/evaluation.md.

Training reward and evaluation share them. All are deterministic and keep no state between responses.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from evals.integers import has_digit, read_integer
from evals.markers import Marker, find_marker
from evals.records import VERDICTS, Grade

__all__ = ["GRADERS", "VERDICTS", "Grade", "Grader", "make_grader"]

MAX_KEPT = 200


class Grader:
    """A grader has a name, a version (`name/n`, raised whenever a verdict may change) and `grade_many`; use as a context."""

    name: str
    version: str

    def grade(self, response: str, answer: str, truncated: bool = False) -> Grade:
        """Grade one response. `truncated`: it was cut at the token limit."""
        return self.grade_many([response], [answer], [truncated])[0]

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        """One grade for each response, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the grader holds; it may be used again."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class SingleGrader(Grader):
    """A grader that is a function of one response, (response, answer, truncated) -> Grade."""

    def __init__(self, name: str, number: int, grade: Callable[[str, str, bool], Grade]):
        self.name, self.version, self._grade = name, f"{name}/{number}", grade

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        return [self._grade(*one) for one in zip(responses, answers, truncated, strict=True)]


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
    marker = find_marker(response)
    if marker is None or not has_digit(marker.stated):
        return unanswered(marker, truncated)
    extracted = read_integer(marker.stated)
    correct = extracted == gold_integer(answer)
    if truncated and not (correct and marker.complete):
        return Grade("truncated", kept(extracted or marker.stated))
    if extracted is None:
        return Grade("wrong", kept(marker.stated), "not_an_integer")
    return Grade("correct" if correct else "wrong", kept(extracted))


def unanswered(marker: Marker | None, truncated: bool) -> Grade:
    """The grade of a response that states no answer: no_marker, empty (nothing behind the marker) or no_digit."""
    stated = marker.stated if marker else ""
    reason = "no_digit" if stated else "empty" if marker else "no_marker"
    return Grade("truncated" if truncated else "no_answer", kept(stated) if stated else None, reason)


def kept(text: str) -> str:
    """What is stored of an extracted answer: at most MAX_KEPT characters."""
    return text if len(text) <= MAX_KEPT else text[: MAX_KEPT - 1] + "…"


@lru_cache(4096)
def gold_integer(answer: str) -> str:
    """The gold as canonical digits. A gold that is no integer is the data's fault and never a wrong answer."""
    gold = read_integer(answer)
    if gold is None:
        raise ValueError(f"the gold answer {answer[:100]!r} is not an integer: use grader=math_verify for this data")
    return gold


def _integer() -> Grader:
    return SingleGrader("integer", 1, grade_integer)


def _math_verify() -> Grader:
    from evals.math_verify_grader import MathVerifyGrader

    return MathVerifyGrader()


def _math_dapo() -> Grader:
    from evals.math_dapo import grade

    return SingleGrader("math_dapo", 1, grade)


def _chain() -> Grader:
    from evals.chain import grade

    return SingleGrader("chain", 1, grade)


GRADERS: dict[str, Callable[[], Grader]] = {
    "integer": _integer,
    "math_verify": _math_verify,
    "math_dapo": _math_dapo,
    "chain": _chain,
}


def make_grader(name: str) -> Grader:
    """A grader by name, or two of them as "integer+math_verify"."""
    first, plus, second = name.partition("+")
    unknown = {first, second} - {*GRADERS, *([] if plus else [""])}
    if unknown:
        raise ValueError(f"no grader {name!r}; choose from {', '.join(GRADERS)}, or two of them joined by +")
    return BothGrader(make_grader(first), make_grader(second)) if plus else GRADERS[first]()
