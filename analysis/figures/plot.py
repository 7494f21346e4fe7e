"""Figures as plain data: panels of lines, dots or a matrix, or a record that says which runs are missing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Line:
    """The curve of one run; a single point is drawn as a dot. `collapse`: position of its cross; unfinished runs are dotted."""

    run_id: str
    x: np.ndarray
    y: np.ndarray
    collapse: tuple[float, float] | None = None
    finished: bool = True


@dataclass(frozen=True)
class Series:
    """A method's curves: the mean over its finished runs with its 95 % interval (nan where there is none), and each run."""

    label: str
    colour: str
    dash: str
    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    lines: list[Line] = field(default_factory=list)

    @property
    def run_ids(self) -> list[str]:
        return [line.run_id for line in self.lines]


@dataclass(frozen=True)
class Panel:
    title: str
    xlabel: str
    ylabel: str
    series: list[Series]
    log_y: bool = False
    log_x: bool = False
    marks: list[tuple[float, str]] = field(default_factory=list)  # dotted vertical lines: (x, text)
    ticks: list[str] = field(default_factory=list)  # names at x = 0, 1, 2, … instead of numbers


@dataclass(frozen=True)
class Matrix:
    """Values [rows, columns], drawn as colours; nan is left white. `texts`: written into the cells. `cell_ids`: run ids behind
    each cell; None if all of `run_ids` are behind every cell."""

    title: str
    values: np.ndarray
    rows: list[str]
    columns: list[str]  # if empty, the x axis has numbers, from `extent`
    unit: str
    run_ids: list[str]
    texts: list[list[str]] | None = None
    xlabel: str = ""
    ylabel: str = ""
    extent: tuple[float, float] | None = None  # first and last number of the x axis, where columns is empty
    limits: tuple[float, float] | None = None  # of the colour scale; None: those of the values
    diverging: bool = False  # a colour scale that is symmetric about 0
    log: bool = False
    cell_ids: list[list[list[str]]] | None = None


@dataclass(frozen=True)
class DotSeries:
    """For each row one dot for each run, and a bar for the mean with its interval; a row may be empty."""

    label: str
    colour: str
    values: list[np.ndarray]  # of each row
    bounds: list[tuple[float, float, float]]  # (mean, low, high) of each row; nan where there is none
    run_ids: list[str]
    dash: str = "-"


@dataclass(frozen=True)
class Dots:
    """A panel of dots: the x axis is a number of each run; the series of a row stand below each other in it."""

    title: str
    xlabel: str
    rows: list[str]
    series: list[DotSeries]


@dataclass(frozen=True)
class Plot:
    title: str
    panels: list[Panel | Matrix | Dots]
    notes: list[str] = field(default_factory=list)
    columns: int = 3  # panels side by side
    wide: bool = False  # the page's width even for one column of panels


@dataclass(frozen=True)
class Missing:
    """A figure whose runs are absent. what: the runs or recordings that are missing; command: makes them."""

    title: str
    what: str
    command: str


def sidecar(figure: Plot | Missing) -> dict:
    """The content of a figure's JSON file: for each panel its series and the runs behind them."""
    if isinstance(figure, Missing):
        return {"title": figure.title, "missing": figure.what, "command": figure.command}
    return {"title": figure.title, "notes": figure.notes, "panels": [panel_sidecar(panel) for panel in figure.panels]}


def panel_sidecar(panel: Panel | Matrix | Dots) -> dict:
    if isinstance(panel, Matrix):
        return {"title": panel.title, "unit": panel.unit, "rows": panel.rows, "run_ids": panel.run_ids}
    return {"title": panel.title, "series": [{"label": series.label, "run_ids": series.run_ids} for series in panel.series]}
