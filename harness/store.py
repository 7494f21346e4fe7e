"""A run's folder on disk, the only place where results live.

    runs/<experiment>/<model>/<method>/seed=<n>-<hash8>/
        config.json     resolved settings         status.json    state, step, reason, attempts, provenance
        metrics.jsonl   one row per step          evals.jsonl    one row per benchmark, problem and evaluation
        samples/ batches/ checkpoints/ logs/      lock.json      the process that owns the folder

This module does not import torch, so that analysis and status tables can do without it.
What happens on each fault: docs/runs.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from harness.files import append_rows, now, parse_rows, read_json, read_rows, write_json
from harness.lock import RunLock

FINISHED_STATES = ("completed", "collapsed")  # collapsed: stopped by the collapse rule before its last step
TERMINAL_STATES = (*FINISHED_STATES, "failed")

MARKS = {"config.json", "status.json", "metrics.jsonl"}  # files by which a run folder is known
SUMS = ("attempts", "seconds", "device_hours", "ranks")  # keys of the status that must be numbers
ROW_KEYS = {"metrics": ("step",), "evals": ("step", "benchmark", "problem_id"), "shadow": ("step", "rule")}


def is_number(value: object) -> bool:
    """Whether the value is a finite number, or None, which stands for a number that is not finite."""
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def is_metrics_row(row: dict) -> bool:
    return all(is_number(value) for value in row.values())


def is_evals_row(row: dict) -> bool:
    n, num_correct = row.get("n"), row.get("num_correct")
    return type(n) is int and type(num_correct) is int and 0 <= num_correct <= n and n > 0


def is_shadow_row(row: dict) -> bool:
    return "jaccard" in row and is_number(row["jaccard"])


IS_ROW = {"metrics": is_metrics_row, "evals": is_evals_row, "shadow": is_shadow_row}


def content_hash(value: object) -> str:
    """Hash of a JSON value as 16 hex digits; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def flatten(settings: dict, prefix: str = "") -> dict:
    """Nested settings with dotted keys: {"train": {"lr": 1}} -> {"train.lr": 1}."""
    flat = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@dataclass(frozen=True)
class RunFolder:
    """Reads and writes one run's folder; the module's docstring lists the files."""

    path: Path

    def planned_evaluations(self, last: int) -> set[int]:
        """Steps up to `last` at which a run with these settings is evaluated."""
        settings = (self.read_config() or {}).get("settings") or {}
        if not settings.get("eval", {}).get("benchmarks"):
            return set()
        steps, every = settings["train"]["steps"], settings["eval"]["every"]
        return {step for step in (0, *range(every, steps, every), steps) if step <= last}

    def read_config(self) -> dict | None:
        return read_json(self.path / "config.json")

    def read_status(self) -> dict | None:
        """Content of status.json without keys of SUMS that are not numbers; None if it is not readable."""
        status = read_json(self.path / "status.json")
        return status and {key: value for key, value in status.items() if key not in SUMS or type(value) in (int, float)}

    def update_status(self, **changes) -> dict:
        status = (self.read_status() or {}) | changes | {"updated": now()}
        write_json(self.path / "status.json", status)
        return status

    def append(self, name: str, rows: list[dict]) -> None:
        append_rows(self.path / f"{name}.jsonl", rows)

    def rows(self, name: str) -> list[dict]:
        return read_rows(self.path / f"{name}.jsonl", ROW_KEYS[name], IS_ROW[name])

    def damaged_lines(self, name: str) -> list[int]:
        """Numbers of the lines that `rows` skips: half-written by a killed process, or damaged since."""
        path, key = self.path / f"{name}.jsonl", ROW_KEYS[name]
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
        return [number for number, line in enumerate(lines, 1) if line and not parse_rows([line], key, IS_ROW[name])]

    def tail(self, name: str, count: int) -> list[dict]:
        """The last `count` rows, read from the file's end: cheap on long runs."""
        path, rows, size = self.path / f"{name}.jsonl", [], 1 << 16
        if not path.exists():
            return []
        total = path.stat().st_size
        while True:
            with open(path, "rb") as file:
                file.seek(max(0, total - size))
                rows = parse_rows(file.read().decode(errors="replace").split("\n"), ROW_KEYS[name], IS_ROW[name])
            if len(rows) >= count or size >= total:
                return rows[-count:]
            size *= 4

    def last_step(self) -> int:
        """The last step with a metrics row; 0 when there is none."""
        rows = self.tail("metrics", 1)
        return rows[-1]["step"] if rows else 0

    @property
    def state(self) -> str:
        """The state the run itself wrote; "missing" without a readable status."""
        return (self.read_status() or {}).get("state", "missing")

    @property
    def finished(self) -> bool:
        return self.state in FINISHED_STATES

    def num_attempts(self) -> int:
        """Attempts begun so far, from the status and, where that was lost, from logs/attempt_<n>.json."""
        numbers = [path.stem.removeprefix("attempt_") for path in (self.path / "logs").glob("attempt_*.json")]
        logged = max((int(number) for number in numbers if number.isdigit()), default=0)
        return max((self.read_status() or {}).get("attempts", 0), logged)

    def attempts(self) -> list[dict]:
        """Contents of the files logs/attempt_<n>.json, in order of n."""
        records = [read_json(path) for path in (self.path / "logs").glob("attempt_*.json")]
        return sorted((r for r in records if r and type(r.get("number")) is int), key=lambda record: record["number"])

    def end_attempt(self, number: int, **facts) -> str:
        """Write into logs/attempt_<n>.json how the attempt ended. Returns the time of its end."""
        path, ended = self.path / "logs" / f"attempt_{number}.json", now()
        write_json(path, (read_json(path) or {"number": number}) | facts | {"ended": ended})
        return ended

    def spent_before(self) -> tuple[float, float]:
        """Seconds and device-hours that the attempts so far have used.

        Device-hours of an attempt are its hours times its number of ranks. An attempt that was killed counts up to its last
        heartbeat, whose time is in the lock file.
        """
        status = self.read_status() or {}
        killed = (self.lock.previous or {}).get("seconds", 0.0) if status.get("state") == "running" else 0.0
        hours = (status.get("device_hours") or 0.0) + killed * status.get("ranks", 1) / 3600
        return status.get("seconds", 0.0) + killed, round(hours, 6)

    def newest_checkpoint(self) -> int:
        """Step of the newest complete checkpoint; 0 when there is none."""
        return max(complete_steps(self.path / "checkpoints"), default=0)

    def remove_leftovers(self) -> None:
        """Remove temporary files of a killed process. Only the folder's owner may call this."""
        places = [self.path, *(self.path / name for name in ("samples", "traces", "batches", "logs"))]
        for path in chain.from_iterable(place.glob(".*.tmp") for place in places):
            if path.is_file():
                path.unlink()

    @cached_property
    def lock(self) -> RunLock:
        return RunLock(self.path / "lock.json")


def complete_steps(checkpoints: Path) -> list[int]:
    """Steps of the complete checkpoints (those with a manifest), ascending."""
    return [step for step, path in by_step(checkpoints).items() if (path / "manifest.json").exists()]


def by_step(folder: Path, ending: str = "") -> dict[int, Path]:
    """Files or folders named step=<n><ending> in `folder`, by n, ascending. Other names, such as those of copies, are ignored."""
    matches = [(re.fullmatch(rf"step=([0-9]+){re.escape(ending)}", path.name), path) for path in folder.glob(f"step=*{ending}")]
    return dict(sorted((int(match[1]), path) for match, path in matches if match))


def find_runs(*roots: Path | str) -> Iterator[RunFolder]:
    """Every run folder at or below the roots, in a stable order: it holds two of MARKS, so that one may be lost. Symbolic links
    are not followed."""
    for root in roots:
        if not Path(root).is_dir():
            raise ValueError(f"{root} is not a folder: give run folders or a folder that holds them (default: runs)")
        for folder, subfolders, files in os.walk(root):
            subfolders.sort()
            if len(MARKS.intersection(files)) >= 2:
                subfolders.clear()
                yield RunFolder(Path(folder))
