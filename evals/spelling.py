r"""One spelling for answers that are written differently: what math-verify is given, and by which votes are counted.

    plain_latex   "The probability is $½$."   \frac{1}{2}
                  "18.50 dollars"             18.50
                  "(2, √5]"                   (2, \sqrt{5}]
    canonical     "\frac13"  "2/6"  "x=1/3"   1/3
"""

import re
import unicodedata
from fractions import Fraction

from evals.integers import plain_characters, read_integer

_VULGAR = re.compile("[¼-¾⅐-⅞]")
_SYMBOLS = str.maketrans({"∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "⁄": "/"})
_REWRITES = [
    (re.compile(r"√ ?\(([^()]*)\)|√ ?(\d+|[A-Za-z])"), r"\\sqrt{\1\2}"),
    (re.compile(r"√ ?(?=\{)"), r"\\sqrt"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\([lr])brace(?![A-Za-z])"), lambda brace: {"l": r"\{", "r": r"\}"}[brace[1]]),
    (re.compile(r"\\[bB]igg?[lr]?(?![A-Za-z])"), ""),
    (re.compile(r"_\{\\(?:text|mathrm) ?\{(\d+)\}\}"), r"_{\1}"),
]
_TAIL = "\\.,;:。% "  # full stops, LaTeX spaces, percent
_DOLLARS = r"(?<!\\)(?:\$\$((?:[^$\\]|\\.)+)\$\$|\$((?:[^$\\]|\\.)+)\$)"
_BRACKETS = r"\\\(((?:[^\\]|\\[^(])+?)\\\)|\\\[((?:[^\\]|\\[^\[])+?)\\\]"  # up to the next opening only: linear
_FORMULA = re.compile(rf"{_DOLLARS}|{_BRACKETS}", re.DOTALL)
_NUMBER = re.compile(  # or a pair of numbers: in \left(1,204\right) there are two
    r"[(\[][-\d./ ]+(?:,[-\d./ ]+)+[)\]]"
    r"|-?(?:(?:(?<![(\[\d])(?<!\\\{)[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?|\.\d+)"
)
_WORD = re.compile(r"[^\W\d_]{3}")
_REPEATING = re.compile(r"(?<![\w.,])(\d{0,99})\.(\d{0,99})\\(?:overline|bar|dot) ?(?:\{(\d{1,99})\}|(\d))")
_MIXED = re.compile(r"^(-?\d+) (\d+)/(\d+)$")
_SPACING = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;:! ]")
_FREE_SPACE = re.compile(r"(?<!\w) | (?!\w)")  # "2 04" is not 204
_FONT = re.compile(r"\\(?:text|mathrm|mathbf|mbox)(?:bf|rm|it|normal)? ?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\frac ?(?:\{([^{}]*)\}|(\w)) ?(?:\{([^{}]*)\}|(\w))")
_RATIONAL = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)(?:/0*[1-9]\d*)?")


def plain_latex(text: str) -> str:
    r"""The answer as bare LaTeX: Unicode mathematics written out, and without delimiters, full stops, percent signs, and the
    words and units around a lone formula or number."""
    text = _REPEATING.sub(_summed, plain_characters(_VULGAR.sub(_written_out, text)).translate(_SYMBOLS))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = text.strip("*_` ").rstrip(_TAIL)
    if text.count("}") > text.count("{"):
        text = text.removesuffix("}")
    return _MIXED.sub(r"\1\\frac{\2}{\3}", _alone(text).strip("$ ").rstrip(_TAIL))


def _written_out(fraction: re.Match) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", fraction[0]).split("⁄")
    return f"\\frac{{{numerator}}}{{{denominator}}}"


def _summed(decimal: re.Match) -> str:
    r"""A repeating decimal as a fraction: 0.1\overline{6} is (16 − 1) / 90."""
    whole, fixed, period = decimal[1] + decimal[2], decimal[2], decimal[3] or decimal[4]
    return f"\\frac{{{int(whole + period) - int(whole or 0)}}}{{{'9' * len(period) + '0' * len(fixed)}}}"


def _alone(text: str) -> str:
    """The one formula between dollars, or else the one number or pair among words, where what is around it does not change it."""
    formulas = list(_FORMULA.finditer(text))
    found = formulas or (list(_NUMBER.finditer(text)) if _WORD.search(text) else [])
    if len(found) != 1:
        return text
    around = f"{text[: found[0].start()]}7{text[found[0].end() :]}"
    if around != "7" and read_integer(around) != "7":
        return text
    return next(filter(None, found[0].groups())) if formulas else found[0][0]


def compact(latex: str) -> str:
    """The LaTeX without spacing, size and font commands: what prints the same but for its spacing is equal."""
    spaced = " ".join(_SPACING.sub(" ", _FONT.sub(r"\1", latex)).split())
    short = _FREE_SPACE.sub("", spaced).replace("dfrac", "frac").replace("tfrac", "frac")
    return short.casefold() if short.isalpha() and len(short) > 2 else short  # Friday


def canonical(answer: str) -> str:
    """One text for the usual spellings of an answer: integers and rational numbers by value, else compact LaTeX."""
    integer = read_integer(answer)
    if integer is not None:
        return integer
    short = _FRACTION.sub(_over, re.sub(r"^[A-Za-z]=", "", compact(plain_latex(answer))))
    return str(Fraction(short)) if _RATIONAL.fullmatch(short) else short


def _over(fraction: re.Match) -> str:
    """a/b; behind a digit " a/b", since a mixed number is no product of digits."""
    parts = (fraction[1] or fraction[2] or "", fraction[3] or fraction[4] or "")
    space = " " if fraction.string[: fraction.start()][-1:].isdigit() else ""
    return space + "/".join(part if re.fullmatch(r"-?\d+(?:\.\d+)?|\w", part) else f"({part})" for part in parts)
