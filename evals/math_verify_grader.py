"""math-verify in processes of its own, with a deadline for each answer."""

import re
from collections.abc import Iterable, Sequence

from evals.grader import Grader, kept, unanswered
from evals.integers import plain_characters, read_integer
from evals.markers import Marker, find_marker
from evals.math_verify_pool import Pool, Question
from evals.records import Grade

MAX_ANSWER = 1000
_TAIL = "\\.,;:。 "  # full stops and LaTeX spaces
_SPACING = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;:! ]")
_FREE_SPACE = re.compile(r"(?<!\w) | (?!\w)")  # "2 04" is not 204
_INTEGER = re.compile(r"-?(?:\d+|[1-9]\d{0,2}(?:,(?:\\!)?\d{3})+)(?:\^\{?\\circ\}?|°)?")
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
    version = "math_verify/2"

    def __init__(self, deadline: float = 2.0):
        self.deadline = deadline
        self.pool = Pool()

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        markers = [find_marker(response) for response in responses]
        questions = [(answer.strip(), _stated(marker)) for answer, marker in zip(answers, markers, strict=True)]
        grades = self._verify(dict.fromkeys(question for question in questions if question[1]))
        return [
            _graded(grades.get(question), marker, cut)
            for question, marker, cut in zip(questions, markers, truncated, strict=True)
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


def _graded(grade: Grade | None, marker: Marker | None, truncated: bool) -> Grade:
    if grade is None:
        return unanswered(marker, truncated)
    if truncated and not (grade.correct and marker.complete):
        return Grade("truncated", grade.extracted)
    return grade


def _without_process(gold: str, stated: str) -> Grade | None:
    """The grade where math-verify is not needed, else None."""
    integers = read_integer(gold) if _INTEGER.fullmatch(gold) else None, read_integer(stated)
    if _compact(gold) == _compact(stated) or (integers[0] == integers[1] and integers[0]):
        return Grade("correct", kept(stated))
    if None not in integers and "!" not in stated:  # 5! may be 120, and emphasis
        return Grade("wrong", kept(stated))
    return Grade("wrong", kept(stated), "too_long") if len(stated) > MAX_ANSWER else None


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
