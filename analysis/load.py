"""Loads run folders into one Sweep: the runs, and two tidy tables (one row per run and step; one per run, step and problem).

Parsed rows are cached as Parquet under a hash of the bytes they were parsed from, so an unchanged run is parsed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.complete import require_complete
from analysis.progress import progress
from analysis.runs import InputError, Run, mixed_settings, read_run
from harness.files import write_atomic
from harness.store import RunFolder, find_runs

ReadRows = Callable[[RunFolder, str], list[dict]]  # (folder, table name) -> the table's rows
CACHE_VERSION = 2  # part of every cache key: raise it when the tables' columns or the checks of rows change
EVAL_COLUMNS = ["step", "benchmark", "problem_id", "n", "num_correct", "num_no_answer", "num_truncated", "grader"]


@dataclass(frozen=True)
class Sweep:
    """`metrics`: run_id, step and one column per metric key. `evals`: run_id and EVAL_COLUMNS. Both sorted by run and step.

    `mixed`: one line per comparison group whose runs do not share their settings; empty unless that was allowed.
    """

    runs: list[Run]
    metrics: pd.DataFrame
    evals: pd.DataFrame
    mixed: list[str]

    @cached_property
    def _metrics_by_run(self) -> dict[str, pd.DataFrame]:
        return dict(list(self.metrics.groupby("run_id", observed=True)))

    def metric(self, run: Run, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of one metric of one run, where it was recorded and finite; empty if it never was."""
        table = self._metrics_by_run.get(run.run_id)
        if table is None or key not in table:
            return np.array([], dtype=int), np.array([])
        steps, values = table["step"].to_numpy(), table[key].to_numpy()
        known = np.isfinite(values)
        return steps[known], values[known]


def load(
    roots: Sequence[Path | str], cache: Path | None = None, allow_mixed: bool = False, rows: ReadRows = RunFolder.rows
) -> Sweep:
    """Read every run at or below the roots. `rows` reads a table of a run folder.

    InputError if there is no run, if one is given twice, or if a group mixes settings and `allow_mixed` is False.
    """
    folders = {folder.path.resolve(): folder for folder in find_runs(*roots)}
    if not folders:
        raise InputError(f"no runs under {', '.join(map(str, roots))}: make some with python -m harness, or give another folder")
    pairs = sorted(((read_run(folder), folder) for folder in folders.values()), key=lambda pair: pair[0].run_id)
    runs = [run for run, _ in pairs]
    refuse_duplicates(runs)
    begun = [run for run in runs if run.finished or run.step > 0]  # one that failed at once is compared with none
    mixed = mixed_settings(begun)
    if not allow_mixed:
        refuse_mixed(mixed)
    refuse_seeds_twice(begun)
    tables = [
        tuple(read_table(run, folder, name, cache, rows) for name in ("metrics", "evals"))
        for run, folder in progress(pairs, "reading runs")
    ]
    for (run, folder), (metrics, evals) in zip(pairs, tables, strict=True):
        require_complete(run, folder, metrics, evals)
    metrics, evals = (stack(runs, [pair[i] for pair in tables]) for i in (0, 1))
    return Sweep(runs, metrics, evals, mixed)


def refuse_mixed(mixed: list[str]) -> None:
    if mixed:
        raise InputError(
            "runs of one comparison group differ in more than method and seed:\n  " + "\n  ".join(mixed) + "\n"
            "give the folders of one setting, or name the other setting's runs as another experiment; "
            "--allow-mixed compares them anyway, a seed of a method once, and says so on every page"
        )


def refuse_duplicates(runs: list[Run]) -> None:
    for one, other in zip(runs, runs[1:], strict=False):
        if one.run_id == other.run_id:
            raise InputError(f"{one.path} and {other.path} hold the same run {one.run_id}: give only one of them")


def refuse_seeds_twice(runs: list[Run]) -> None:
    """InputError if two runs of a group have the same method and seed, which even allow_mixed forbids: a seed is one sample."""
    seen: dict[tuple, Run] = {}
    for run in runs:
        other = seen.setdefault((run.group, run.method, run.seed), run)
        if other is not run:
            raise InputError(f"{other.path} and {run.path} are both seed {run.seed} of {run.method}: give only one of them")


def read_table(run: Run, folder: RunFolder, name: str, cache: Path | None, rows: ReadRows) -> pd.DataFrame:
    """A table of a run, from the cache if it was parsed from the same bytes. Otherwise the new entry replaces the older one."""
    path = folder.path / f"{name}.jsonl"
    if cache is None or not path.exists():
        return parse(rows(folder, name), name)
    family = f"v{CACHE_VERSION}-{name}-{hashlib.sha256(run.run_id.encode()).hexdigest()[:16]}"
    stored = cache / f"{family}-{hashlib.sha256(path.read_bytes()).hexdigest()[:32]}.parquet"
    with suppress(OSError, ValueError):  # none, or damaged: parsed anew
        return pd.read_parquet(stored)
    table = parse(rows(folder, name), name)
    for old in cache.glob(f"{family}-*"):
        old.unlink(missing_ok=True)
    write_atomic(stored, table.to_parquet())
    return table


def parse(rows: list[dict], name: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=EVAL_COLUMNS) if name == "evals" else numeric(pd.DataFrame(rows))


def numeric(metrics: pd.DataFrame) -> pd.DataFrame:
    """Metric values as floats. A metrics row may hold numbers only."""
    if metrics.empty:
        return pd.DataFrame({"step": pd.Series(dtype="int64")})
    values = metrics.drop(columns="step")
    return pd.concat([metrics["step"], pd.DataFrame(values.to_numpy("float64"), columns=values.columns)], axis=1)


def stack(runs: list[Run], tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The runs' tables below each other, with a first column run_id."""
    counts = [len(table) for table in tables]
    stacked = pd.concat(tables, ignore_index=True)
    codes = pd.Series(range(len(runs))).repeat(counts).to_numpy()
    run_id = pd.Series(pd.Categorical.from_codes(codes, categories=[run.run_id for run in runs]), name="run_id")
    return pd.concat([run_id, stacked], axis=1)
