"""Writes tables, figures and pages to files, byte for byte the same for the same runs: no times, no paths, fixed salts."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.figures.draw import draw, save
from analysis.figures.plot import Missing, Plot
from analysis.figures.plot import sidecar as figure_sidecar
from analysis.tables.table import WRITERS, Table, red, sidecar
from harness.files import write_atomic, writing

TABLE_FORMATS = tuple(WRITERS)
FIGURE_FORMATS = ("pdf", "svg", "png")


class Output:
    """A folder of results; `formats` limits both tables and figures."""

    def __init__(self, folder: Path, formats: tuple[str, ...] = TABLE_FORMATS + FIGURE_FORMATS):
        self.folder, self.formats = folder, formats
        self.captions: dict[str, list[str]] = {}  # title, then notes
        self.missing: list[str] = []
        self.pages: list[str] = []
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def text(self, name: str, text: str) -> None:
        write_atomic(self.folder / name, text)

    def page(self, name: str, text: str) -> None:
        """Write a text that `summary` names."""
        self.pages.append(name)
        self.text(name, text)

    def json(self, name: str, value: dict) -> None:
        self.text(name, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n")

    def table(self, table: Table) -> None:
        self.captions[table.name] = [table.title, *table.notes]
        if not table.rows:
            self.missing.append(table.name)
        for ending, write in WRITERS.items():
            if ending in self.formats:
                self.text(f"{table.name}.{ending}", write(table))
        self.json(f"{table.name}.json", sidecar(table))

    def figure(self, name: str, figure: Plot | Missing, warning: str) -> None:
        if isinstance(figure, Missing):
            self.missing.append(name)
            self.captions[name] = [figure.title, f"Missing: {figure.what}. Made by: {figure.command}"]
        else:
            self.captions[name] = [figure.title, *figure.notes]
        endings = [ending for ending in FIGURE_FORMATS if ending in self.formats]
        if endings:
            drawn = draw(figure, warning)
            for ending in endings:
                with writing(path := self.folder / f"{name}.{ending}"):
                    save(drawn, path, ending)
        self.json(f"{name}.json", figure_sidecar(figure) | {"warning": warning})

    def index(self, warning: str) -> None:
        """Write index.md: every table and figure with its caption; for the missing ones, the command that makes them. Nothing is
        written if no table or figure was."""
        if not self.captions:
            return
        lines = ["# Tables and figures", ""] + ([red(warning), ""] if warning else [])
        for name, (title, *notes) in self.captions.items():
            lines += [f"## {name}{' (missing)' if name in self.missing else ''}", "", f"{title}. {' '.join(notes)}", ""]
        self.text("index.md", "\n".join(lines))

    def summary(self) -> str:
        gaps = f"; missing: {', '.join(self.missing)} (index.md says what makes them)" if self.missing else ""
        made = len(self.captions) - len(self.missing)
        written = self.pages + ([f"{made} tables and figures"] if self.captions else [])
        return f"{', '.join(written)} in {self.folder}{gaps}\n"
