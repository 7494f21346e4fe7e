"""A small reader of LaTeX tables: enough to notice what a compiler would refuse."""

import re

BEGIN_OR_END = re.compile(r"\\(begin|end)\{(\w+)\}")
KNOWN = set(
    re.findall(
        r"\w+",
        "begin end centering caption label toprule midrule bottomrule textbf underline par smallskip footnotesize textcolor "
        "dagger ddagger pm times ge le delta rightarrow cdot rho sigma wedge approx pi mu ldots textbackslash textasciitilde "
        "textasciicircum",
    )
)


def check(text: str) -> list[list[str]]:
    """The cells of the tabular; AssertionError at unbalanced braces, environments, ragged rows, bare special characters."""
    text = re.sub(r"(?<!\\)%.*", "", text)
    assert text.isascii() or not re.search(r"[^\x00-\xff]", text), re.findall(r"[^\x00-\xff]", text)
    stack = []
    for kind, name in BEGIN_OR_END.findall(text):
        stack.append(name) if kind == "begin" else check_end(stack, name)
    assert not stack
    assert unescaped(text, "{") == unescaped(text, "}")
    assert unescaped(text, "$") % 2 == 0 and unescaped(text, "#") == 0
    assert set(re.findall(r"\\([a-zA-Z]+)", text)) <= KNOWN
    body = text.split(r"\begin{tabular}", 1)[1]
    spec, body = re.match(r"\{(\w+)\}(.*?)\\end\{tabular\}", body, re.S).groups()
    lines = [
        line.strip() for line in body.splitlines() if line.strip() and not line.strip().startswith((r"\top", r"\mid", r"\bottom"))
    ]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))] for line in lines]
    assert all(line.endswith(r"\\") for line in lines)
    assert all(len(row) == len(spec) for row in rows)
    assert "_" not in re.sub(r"\\_|\\label\{[^}]*\}", "", text), "a bare underscore"
    return rows


def check_end(stack: list[str], name: str) -> None:
    assert stack and stack.pop() == name


def unescaped(text: str, character: str) -> int:
    return len(re.findall(rf"(?<!\\){re.escape(character)}", text))
