"""Prepares traces (docs/recordings.md) for the token viewer: numbers as stored, as many steps as the page has room for.

Half of a trace is repetition (several rules give the same weights). So a response holds each distinct series once, in a list
`series`, and an index into that list wherever the trace has the series itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from analysis.runs import Run
from harness.files import read_json
from harness.store import by_step

MOST_BYTES = 4_200_000  # of all traces together
PER_TOKEN = ("rollout_logprobs", "logprobs", "ratio", "divergence", "entropy")


def embedded_traces(runs: list[Run], most_bytes: int = MOST_BYTES) -> dict[str, dict]:
    """{run id: {"traces": [...], "left_out": [steps]}}. Every run with traces gets the same share of `most_bytes`; runs whose
    share is too small for one response then get one response each, in order of seeds, while bytes are left."""
    paths = {run.run_id: trace_paths(run) for run in runs}
    traced = [run for run in sorted(runs, key=lambda run: run.seed) if paths[run.run_id]]
    kept, left = {run.run_id: {} for run in runs}, most_bytes
    for run in traced:
        steps = by_importance(list(paths[run.run_id]), run.collapse_step)
        kept[run.run_id], used = fitting(paths[run.run_id], steps, most_bytes // len(traced))
        left -= used
    for run in traced:
        if not kept[run.run_id]:
            kept[run.run_id], used = fitting(paths[run.run_id], list(paths[run.run_id])[-1:], left, most_responses=1)
            left -= used
    return {run_id: embedded(paths[run_id], kept[run_id]) for run_id in paths}


def embedded(paths: dict[int, Path], kept: dict[int, dict]) -> dict:
    return {"traces": [kept[step] for step in sorted(kept)], "left_out": [step for step in paths if step not in kept]}


def trace_paths(run: Run) -> dict[int, Path]:
    """The run's trace files by step, in order of steps."""
    return by_step(run.path / "traces", ".json")


def fitting(paths: dict[int, Path], steps: list[int], room: int, most_responses: int | None = None) -> tuple[dict, int]:
    """({step: trace}, number of bytes) of the traces that fit into `room`, taken in the order of `steps`. The first one that does
    not fit whole is the last, with those of its first responses that fit."""
    kept, used = {}, 0
    for step in steps:
        trace = read_json(paths[step])
        if trace is None:
            continue
        some, size = shortened(trace, room - used, most_responses)
        if some["responses"]:
            kept[step], used = some, used + size
        if len(some["responses"]) < some["num_responses"]:
            break  # only a smaller trace could still fit, and looking for one would read thousands in a long sweep
    return kept, used


def shortened(trace: dict, room: int, most_responses: int | None) -> tuple[dict, int]:
    """(trace, number of bytes). The trace has as many of its first responses as fit, and `num_responses`, the recorded number."""
    responses = [pooled(response) for response in trace["responses"][:most_responses]]
    rest = trace | {"responses": [], "num_responses": len(trace["responses"])}
    used = num_bytes(rest)
    for response in responses:
        used += num_bytes(response)
        if used > room:
            return rest, used - num_bytes(response)
        rest["responses"].append(response)
    return rest, used


def num_bytes(value: dict) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def pooled(response: dict) -> dict:
    """The response with its distinct series in a list `series`, and their indices in place of the series."""
    places: dict[str, int] = {}
    place = lambda series: places.setdefault(json.dumps(series), len(places))
    short = response | {key: place(response[key]) for key in PER_TOKEN}
    short["rules"] = {
        name: {"weight": place(rule["weight"]), "keep": place(rule["keep"]), "aux": {k: place(v) for k, v in rule["aux"].items()}}
        for name, rule in response["rules"].items()
    }
    return short | {"series": [json.loads(text) for text in places]}


def by_importance(steps: list[int], collapse_step: int | None) -> list[int]:
    """The steps in the order in which they get room: last, first, the two nearest to the collapse, then evenly spread ones."""
    ends = [*steps[-1:], *steps[:1]]
    around = sorted(steps, key=lambda step: abs(step - collapse_step))[:2] if collapse_step is not None else []
    return list(dict.fromkeys([*ends, *around, *halving(steps)]))


def halving(steps: list[int]) -> list[int]:
    """The steps reordered: the middle, then the middles of both halves, and so on, so that the first n are spread evenly for
    every n."""
    order, stretches = [], [steps]
    while stretches:
        stretch = stretches.pop(0)
        if stretch:
            middle = len(stretch) // 2
            order.append(stretch[middle])
            stretches += [stretch[:middle], stretch[middle + 1 :]]
    return order
