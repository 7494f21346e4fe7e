"""Traces (docs/recordings.md) for the token viewer: numbers as stored, as many steps as the page has room for.

Half of a trace is repetition (several rules give the same weights), so a response holds each distinct series once, in `series`,
and its places there stand wherever the trace has the series itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from analysis.runs import Run
from harness.store import read_json

MOST_BYTES = 4_200_000  # of all traces together
PER_TOKEN = ("rollout_logprobs", "logprobs", "ratio", "divergence", "entropy")


def embedded_traces(runs: list[Run], most_bytes: int = MOST_BYTES) -> dict[str, dict]:
    """{run id: {"traces": [...], "left_out": [steps]}}. Every run gets the same share of the room."""
    paths = {run.run_id: trace_paths(run) for run in runs}
    num_traced = sum(map(bool, paths.values()))
    room = most_bytes // max(1, num_traced)
    return {run.run_id: traces_of(run, paths[run.run_id], room) for run in runs}


def trace_paths(run: Run) -> dict[int, Path]:
    """By step, in order."""
    found = {int(path.stem.removeprefix("step=")): path for path in (run.path / "traces").glob("step=*.json")}
    return dict(sorted(found.items()))


def traces_of(run: Run, paths: dict[int, Path], room: int) -> dict:
    """The steps that matter most first: the last, the first, those around a collapse, then evenly between."""
    kept, used = {}, 0
    for step in by_importance(list(paths), run.collapse_step):
        trace = read_json(paths[step])
        if trace is None:
            continue
        trace = pooled_trace(trace)
        size = len(json.dumps(trace, separators=(",", ":")))
        if kept and used + size > room:
            break  # reading on could only fit a smaller one, and a long sweep has thousands
        kept[step], used = trace, used + size
    return {"traces": [kept[step] for step in sorted(kept)], "left_out": [step for step in paths if step not in kept]}


def pooled_trace(trace: dict) -> dict:
    return trace | {"responses": [pooled(response) for response in trace["responses"]]}


def pooled(response: dict) -> dict:
    """The response with every series replaced by its place in `series`."""
    places: dict[str, int] = {}
    place = lambda series: places.setdefault(json.dumps(series), len(places))
    short = response | {key: place(response[key]) for key in PER_TOKEN}
    short["rules"] = {
        name: {"weight": place(rule["weight"]), "keep": place(rule["keep"]), "aux": {k: place(v) for k, v in rule["aux"].items()}}
        for name, rule in response["rules"].items()
    }
    return short | {"series": [json.loads(text) for text in places]}


def by_importance(steps: list[int], collapse_step: int | None) -> list[int]:
    ends = [*steps[-1:], *steps[:1]]
    around = sorted(steps, key=lambda step: abs(step - collapse_step))[:2] if collapse_step is not None else []
    return list(dict.fromkeys([*ends, *around, *halving(steps)]))


def halving(steps: list[int]) -> list[int]:
    """The middle, then the middles of both halves, and so on: any beginning of the list is spread evenly."""
    order, stretches = [], [steps]
    while stretches:
        stretch = stretches.pop(0)
        if stretch:
            middle = len(stretch) // 2
            order.append(stretch[middle])
            stretches += [stretch[:middle], stretch[middle + 1 :]]
    return order
