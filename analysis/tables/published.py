"""The published numbers of arXiv 2606.10968 v2 (Tables 1 and 4): one run per cell, no seeds, no intervals."""

from __future__ import annotations

from analysis.tables.table import Cell

MODELS = ("1.7B", "1.7B-Base", "8B-Base", "30B-A3B-Base")
TABLE1 = {  # best AIME24/25/26 mean in [0, T_stop], points
    "grpo": ("27.91", "8.89", "23.96", "38.19"),
    "minpro": ("27.71", "11.04", "29.72", "48.12"),
    "cispo": ("28.82", "11.87", "29.58", "collapse @ 215"),
    "dppo": ("28.19", "10.90", "28.89", "49.23"),
    "trm_max": ("25.21", "9.72", "26.73", "20.27"),
    "trm_avg": ("26.87", "11.70", "27.98", "48.96"),
    "cppo": ("31.88", "12.78", "31.11", "54.79"),
}
TABLE4 = {  # AIME24 / 25 / 26 at the step of the best summary
    "grpo": ("30.41 / 28.75 / 24.58", "11.25 / 6.87 / 8.54", "25.21 / 23.75 / 22.91", "43.75 / 32.71 / 38.12"),
    "minpro": ("26.87 / 32.71 / 23.54", "16.04 / 10.41 / 6.66", "35.21 / 26.04 / 27.91", "52.91 / 38.54 / 52.91"),
    "cispo": ("30.62 / 28.12 / 27.71", "15.62 / 12.08 / 7.91", "32.91 / 25.41 / 30.41", "collapse"),
    "dppo": ("31.04 / 28.22 / 25.31", "13.96 / 8.33 / 10.41", "30.21 / 26.87 / 29.58", "57.29 / 39.58 / 50.83"),
    "trm_max": ("26.46 / 22.91 / 26.25", "14.16 / 7.29 / 7.71", "28.33 / 24.37 / 27.50", "26.46 / 20.41 / 13.96"),
    "trm_avg": ("29.79 / 25.41 / 25.41", "15.41 / 10.21 / 9.48", "31.46 / 25.00 / 27.50", "54.37 / 37.08 / 55.41"),
    "cppo": ("34.79 / 30.63 / 30.21", "15.21 / 12.71 / 10.42", "34.58 / 30.00 / 28.75", "64.79 / 43.13 / 56.46"),
}
PUBLISHED = {"table1": TABLE1, "table4": TABLE4}
NOTE = (
    "published: arXiv 2606.10968 v2, Qwen3 models, best step in [0, T_stop], a single run per cell, so without intervals; "
    "not made by these runs, and comparable only where model, data and selection rule are the same."
)


def published_columns(table: str, columns: list[str], methods: list[str], rows: list, notes: list[str]) -> tuple:
    """(columns, rows, notes) with the paper's numbers added on the right."""
    numbers = PUBLISHED[table]
    nothing = ("–",) * len(MODELS)
    widened = [
        (text, [*cells, *(Cell(number, {"published": number}) for number in numbers.get(method, nothing))])
        for method, (text, cells) in zip(methods, rows, strict=True)
    ]
    return [*columns, *(f"published {model}" for model in MODELS)], widened, [*notes, NOTE]
