"""math-verify in processes of its own, with a deadline for each answer."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from evals.grader import Grader, kept, unanswered
from evals.integers import read_integer
from evals.markers import Marker, find_marker
from evals.math_verify_pool import Pool, Question
from evals.records import Grade
from evals.spelling import compact, plain_latex

MAX_ANSWER = 1000
_INTEGER = re.compile(r"-?(?:\d+|[1-9]\d{0,2}(?:,(?:\\!)?\d{3})+)(?:\^\{?\\circ\}?|°)?")
_PERCENT = re.compile(r"(?:%|percent)[^\w%]*$")
_ALTERED = re.compile(  # math-verify reads \le 5, \neq 5 and 5 \text{ million} as 5
    r"^(?:[≠≤≥]|\\(?:not|neg|neq?|leq?q?|geq?q?|leqslant|geqslant|lt|gt)(?![A-Za-z]))"
    r"|(?i:\b(?:hundred|thousand|million|billion|trillion))"
)
_BASED = re.compile(r"\d+_\{?(\d{1,2})\}?")
_VERDICTS = {
    "correct": ("correct", ""),
    "wrong": ("wrong", ""),
    "unreadable": ("no_answer", "unreadable"),
    "died": ("grader_timeout", "died"),
    "deadline": ("grader_timeout", "deadline"),
}


class MathVerifyGrader(Grader):
    """Compares what the deciding marker holds with the gold by math-verify 0.9; two integers, or texts equal but for
    spacing, need no process.

    The processes start with the first answer that needs them. One that takes `deadline` seconds for an answer is killed and
    replaced while the others go on, so that a bomb costs a batch at most the deadline. Not for several threads.
    """

    name = "math_verify"
    version = "math_verify/4"

    def __init__(self, deadline: float = 2.0):
        self.deadline = deadline
        self.pool = Pool()

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        markers = [find_marker(response) for response in responses]
        stated = [plain_latex(marker.stated) if marker else "" for marker in markers]
        questions = list(zip(map(_plain_gold, answers), stated, strict=True))
        others = [_in_hundredths(*row) for row in zip(questions, answers, markers, strict=True)]
        grades = self._verify(dict.fromkeys(question for question in [*questions, *others] if question[1]))
        return [
            _graded(_better(grades.get(question), grades.get(other)), marker, cut)
            for question, other, marker, cut in zip(questions, others, markers, truncated, strict=True)
        ]

    def _verify(self, questions: Iterable[Question]) -> dict[Question, Grade]:
        """A grade for each pair of gold and stated answer, as if complete."""
        grades = {question: _without_process(*question) for question in questions}
        outcomes = self.pool.ask((question for question, grade in grades.items() if grade is None), self.deadline)
        for (gold, stated), outcome in outcomes.items():
            if outcome == "bad_gold":
                raise ValueError(
                    f"math-verify cannot read the gold answer {gold[:100]!r}: correct the data, or use another grader"
                )
            verdict, reason = _VERDICTS[outcome]
            grades[gold, stated] = Grade(verdict, kept(stated), reason)
        assert None not in grades.values()  # it would pass for an answer that was never given
        return grades

    def close(self) -> None:
        self.pool.close()


def _in_hundredths(question: Question, gold: str, marker: Marker | None) -> Question:
    r"""The question with a percentage as a share where only one of the two is one: 50\% is 50, and it is \frac12."""
    percent = bool(_PERCENT.search(gold)), bool(marker and _PERCENT.search(marker.stated))
    share = lambda text, is_percent: rf"\frac{{{text}}}{{100}}" if is_percent and text else text
    return question if percent[0] == percent[1] else (share(question[0], percent[0]), share(question[1], percent[1]))


def _better(grade: Grade | None, other: Grade | None) -> Grade | None:
    return other if other and other.correct else grade


def _graded(grade: Grade | None, marker: Marker | None, truncated: bool) -> Grade:
    if grade is None:
        return unanswered(marker, truncated)
    if truncated and not (grade.correct and marker.complete):
        return Grade("truncated", grade.extracted)
    return grade


def _without_process(gold: str, stated: str) -> Grade | None:
    """The grade where math-verify is not needed, else None."""
    integers = read_integer(gold) if _INTEGER.fullmatch(gold) else None, read_integer(stated)
    texts = compact(gold), compact(stated)
    if texts[0] == texts[1] or (integers[0] == integers[1] and integers[0]):
        return Grade("correct", kept(stated))
    if None not in integers or _other_base(*texts) or (_ALTERED.search(stated) and not _ALTERED.search(gold)):
        return Grade("wrong", kept(stated))
    return Grade("wrong", kept(stated), "too_long") if len(stated) > MAX_ANSWER else None


def _other_base(gold: str, stated: str) -> bool:
    """Whether the answer names a base that is not the gold's. math-verify ignores bases; a base left out is the gold's."""
    bases = [found[1] if (found := _BASED.fullmatch(text)) else None for text in (gold, stated)]
    return bases[1] is not None and bases[1] != (bases[0] or "10")


_plain_gold = lru_cache(4096)(plain_latex)
