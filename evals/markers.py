r"""Find the answer that a response states: the last `\boxed{…}` or the last `Answer:` line.

Precedence: whichever starts later in the text decides, whatever it holds; so a box on an `Answer:` line is read as a box,
and an empty box after a full one leaves no answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\boxed\s*\{")
_ANSWER = re.compile(r"(?<![^\W_])(?:answer|Answer|ANSWER)[\s*_`})\]]{0,8}[:：]")
_DRESS = " \t\r\n*_`$"
_FRAME = re.compile(r"\\[\[\]()]|<[^<>\n]{1,20}>")  # what opens on the marker's line and holds what is below: \[, <br>
_WORD = re.compile(r"\w")
_PROSE = re.compile(r"(?<![\\\w])[^\W\d_]{2,}")
_LINE_END = re.compile(r"[\n\r\x0b\x0c\x85\u2028\u2029]")


@dataclass(frozen=True)
class Marker:
    """The deciding marker. `complete` is False where the text may have been cut inside it; `below` is the next line that
    says something, which counts where an `Answer:` has nothing behind it on its own line."""

    start: int
    content: str
    complete: bool = True
    below: str = ""

    @property
    def stated(self) -> str:
        """What the marker holds, without the marks of emphasis and mathematics around it; "" for an empty marker."""
        own = self.content.strip(_DRESS)
        return own if _FRAME.sub(" ", own).strip(_DRESS) else self.below.strip(_DRESS)


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
    line_end = _LINE_END.search(text, last.end())
    end = line_end.start() if line_end else len(text)
    own, (below, below_ended) = text[last.end() : end], _next_line(text, end)
    complete = line_end is not None and (bool(_WORD.search(_FRAME.sub(" ", own))) or below_ended)
    return Marker(last.start(), own, complete, below)


def _next_line(text: str, end: int) -> tuple[str, bool]:
    """The next line with a letter or digit, within 2,000 characters, and whether it ends; "" where it holds a word, prose being
    no answer."""
    lines = text[end : end + 2000].splitlines(keepends=True)
    line = next((line for line in lines if _WORD.search(line)), "")
    content = line.splitlines()[0] if line else ""
    return ("" if _PROSE.search(content) else content), content != line
