"""Puts template, style, script and data of the page into one HTML file, which loads nothing and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import unicodedata
from pathlib import Path

from analysis.report.data import page_data
from analysis.results import Results

HERE = Path(__file__).parent
SCRIPTS = ("elements", "charts", "matrices", "views", "tokens", "start")  # one script, in this order
PLACES = ("POLICY", "STYLE", "VERDICT", "DATA", "SCRIPT")
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # Unicode categories: control, format and direction characters


def report(results: Results, live: dict | None = None) -> str:
    """The page as HTML; the same runs give the same text. `live`, given by `analysis.serve`: {"seconds", "state"}; the page then
    asks its own server every so many seconds whether the state has changed."""
    style, script = read("page.css"), "\n".join(read(f"script/{name}.js") for name in SCRIPTS)
    policy = (
        f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'" + ("; connect-src 'self'" if live else "")
    )
    data = page_data(results) | {"live": live}
    parts = dict(zip(PLACES, (policy, style, first_words(data["verdict"]), embedded(data), script), strict=True))
    return fill(read("page.html"), parts)


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def fill(template: str, parts: dict[str, str]) -> str:
    """The template with each {{PLACE}} filled in. It has each place once, in the order of PLACES; the text of a filled-in part is
    never searched for places."""
    page = ""
    for place in PLACES:
        before, template = template.split("{{" + place + "}}")
        page += before + parts[place]
    return page + template


def first_words(verdict: list[dict]) -> str:
    """The verdict as HTML, which is visible while the browser still parses the rest, and where scripts are off."""
    texts = [paragraph["text"].replace("**", "") for paragraph in verdict]
    return "".join(f'<p class="verdict">{html.escape(visible(text))}</p>' for text in texts)


def visible(text: str) -> str:
    """The text with control characters replaced by their code points, so that they can't hide or reorder the text around them.
    `visible` in script/elements.js does this for the rest of the page."""
    return "".join(f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in UNSEEN else c for c in text)


def embedded(data: dict) -> str:
    """JSON that is safe inside a script element: ASCII only and without "<", so that no text of a run can end the element."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def digest(text: str) -> str:
    """The hash by which a Content-Security-Policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
