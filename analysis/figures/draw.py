"""Draws a Plot, or a page for a Missing figure, with matplotlib but without pyplot. Sizes are in inches; axes are placed
explicitly, so that no text moves them."""

from __future__ import annotations

import math
import textwrap
from dataclasses import replace

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.plot import Dots, DotSeries, Matrix, Missing, Panel, Plot, Series

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "trust-region-harness",
    "path.simplify": True,
    "text.parse_math": False,  # names may contain dollar signs
}
COLUMN, PAGE = 3.4, 7.0  # widths of one column and of the page
LEFT, RIGHT, BOTTOM, TOP = 0.62, 0.12, 0.42, 0.28  # margins of a panel
MAX_BANDS = 5  # with more methods their bands hide each other: the thin lines show the spread
ROW = 0.16  # height of a line of text
LETTER = 0.062  # width of a letter of a name
BESIDE = 0.22  # width between the names of rows, their ticks and the panel's edge
BAR = 0.66  # width of a colour bar with its numbers
METADATA = {"pdf": {"CreationDate": None, "ModDate": None}, "svg": {"Date": None}, "png": {}}


def draw(figure: Plot | Missing, warning: str = "") -> Figure:
    with matplotlib.rc_context(STYLE):
        return draw_missing(figure) if isinstance(figure, Missing) else draw_plot(figure, warning)


def save(drawn: Figure, path: str, ending: str) -> None:
    with matplotlib.rc_context(STYLE):
        drawn.savefig(path, format=ending, dpi=200, metadata=METADATA[ending])


def draw_plot(plot: Plot, warning: str) -> Figure:
    columns = min(plot.columns, len(plot.panels))
    rows = math.ceil(len(plot.panels) / columns)
    width = COLUMN if columns == 1 and not plot.wide else PAGE
    plot = replace(plot, panels=[with_short_names(panel, width / columns) for panel in plot.panels])
    entries = legend_entries(plot.panels)
    legend_rows = legend_layout(entries, width)
    foot = ROW * legend_rows + (0.05 if entries else 0)
    head = ROW * len(wrapped(warning, width)) if warning else 0
    tall = panel_height(plot, columns, width)
    fig = Figure(figsize=(width, rows * tall + foot + head))
    for i, panel in enumerate(plot.panels):
        row, column = divmod(i, columns)
        place(fig, panel, column * width / columns, foot + (rows - 1 - row) * tall, width / columns, tall)
    if entries:
        add_legend(fig, entries, legend_rows)
    if warning:
        height = fig.get_size_inches()[1]
        fig.text(0.02, 1 - 0.04 / height, "\n".join(wrapped(warning, width)), color="red", va="top", fontsize=7, weight="bold")
    return fig


def wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int(width * 17))


def fitted(text: str, width: float, letter: float = LETTER) -> str:
    """The text, or its beginning and end with … between them if it does not fit into `width`."""
    most = int(width / letter)
    return text if len(text) <= most else f"{text[: most - most // 3 - 1]}…{text[len(text) - most // 3 :]}"


def with_short_names(panel: Panel | Matrix | Dots, width: float) -> Panel | Matrix | Dots:
    """The panel with names that fit: those of rows and columns leave a quarter of its width to its values."""
    panel = replace(panel, title=fitted(panel.title, width - LEFT, 0.056))
    if isinstance(panel, Panel):
        return panel
    room = 0.75 * width - BESIDE - (BAR if isinstance(panel, Matrix) else RIGHT)
    panel = replace(panel, rows=[fitted(name, room) for name in panel.rows])
    return panel if isinstance(panel, Dots) else replace(panel, columns=[fitted(name, room) for name in panel.columns])


def panel_height(plot: Plot, columns: int, width: float) -> float:
    """Height of a panel: by the number of labelled rows of matrices and dots; panels of lines alone have a fixed height."""
    named = [panel for panel in plot.panels if not isinstance(panel, Panel)]
    rows = max((len(panel.rows) for panel in named), default=0)
    if rows:
        return max(1.5, TOP + BOTTOM + 0.24 * rows + 0.35, max(TOP + margins_of(panel)[2] + 0.5 for panel in named))
    return 2.3 if columns == 1 else 2.1


def place(fig: Figure, panel: Panel | Matrix | Dots, left: float, bottom: float, width: float, height: float) -> None:
    """Draw a panel into its rectangle, which includes the margins for its labels."""
    total_width, total_height = fig.get_size_inches()
    margins = margins_of(panel)
    inner = (left + margins[0], bottom + margins[2], width - margins[0] - margins[1], height - margins[2] - TOP)
    ax = fig.add_axes((inner[0] / total_width, inner[1] / total_height, inner[2] / total_width, inner[3] / total_height))
    ax.set_title(panel.title, loc="left", y=1.0, pad=3)  # without y matplotlib looks for one: a third of the drawing time
    if isinstance(panel, Matrix):
        draw_matrix(fig, ax, panel)
    else:
        draw_dots(ax, panel) if isinstance(panel, Dots) else draw_lines(ax, panel)


def margins_of(panel: Panel | Matrix | Dots) -> tuple[float, float, float]:
    """(left, right, bottom)"""
    if isinstance(panel, Matrix):
        return matrix_margins(panel)
    return (label_width(panel.rows) if isinstance(panel, Dots) else LEFT), RIGHT, BOTTOM


def label_width(rows: list[str]) -> float:
    return BESIDE + LETTER * max(map(len, rows))


def draw_dots(ax, panel: Dots) -> None:
    for i, series in enumerate(panel.series):
        shift = 0.6 * ((i + 0.5) / len(panel.series) - 0.5)
        for row, (values, (mean, low, high)) in enumerate(zip(series.values, series.bounds, strict=True)):
            y = row + shift
            ax.plot([low, high], [y, y], color=series.colour, lw=1.2)
            ax.plot([mean], [y], marker="|", ms=7, mew=1.5, color=series.colour)
            ax.plot(values, np.full(len(values), y), "o", ms=2.6, mew=0, alpha=0.6, color=series.colour)
    ax.set_yticks(range(len(panel.rows)), panel.rows)
    ax.set_ylim(len(panel.rows) - 0.5, -0.5)
    ax.set_xlabel(panel.xlabel)


def draw_lines(ax, panel: Panel) -> None:
    banded = len(panel.series) <= MAX_BANDS
    for series in panel.series:
        for line in series.lines:
            look = {"color": series.colour, "lw": 0.5, "alpha": 0.45, "ls": "-" if line.finished else ":"}
            ax.plot(line.x, line.y, **look | ({"marker": "o", "ms": 2.8, "mew": 0, "alpha": 0.7} if len(line.x) == 1 else {}))
        if len(series.x):
            if banded:
                ax.fill_between(series.x, series.low, series.high, color=series.colour, alpha=0.1, lw=0)
            ax.plot(series.x, series.mean, color=series.colour, ls=series.dash, lw=1.5)
    ax.set_xlabel(panel.xlabel)
    ax.set_ylabel(panel.ylabel)
    for axis, is_log in ((ax.xaxis, panel.log_x), (ax.yaxis, panel.log_y)):
        if is_log:
            log_scale(axis)
    if panel.ticks:
        ax.set_xticks(range(len(panel.ticks)), panel.ticks)
    limit_to_lines(ax, panel)
    for series in panel.series:
        for line in series.lines:
            if line.collapse:
                ax.plot(*line.collapse, marker="X", ms=4.5, mfc=series.colour, mec="white", mew=0.5, zorder=5)
    for x, text in panel.marks:
        ax.axvline(x, color="#555555", lw=0.7, ls=":")
        ax.annotate(text, (x, 0), xycoords=("data", "axes fraction"), xytext=(2, 3), textcoords="offset points", fontsize=6.5)


def limit_to_lines(ax, panel: Panel) -> None:
    """Limit the y axis to means and runs. Intervals may be cut: from two seeds they can be many times as wide."""
    parts = [np.asarray(y) for s in panel.series for y in (s.mean, *(line.y for line in s.lines)) if len(y)]
    values = np.concatenate(parts) if parts else np.array([])
    values = values[np.isfinite(values) & ((values > 0) | (not panel.log_y))]
    if not len(values) or values.min() == values.max():
        return
    low, high = values.min(), values.max()
    if panel.log_y:
        ax.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
        few_ticks(ax.yaxis, low, high)
    else:
        ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def log_scale(axis) -> None:
    """Make an axis logarithmic, with plain numbers as labels: matplotlib's own are formulas, which STYLE does not parse."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def few_ticks(axis, low: float, high: float) -> None:
    """Tick labels of a log axis from low to high: its decades, or below a factor of 100 four values with even ratios."""
    if high < 100 * low:
        ticks = [float(f"{value:.1g}") for value in np.geomspace(low, high, 4)]
        axis.set_major_locator(matplotlib.ticker.FixedLocator(list(dict.fromkeys(ticks))))


def legend_entries(panels: list[Panel | Matrix | Dots]) -> dict[str, Series | DotSeries]:
    return {series.label: series for panel in panels if not isinstance(panel, Matrix) for series in panel.series}


def legend_layout(entries: dict[str, Series | DotSeries], width: float) -> int:
    return math.ceil(len(entries) / legend_columns(entries, width)) if entries else 0


def legend_columns(entries: dict[str, Series | DotSeries], width: float) -> int:
    """Number of legend entries that fit side by side; a line and its gaps take half an inch."""
    widest = max(map(len, entries)) * LETTER + 0.5
    return max(1, min(len(entries), int(width / widest)))


def add_legend(fig: Figure, entries: dict[str, Series | DotSeries], rows: int) -> None:
    width, height = fig.get_size_inches()
    short = lambda text: fitted(text, width - 0.5)
    handles = [Line2D([], [], color=s.colour, ls=s.dash, lw=1.5, label=short(text)) for text, s in entries.items()]
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.02 / height), "borderaxespad": 0, "handlelength": 2.2}
    fig.legend(handles=handles, ncols=legend_columns(entries, width), columnspacing=1.2, labelspacing=0.25, **place)


def matrix_margins(panel: Matrix) -> tuple[float, float, float]:
    """(left, right, bottom): room for row labels, for the colour bar, and for slanted column labels."""
    left = label_width(panel.rows) if panel.rows else LEFT
    bottom = 0.2 + 0.05 * max(map(len, panel.columns)) if panel.columns else BOTTOM
    return left, BAR, bottom


def draw_matrix(fig: Figure, ax, panel: Matrix) -> None:
    rows, columns = panel.values.shape
    low, high = panel.limits or finite_limits(panel)
    norm = matplotlib.colors.LogNorm(low, high) if panel.log else matplotlib.colors.Normalize(low, high)
    first, last = panel.extent or (0, columns - 1)
    extent = (first - 0.5, last + 0.5, rows - 0.5, -0.5)
    colours = "RdBu" if panel.diverging else "cividis"
    image = ax.imshow(panel.values, aspect="auto", cmap=colours, norm=norm, extent=extent, interpolation="nearest")
    ax.set_xlabel(panel.xlabel)
    ax.set_ylabel(panel.ylabel)
    if panel.rows:
        ax.set_yticks(range(rows), panel.rows)
    if panel.columns:
        ax.set_xticks(range(columns), panel.columns, rotation=40, ha="right", rotation_mode="anchor")
    for i, texts in enumerate(panel.texts or []):
        for j, text in enumerate(texts):
            ax.text(j, i, text, ha="center", va="center", fontsize=6.5, color=ink(image, panel.values[i, j]))
    add_colour_bar(fig, ax, panel, norm, colours)


def add_colour_bar(fig: Figure, ax, panel: Matrix, norm, colours: str) -> None:
    """A colour bar drawn as an image. matplotlib's own would each keep a canvas of the whole figure in a PDF, which is gigabytes
    with many panels."""
    box, inch = ax.get_position(), 1 / fig.get_size_inches()[0]
    bar = fig.add_axes((box.x1 + 0.06 * inch, box.y0, 0.08 * inch, box.height))
    bar.imshow(np.linspace(0, 1, 256)[:, None], aspect="auto", cmap=colours, origin="lower")
    bar.set(xticks=[], yticks=[])
    scale = bar.twinx()  # axis of its own: on a log axis the image would be distorted
    scale.set(ylim=(norm.vmin, norm.vmax))
    if panel.log:
        log_scale(scale.yaxis)
        few_ticks(scale.yaxis, norm.vmin, norm.vmax)
    scale.spines[:].set(visible=True, linewidth=0.4)
    scale.tick_params(labelsize=6, width=0.4, length=2)
    scale.set_ylabel(panel.unit, fontsize=6.5, labelpad=1)


def ink(image, value: float) -> str:
    """The text colour, black or white, that reads better on the cell's colour."""
    if not np.isfinite(value):
        return "black"
    red, green, blue, _ = image.cmap(image.norm(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def finite_limits(panel: Matrix) -> tuple[float, float]:
    values = panel.values[np.isfinite(panel.values) & ((panel.values > 0) | (not panel.log))]
    if not len(values):
        return (0.1, 1.0)
    low, high = float(values.min()), float(values.max())
    if panel.diverging:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    return (low, high) if low < high else (low * 0.9 if panel.log else low - 0.5, high * 1.1 if panel.log else high + 0.5)


def draw_missing(page: Missing) -> Figure:
    fig = Figure(figsize=(COLUMN, 1.6))
    command = [line.replace(", ", ",") for line in textwrap.wrap(page.command.replace(",", ", "), 60)]  # wraps at commas
    lines = [f"Missing: {page.title}", "", *textwrap.wrap(page.what, 60), "", "Made by:", *command]
    fig.text(0.04, 0.94, "\n".join(lines), va="top", fontsize=7, color="#7a2f00", family="DejaVu Sans")
    return fig
