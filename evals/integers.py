r"""Read the integer that an answer states, whatever stands around it.

    "x=204"  "**0204**."  "$204^\circ$"  "\text{204 cm}^2"  "(B) 204"  "２０４。"  "204.0"  "1,204"     an integer
    "204 or 205"  "2 04"  "204.5"  "\frac{408}{2}"  "\sqrt{204}"  "204\pi"  "2n=204"                  not exactly one
    ""  "none"  "\pi"                                                                                 no digit

Digits stay a string: Python refuses int() above 4,300 of them. Every pattern runs in linear time.
"""

import re
import unicodedata

_SPECIAL_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|</?[A-Za-z_]{1,20}>")
_RAISED = {ord(c): f"{mark}{i}" for mark, row in (("^", "⁰¹²³⁴⁵⁶⁷⁸⁹"), ("_", "₀₁₂₃₄₅₆₇₈₉")) for i, c in enumerate(row)}
# A dash before a number is a minus, but not behind a word or (B).
_MINUS = re.compile(r"[\u2010\u2011\u2012\u2212\ufe63\uff0d]|(?<![\w)]{2} )[\u2013\u2014](?=[\s$\\(){}]*\d)")
_WRAPPER = re.compile(
    r"\\(?:(?:text|math|mbox|hbox|boxed|fbox|bm|bf|rm|it|em|tt|boldsymbol|operatorname|underline|displaystyle|textstyle"
    r"|left|right|[lL]arge|LARGE|[hH]uge|small|script|color|ensuremath|quad|qquad|blacksquare|square|Box|checkmark)[a-z]*"
    r"|[bB]igg?[lr]?(?![A-Za-z])|,|;|:|>|\\| )"
)
_SUBSCRIPT = re.compile(r"_(?:\w|\{[\w+\-, ]{1,12}\})")
_GROUPED = re.compile(r"(?<!\d)[1-9]\d{0,2}(?:,\d{3})+(?!\d)")
_PAIR = re.compile(r"(?:(?<!\\)[(\[]|\\\{) ?\d+(?:, ?\d+)+ ?(?:\\[A-Za-z]+)? ?\\?[)\]}]")  # \left[1,204\right), \{1,204\}
_LENGTH_UNIT = (
    r"(?:mm|cm|dm|km|m|in|ft|yd|mi|inch(?:es)?|feet|foot|(?:centi|kilo|milli)?met(?:er|re)s?|miles?|yards?|units?)"
)
_DENOMINATOR = r"(?:[hsmgL]|hr|mL|kg|cm)(?![A-Za-z])(?: *\^ *[23](?!\d))?"
_REWRITES = [
    (re.compile(r"\\!|(?<!\\)\\+$"), ""),
    (re.compile(r"\{,\}|(?<=\d)\\,(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"\\([%$#&_{}])"), r" \1 "),
    (re.compile(r"_ *\{"), " | "),  # a base: subscripts left of = are gone
    (re.compile(r"\^ ?\{? ?(?:\\circ|\\degree|°) ?\}?|\\deg(?:ree)?\b|\\circ\b"), " ° "),
    (re.compile(r"\^ ?\{? ?(?:\\(?:text|mathrm|rm) ?)?\{?(?:st|nd|rd|th)\b"), " "),
    (_WRAPPER, " "),
    (re.compile(r"\*\*+|__+|`+|\$"), " "),
    (re.compile(r"\{"), ""),
    (re.compile(r"[}~]"), " "),
    (re.compile(r"<(-?\d+)>"), r"\1"),
    (re.compile(rf"(?<![A-Za-z])({_LENGTH_UNIT}\.?)(?: *\^ *[23](?!\d)| +(?:squared|cubed)\b)"), r"\1"),
    (re.compile(rf"(?<=[A-Za-z]) */ *{_DENOMINATOR}"), ""),  # m/s^2
    (re.compile(r"(?<=[A-Za-z\d]) */ *(?=[A-Za-z]{3}|hr)"), " per "),
    (re.compile(r"(?<=\d) *- *(?=[A-Za-z]{3})"), " "),  # 60-minute
    (re.compile(r"(?<= [A-Za-z])-(?=[A-Za-z]{3})"), ""),  # T-shirts
    (re.compile(r"(?<=[A-Za-z]{2})-(?=[A-Za-z]{2})"), " "),
    (re.compile(r"[!<>]="), ">"),
    (re.compile(r"(?<![\w*])[*_]+(?=\w)|(?<=[^\s*_])[*_]+(?!\w)|[\u220e\u25a0\u25a1]"), " "),
]
_NUMBER = re.compile(r"(\d+)(?:\.0*(?!\d))?")
_OPERATOR = re.compile(r"[+\-*/^_\\<>|~±×÷⁄∙·π]|[\u2200-\u22ff]")
_ARITHMETIC_WORD = re.compile(
    r"(?i)\b(?:sqrt|cbrt|log|ln|sin|cos|tan|exp|factorial|choose|mod|squared|cubed|half|tenths?|pi|divided by|plus|minus|negative"
    r"|(?:hundred|thousand|million|billion|trillion)(?:ths?)?|percent of|floor|ceil|ceiling|gcd|lcm)\b"
)
# "204x", "204xy" and "204 x" are products; units, words and choice letters are not.
_VARIABLE_AFTER = re.compile(
    r"(?![mgshlLKCFJNWV])[A-Za-z](?![A-Za-z])"
    r"|(?!(?:[cmkd]m|k?g|m[gls]|ft|in|yd|mi|st|nd|rd|th|hr?|[ap]m|lb|oz|[kMGT]?[BWJ]|[kM]?Hz|cl|dl|ha)(?![a-z]))(?:[a-z]{2}|[w-z]{3,})(?![A-Za-z])"
    r"| {1,3}[i-kn-rt-z](?![A-Za-z.'’])"
)
_UNDONE_BEFORE = re.compile(  # f(204), .204, (x, 204)
    r"[A-Za-z]\($|(?:^|[^\w.])\.$|\b[a-z],$|\b(?i:not|than|root of|twice|except|at least|at most|or equal to)$"
)
_UNDONE_AFTER = re.compile(r" *(?:!|(?:,|or) *[a-z] *\)? *$)")  # 204!, 204 or y
_LONE_LETTER = re.compile(r"(?:^|[^A-Za-z])[A-Za-z] ?$")


def has_digit(text: str) -> bool:
    """Whether any digit stands in the text, in whatever script or inside a character such as ½."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return any(character.isdecimal() for character in text)


def read_integer(text: str) -> str | None:
    """The one integer that `text` states, as canonical digits ("-5", "0", "204"); None if it is not exactly one.

    A left side without a number ("x =", "m + n =") is passed over, and so are units, words and choice letters; an
    operator, a function or a second number next to it is not.
    """
    plain = _plain(text)
    if _PAIR.search(plain_characters(text)):
        return None
    found = _NUMBER.search(plain)
    if not found:
        return None
    before, after = plain[: found.start()], plain[found.end() :]
    if re.search(r"\d", after):
        return None
    before, after = before.rpartition("=")[2].rstrip(), after.partition("=")[0]
    sign = ""
    if _UNDONE_BEFORE.search(before) or _UNDONE_AFTER.match(after):
        return None
    if before[-1:] in ("+", "-"):
        before, sign = before[:-1], before[-1].replace("+", "")
        if _LONE_LETTER.search(before):  # x + 204
            return None
    if _OPERATOR.search(before + " " + after) or _ARITHMETIC_WORD.search(before + " " + after):
        return None
    if _VARIABLE_AFTER.match(after) or (before and before[-1].isalpha() and not plain[found.start() - 1].isspace()):
        return None
    digits = found[1].lstrip("0") or "0"
    return digits if digits == "0" else sign + digits


def plain_characters(text: str) -> str:
    """The text in plain characters: invisible ones and special tokens gone, full-width and raised ones written out."""
    if not text.isascii():
        text = _MINUS.sub("-", unicodedata.normalize("NFKC", text.translate(_RAISED)))
        text = "".join(_ascii(character) for character in text)
    return re.sub(r"[\x00-\x1f\x7f ]+", " ", _SPECIAL_TOKEN.sub(" ", text)).strip()


def _plain(text: str) -> str:
    """Plain characters without bold, dollars, LaTeX wrappers, units' exponents and thousands commas."""
    name, equals, value = plain_characters(text).rpartition("=")
    text = _SUBSCRIPT.sub("", name) + equals + value
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _GROUPED.sub(lambda number: number[0].replace(",", ""), text.strip(" *_"))


def _ascii(character: str) -> str:
    """Decimal digits of any script as 0 to 9; invisible format characters as nothing."""
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return "" if unicodedata.category(character) == "Cf" else character
