r"""The verdicts of verl's `math_dapo` scorer, for fidelity to published training code; reported beside the project's own.

It reads the last `Answer:` within the last 300 characters and compares strings after cleaning both sides, so that
"Answer: 025", "**Answer:** 25", "Answer: 25." and a lone "\boxed{ 25 }" are all wrong where the gold is 25.
Written from the behaviour of verl/utils/reward_score/math_dapo.py (volcengine/verl) without its strict box mode.
"""

import re

from evals.grader import kept, unanswered
from evals.markers import find_marker
from evals.records import Grade

WINDOW = 300
_LINE = re.compile(r"(?i)Answer\s*:\s*([^\n]+)")
_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"), (",\\text{and}", ","),
    ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_REMOVED = (
    "square", "ways", "integers", "dollars", "mph", "inches", "hours", "km", "units", "\\ldots", "sue", "points", "feet",
    "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students",
    "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}",
    "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots",
)  # fmt: skip
_PATTERNS = (
    (r"(.*?)(\$)(.*?)(\$)(.*)", r"$\3$"),
    (r"\\text\{(.*?)\}", r"\1"),
    (r"\\textbf\{(.*?)\}", r"\1"),
    (r"\\overline\{(.*?)\}", r"\1"),
    (r"\\boxed\{(.*)\}", r"\1"),
    (r"frac([^{])(.)", r"frac{\1}{\2}"),
    (r"sqrt([^{])", r"sqrt{\1}"),
)


def grade(response: str, answer: str, truncated: bool = False) -> Grade:
    """Correct exactly where the scorer gives 1. Elsewhere a response that states an answer in a form or place which the
    scorer does not read is "wrong" with reason unread; one that states none is "no_answer"; a cut one is "truncated"."""
    lines = _LINE.findall(response[-WINDOW:])
    extracted = clean(lines[-1]) if lines else None
    if extracted is not None and extracted == clean(answer):
        return Grade("correct", kept(extracted))
    if truncated:
        return Grade("truncated", kept(extracted) if extracted else None)
    if extracted:
        return Grade("wrong", kept(extracted))
    marker = find_marker(response)
    if marker is None or not marker.stated:
        return unanswered(marker, truncated)
    return Grade("wrong", None, "unread")


def clean(answer: str) -> str:
    """The scorer's normal form of an answer, e.g. clean("$x = 1,234$") = "1234"."""
    answer = answer.split("=")[-1]
    for old, new in (*_REPLACED, *((word, "") for word in _REMOVED)):
        answer = answer.replace(old, new)
    for pattern, replacement in _PATTERNS:
        answer = re.sub(pattern, replacement, answer)
    answer = answer.replace("$", "")
    bare = answer.replace(",", "")
    return (bare if bare.isdigit() else answer).strip()
