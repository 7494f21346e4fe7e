r"""Find the answer that a response states: the last `\boxed{…}` or the last `Answer:` line.

Precedence: whichever starts later in the text decides, whatever it holds; so a box on an `Answer:` line is read as a box,
and an empty box after a full one leaves no answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\boxed\s*\{")
_ANSWER = re.compile(r"(?<![^\W_])(?:answer|Answer|ANSWER)[\s*_`})\]]{0,8}[:：](?:[ \t]*\})?")
_EMPHASIS = " \t\r\n*_`"
_DRESS = _EMPHASIS + "$"
_SHOUT = " \t\r*_`!"  # an exclamation mark behind $ or } may be a factorial
_CRY = re.compile(r"(?<=[\d*_`$])!+(?= +[A-Z][a-z]| *[\u2600-\U0001ffff])")  # "204! Done", where a sentence or an emoji follows
# What may open on the marker's line or below it before the answer: \[, <br>, ```latex
_FRAME = re.compile(r"\\[\[\]()]|<[|｜/A-Za-z][^<>\n\d,]{0,40}>|^\s*```\w*\s*$")
_WORD = re.compile(r"\w")
_PROSE_WORD = re.compile(r"(?<![\\\w])[^\W\d_]{2,}")
_FORMULA = re.compile(
    r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\(?:text|math|mbox|operatorname|begin|end)[a-z]*\s*\{[^{}]*\}"
    r"|(?<![\\A-Za-z])[A-Z]{2,}(?![a-z])",  # AB = 204
    re.DOTALL,
)
_OPENED = re.compile(r"\\\[|\$\$")
_POWER = re.compile(r"(?<=[A-Za-z])\$?\^\{?[23]\}?\$?")  # cm^2, cm$^2$
_BULLET = re.compile(r"^\s*(?:>\s*)*(?:[-*•]\s+)?")  # "- 204" is an item of a list, "-204" a number
_LISTED = re.compile(r"\d[.)]\W*$")  # "1. Simplify" opens a list
_DIGIT = re.compile(r"\d")
_LINE_END = re.compile(r"[\n\r\x0b\x0c\x85\u2028\u2029]")
_LINE = re.compile(r"[^\n\r\x0b\x0c\x85\u2028\u2029]+")
_REACH = 2000  # characters, from a marker to the answer below it and from \begin to its \end


@dataclass(frozen=True)
class Marker:
    """The deciding marker. `complete` is False where the text may have been cut inside what it holds."""

    start: int
    content: str
    complete: bool = True

    @property
    def stated(self) -> str:
        """What the marker holds, without the marks of emphasis and mathematics around it; "" for an empty marker."""
        bare = self.content.strip(_DRESS)
        return self.content.strip(_EMPHASIS) if "$" in bare else bare  # "$x$ or $y$" keeps its dollars


def find_marker(response: str) -> Marker | None:
    """The deciding marker of a response, None without one. Linear in the response's length."""
    box = _find_box(response)
    return _find_line(response, box.start if box else 0) or box


def last_box(text: str) -> str | None:
    r"""The content of the last closed \boxed{…} of a text, None without one."""
    box = _find_box(text)
    return box.content if box else None


def _backwards(text: str, *words: str, low: int = 0) -> Iterator[int]:
    """Where the words stand at or after `low`, last first. Each stretch of text is searched once for each word."""
    places = {word: text.rfind(word, low) for word in words}
    while (place := max(places.values())) >= 0:
        yield place
        word = next(word for word in words if places[word] == place)
        places[word] = text.rfind(word, low, place)


def _find_box(text: str) -> Marker | None:
    # A box that is still open at `end` keeps every box around it open too, so an earlier one must close before it:
    # each character is scanned once.
    end = len(text)
    for start in _backwards(text, "\\boxed"):
        opening = _BOX.match(text, start)
        close = _closing_brace(text, opening.end(), end) if opening else None
        if close is not None:
            return Marker(start, text[opening.end() : close])
        end = start
    return None


def _closing_brace(text: str, start: int, end: int) -> int | None:
    depth = 1
    for brace in _BRACE.finditer(text, start, end):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None


def _find_line(text: str, low: int) -> Marker | None:
    found = (_ANSWER.match(text, start) for start in _backwards(text, "answer", "Answer", "ANSWER", low=low))
    last = next(filter(None, found), None)
    if last is None:
        return None
    end = _line_end(text, last.end())
    content = text[last.end() : end]
    if not _says_something(content):
        content, end = _next_line(text, last.end(), end)
    return Marker(last.start(), _CRY.sub("", content).rstrip(_SHOUT), end < len(text))


def _says_something(line: str) -> bool:
    return bool(_FRAME.sub(" ", line).strip(_DRESS))


def _line_end(text: str, start: int) -> int:
    r"""Where the line at `start` ends; one that opens a LaTeX environment goes on to the line that holds the \end."""
    end = _first_end(text, start)
    opening = text.rfind("\\begin{", start, end)
    closing = text.find("\\end{", opening, opening + _REACH) if opening >= 0 else -1
    return end if closing < end else _first_end(text, closing)


def _first_end(text: str, start: int) -> int:
    found = _LINE_END.search(text, start)
    return found.start() if found else len(text)


def _next_line(text: str, start: int, end: int) -> tuple[str, int]:
    """The next line after `end` with a letter or digit, within reach, and its end; "" where it is prose, that being no answer.
    What opens between `start` and the line as a formula is none."""
    lines = _LINE.finditer(text, end, end + _REACH)
    line = next((found for found in lines if _WORD.search(_FRAME.sub(" ", found[0]))), None)
    if line is None:
        return "", len(text)
    end = _line_end(text, line.start())
    below = _BULLET.sub("", text[line.start() : end])
    prose = _is_prose(below[:_REACH]) and not _OPENED.search(text, start, line.start())
    return "" if prose else below, end


def _is_prose(line: str) -> bool:
    r"""Whether a line says more than an answer: than a number or formula with up to three words behind it, or such words alone.

    "204", "$AB = 204$", "204 square units" and "no solution" may be answers; "So it is 204", "1. Simplify" and "Let $n$ be" not.
    """
    before, *after = _PROSE_WORD.split(_FORMULA.sub("0", _POWER.sub("", line)))
    return len(after) > 3 or any(map(_DIGIT.search, after)) or bool(after and _LISTED.search(before))
