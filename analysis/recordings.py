"""Reads what runs record beside metrics (docs/recordings.md): shadow rows, and traces of a few responses token by token."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.runs import InputError, Run
from harness.files import read_json
from harness.store import RunFolder, by_step


def agreement(runs: list[Run]) -> dict[str, float]:
    """For each shadow rule the Jaccard index of the tokens that it drops and those that the running rule drops: mean over
    steps, then over runs."""
    by_rule = defaultdict(list)
    for run in runs:
        steps = defaultdict(list)
        for row in RunFolder(run.path).rows("shadow"):
            if row["jaccard"] is not None:
                steps[row["rule"]].append(row["jaccard"])
        for rule, values in steps.items():
            by_rule[rule].append(np.mean(values))
    return {rule: float(np.mean(values)) for rule, values in by_rule.items()}


BUDGET_SERIES = {"c", "w", "S_prev", "Z"}  # per-token values that a rule with a prefix budget records


@dataclass(frozen=True)
class TracedResponse:
    """One response of T tokens under a rule with a prefix budget. threshold_T: c_t / w_t; drift: S_T, the sum of all Z_t."""

    run: Run
    step: int
    threshold_T: np.ndarray
    divergence_T: np.ndarray
    drift: float


def traced_responses(run: Run) -> list[TracedResponse]:
    """The responses of the run's last trace, each under the run's own rule if that has a prefix budget, else under CPPO's shipped
    settings; without those that have neither. Empty for a run without traces."""
    trace = last_trace(run.path)
    if trace is None:
        return []
    try:
        return [traced for response in trace["responses"] if (traced := budgeted(run, trace["step"], response))]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the last file in {run.path}/traces is damaged ({error!r}): move it away") from error


def last_trace(folder: Path) -> dict | None:
    paths = by_step(folder / "traces", ".json")
    return read_json(paths[max(paths)]) if paths else None


def own_budget(trace: dict | None) -> dict | None:
    """The trace with the decisions of the run's own rule alone; None without a trace, or if that rule has no prefix budget."""
    responses = [response | {"rules": {"own": response["rules"]["own"]}} for response in trace["responses"]] if trace else []
    has_budget = any(response["rules"]["own"].get("aux", {}).keys() >= BUDGET_SERIES for response in responses)
    return trace | {"rules": {"own": trace["rules"]["own"]}, "responses": responses} if has_budget else None


def budgeted(run: Run, step: int, response: dict) -> TracedResponse | None:
    length = len(response["token_ids"])
    for rule in ("own", "cppo"):
        aux = response["rules"].get(rule, {}).get("aux", {})
        if aux.keys() >= BUDGET_SERIES:
            c, w, before, z = (per_token(aux[key], length) for key in ("c", "w", "S_prev", "Z"))
            return TracedResponse(run, step, c / w, per_token(response["divergence"], length), float(before[-1] + z[-1]))
    return None


def per_token(values: list | float | None, length: int) -> np.ndarray:
    """A stored series as an array [length]: it is a list, or one number that stands for all tokens; null becomes nan."""
    return np.broadcast_to(np.array(values, dtype=float), length)
