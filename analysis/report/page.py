"""The page's bytes: template, style, script and data in one file, which loads nothing and runs only its own script."""

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
PLACES = ("POLICY", "STYLE", "VERDICT", "DATA", "SCRIPT")
UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # Unicode categories: control, format and direction characters


def report(results: Results, live: dict | None = None) -> str:
    """HTML; the same runs give the same text. live (`analysis.serve`): {"seconds", "state"}, and the page may ask its own server
    every so many seconds whether the state is another by now."""
    style, script = (read(name) for name in ("page.css", "page.js"))
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
    """Each {{PLACE}} once; what is filled in is never searched for places."""
    page = ""
    for place in PLACES:
        before, template = template.split("{{" + place + "}}")
        page += before + parts[place]
    return page + template


def first_words(verdict: list[dict]) -> str:
    """The verdict as HTML, which stands on the screen while the rest is still being read, and where no script runs."""
    return "".join(f'<p class="verdict">{html.escape(visible(one["text"].replace("**", "")))}</p>' for one in verdict)


def visible(text: str) -> str:
    """Control characters are named, so that they neither hide nor turn the text around them; as in page.js."""
    return "".join(f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in UNSEEN else c for c in text)


def embedded(data: dict) -> str:
    """JSON that can stand in a script element: ASCII only, and no "<", so that no text of a run can end the element."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def digest(text: str) -> str:
    """The Content-Security-Policy's name of an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
