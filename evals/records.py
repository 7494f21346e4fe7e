"""The two records every part of `evals` speaks in: a problem, and the grade of one response."""

from dataclasses import dataclass

VERDICTS = ("correct", "wrong", "no_answer", "truncated", "grader_timeout", "disagree")


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark or a training set.

    `text` is untemplated; `answer` is the gold as a string, e.g. "204" (AIME golds carry no leading zeros).
    """

    id: str
    text: str
    answer: str
    source: str = ""


@dataclass(frozen=True)
class Grade:
    """What a grader says of one response, e.g. Grade("wrong", "1/2", "not_an_integer").

    `verdict` is one of VERDICTS. `extracted` is the answer as it was read, None where none was found. `reason` is a
    code that refines the verdict, "" where the verdict says it all.
    """

    verdict: str
    extracted: str | None = None
    reason: str = ""

    def __post_init__(self):
        assert self.verdict in VERDICTS, self.verdict

    @property
    def correct(self) -> bool:
        return self.verdict == "correct"
