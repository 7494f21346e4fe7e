"""What every grader is made of: the interface, and the parts of a grade that all graders form alike."""

from collections.abc import Callable, Sequence

from evals.markers import Marker
from evals.records import Grade

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


def unanswered(marker: Marker | None, truncated: bool) -> Grade:
    """The grade of a response that states no answer: no_marker, empty (nothing behind the marker) or no_digit."""
    stated = marker.stated if marker else ""
    reason = "no_digit" if stated else "empty" if marker else "no_marker"
    return Grade("truncated" if truncated else "no_answer", kept(stated) if stated else None, reason)


def kept(text: str) -> str:
    """What is stored of an extracted answer: at most MAX_KEPT characters."""
    return text if len(text) <= MAX_KEPT else text[: MAX_KEPT - 1] + "…"
