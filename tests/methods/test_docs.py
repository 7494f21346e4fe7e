"""docs/methods.md is what the code says."""

from __future__ import annotations

from pathlib import Path

from methods import METHODS
from methods.table import HEAD, TAIL, page, row


def test_the_page_is_up_to_date(monkeypatch):
    monkeypatch.setattr("methods.table.all_methods", lambda: METHODS)
    written = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert written == page(), "write it again: python -m methods.table > docs/methods.md"


def test_every_rule_says_what_it_is():
    for name, rule in METHODS.items():
        assert f"`{name}`" in row(name, rule) and ": weight " in row(name, rule)
    assert "python -m methods.table" in HEAD and "tests/plugin/" in TAIL
