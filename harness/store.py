"""A run's folder on disk: the only place where results live, and the only code that reads or writes it.

    runs/<experiment>/<model>/<method>/seed=<n>-<hash8>/
        config.json     resolved settings         status.json    state, step, reason, attempts, provenance
        metrics.jsonl   one row per step          evals.jsonl    one row per benchmark, problem and evaluation
        samples/ batches/ checkpoints/ logs/      lock.json      who is working in here

No torch here: analysis and status tables read folders without it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

TERMINAL_STATES = ("completed", "collapsed", "failed")  # collapsed: stopped by the collapse rule before its last step
STATES = ("running", "preempted", *TERMINAL_STATES)
HEARTBEAT_SECONDS = 10
STALE_SECONDS = 60  # a lock from another host that has not been touched for this long is taken over

ROW_KEYS = {"metrics": ("step",), "evals": ("step", "benchmark", "problem_id"), "shadow": ("step", "rule")}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(aside, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """A rename is durable only once its folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value) -> None:
    write_atomic(path, json.dumps(value, indent=1, sort_keys=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict | None:
    """None when the file is absent, empty or torn: the caller decides what that means."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def append_rows(path: Path, rows: list[dict]) -> None:
    """Append JSON lines durably. If a crash left half a line, end it first so that it can't swallow a good row."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=True) + "\n" for row in rows)
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, key: tuple[str, ...]) -> list[dict]:
    """All rows of a JSON Lines file as `parse_rows` sees them; none if it does not exist."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return parse_rows(file, key)


def parse_rows(lines: Iterable[str], key: tuple[str, ...]) -> list[dict]:
    """Rows in order of their step; of several rows with one key the last wins; half-written lines are passed over."""
    rows = {}
    for line in lines:
        try:
            row = json.loads(line)
            rows[tuple(row[name] for name in key)] = row
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return sorted(rows.values(), key=lambda row: row["step"])


@dataclass(frozen=True)
class RunFolder:
    path: Path

    def read_config(self) -> dict | None:
        return read_json(self.path / "config.json")

    def read_status(self) -> dict | None:
        return read_json(self.path / "status.json")

    def update_status(self, **changes) -> dict:
        status = (self.read_status() or {}) | changes | {"updated": now()}
        write_json(self.path / "status.json", status)
        return status

    def append(self, name: str, rows: list[dict]) -> None:
        append_rows(self.path / f"{name}.jsonl", rows)

    def rows(self, name: str) -> list[dict]:
        return read_rows(self.path / f"{name}.jsonl", ROW_KEYS[name])

    def tail(self, name: str, count: int) -> list[dict]:
        """The last `count` rows, read from the file's end: cheap on long runs."""
        path, rows, size = self.path / f"{name}.jsonl", [], 1 << 16
        if not path.exists():
            return []
        total = path.stat().st_size
        while True:
            with open(path, "rb") as file:
                file.seek(max(0, total - size))
                rows = parse_rows(file.read().decode(errors="replace").splitlines(), ROW_KEYS[name])
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
        return self.state in ("completed", "collapsed")

    @cached_property
    def lock(self) -> RunLock:
        return RunLock(self.path / "lock.json")


def find_runs(*roots: Path | str) -> Iterator[RunFolder]:
    """Every run folder at or below the roots, in a stable order. Symbolic links are not followed."""
    for root in roots:
        if not Path(root).is_dir():
            raise ValueError(f"{root} is not a folder: give run folders or a folder that holds them (default: runs)")
        for folder, subfolders, files in os.walk(root):
            subfolders.sort()
            if "config.json" in files and ("status.json" in files or "metrics.jsonl" in files):
                subfolders.clear()
                yield RunFolder(Path(folder))


class RunLock:
    """Ownership of a run folder by one process: host, pid and its start time in a file, touched by a heartbeat thread.

    A lock whose process is gone from this host is taken over at once; one from another host when its heartbeat is
    older than STALE_SECONDS.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stop = threading.Event()

    def acquire(self) -> bool:
        """Take the folder; False if another live process owns it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._guard():
            if self.owner() is not None:
                return False
            write_json(self.path, self._me() | {"since": now()})
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def release(self) -> None:
        self._stop.set()
        self.path.unlink(missing_ok=True)

    def owner(self) -> dict | None:
        """The live owner as {host, pid, born, since}, or None."""
        lock = read_json(self.path)
        if lock is None:
            return None
        if lock.get("host") == socket.gethostname():
            return lock if born(lock.get("pid", 0)) == lock.get("born") is not None else None
        return lock if time.time() - self.path.stat().st_mtime < STALE_SECONDS else None

    @contextmanager
    def _guard(self):
        """Between looking at the owner and writing ourselves nobody else may do the same."""
        with open(self.path.with_name(".lock.guard"), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _me(self) -> dict:
        return {"host": socket.gethostname(), "pid": os.getpid(), "born": born(os.getpid())}

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.path)
            except FileNotFoundError:
                return


def born(pid: int) -> str | None:
    """When a process of this host started, in clock ticks since boot (a pid alone may be reused); None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if stat[0] == "Z" else stat[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:  # no /proc (macOS): alive or not is all there is to know
        os.kill(pid, 0)
        return "alive"
    except (ProcessLookupError, PermissionError):
        return None

