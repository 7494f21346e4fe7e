"""The page's bytes: template, style, script and data in one file, which loads nothing and runs only its own script."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from analysis.report.data import page_data
from analysis.results import Results

HERE = Path(__file__).parent
PLACES = ("POLICY", "STYLE", "DATA", "SCRIPT")


def report(results: Results, refresh_seconds: int | None = None) -> str:
    """HTML; the same runs give the same text. refresh_seconds: the page reloads itself (`analysis.serve`)."""
    style, script = (read(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = page_data(results) | {"refresh_seconds": refresh_seconds}
    parts = dict(zip(PLACES, (policy, style, embedded(data), script), strict=True))
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


def embedded(data: dict) -> str:
    """JSON that can stand in a script element: ASCII only, and no "<", so that no text of a run can end the element."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def digest(text: str) -> str:
    """The Content-Security-Policy's name of an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()
