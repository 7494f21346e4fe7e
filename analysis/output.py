"""Writes what the analysis makes, byte for byte the same for the same runs: no times, no paths, fixed salts."""

from __future__ import annotations

import json
from pathlib import Path

from analysis.figures.draw import draw, save
from analysis.figures.record import Missing, Plot
from analysis.figures.record import sidecar as figure_sidecar
from analysis.tables.record import WRITERS, Table, sidecar

TABLE_FORMATS = tuple(WRITERS)
FIGURE_FORMATS = ("pdf", "svg", "png")


class Output:
    """A folder of results; `formats` limits both tables and figures."""

    def __init__(self, folder: Path, formats: tuple[str, ...] = TABLE_FORMATS + FIGURE_FORMATS):
        self.folder, self.formats = folder, formats
        folder.mkdir(parents=True, exist_ok=True)

    def text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8", newline="\n")

    def json(self, name: str, value: dict) -> None:
        self.text(name, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")

    def table(self, table: Table) -> None:
        for ending, write in WRITERS.items():
            if ending in self.formats:
                self.text(f"{table.name}.{ending}", write(table))
        self.json(f"{table.name}.json", sidecar(table))

    def figure(self, name: str, figure: Plot | Missing, warning: str) -> None:
        endings = [ending for ending in FIGURE_FORMATS if ending in self.formats]
        if endings:
            drawn = draw(figure, warning)
            for ending in endings:
                save(drawn, self.folder / f"{name}.{ending}", ending)
        self.json(f"{name}.json", figure_sidecar(figure) | {"warning": warning})
