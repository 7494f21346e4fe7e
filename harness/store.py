"""A run's folder on disk: the only place where results live, and the only code that reads or writes it.

    runs/<experiment>/<model>/<method>/seed=<n>-<hash8>/
        config.json     resolved settings         status.json    state, step, reason, attempts, provenance
        metrics.jsonl   one row per step          evals.jsonl    one row per benchmark, problem and evaluation
        samples/ batches/ checkpoints/ logs/      lock.json      who is working in here

Strict JSON: a number that is not finite is stored as null. No torch here: analysis and status tables read folders without it.
What happens on each fault: docs/runs.md.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

log = logging.getLogger(__name__)

TERMINAL_STATES = ("completed", "collapsed", "failed")  # collapsed: stopped by the collapse rule before its last step
HEARTBEAT_SECONDS = 10
STALE_SECONDS = 60  # a lock from another host with an older heartbeat than this may be taken over

ROW_KEYS = {"metrics": ("step",), "evals": ("step", "benchmark", "problem_id"), "shadow": ("step", "rule")}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class WriteError(OSError):
    """A file of a run could not be written. Says which, why, and what to do; nothing acknowledged is lost."""


REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "make that file system writable, or choose another runs_dir",
    errno.EACCES: "give yourself the right to write there, or choose another runs_dir",
    errno.EPERM: "give yourself the right to write there, or choose another runs_dir",
    errno.ENOTDIR: "choose another runs_dir: part of that path is a file",
    errno.EEXIST: "choose another runs_dir: part of that path is a file",
}


@contextmanager
def writing(path: Path):
    """Turn a failed write below into a WriteError that names the file and the remedy."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        remedy = REMEDIES.get(error.errno, "see to that disk")
        message = f"cannot write {path} ({error.strerror or error}): {remedy}, then give the same command again: it resumes"
        raise WriteError(error.errno, message) from error


def put(file, data: bytes) -> None:
    """The one place where bytes of a run go to a file: all of them, on disk when this returns."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "wb") as file:
                put(file, data.encode() if isinstance(data, str) else data)
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """A rename is durable only once its folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict | None:
    """None when the file is absent, empty or torn: the caller decides what that means."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None


def append_rows(path: Path, rows: list[dict]) -> None:
    """Append JSON lines durably. If a crash left half a line, end it first so that it can't swallow a good row."""
    text = "".join(json.dumps(strict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with open(path, "ab+") as file:
            put(file, (b"\n" if _ends_in_half_a_line(file) else b"") + text.encode())
        if is_new:
            sync_folder(path.parent)


def strict(value):
    """JSON has no NaN and no infinity: null stands for both, at any depth."""
    if isinstance(value, dict):
        return {key: strict(part) for key, part in value.items()}
    if isinstance(value, list):
        return [strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ends_in_half_a_line(file) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def read_rows(path: Path, key: tuple[str, ...]) -> list[dict]:
    """All rows of a JSON Lines file as `parse_rows` sees them; none if it does not exist."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return parse_rows(file, key)


def parse_rows(lines: Iterable[str], key: tuple[str, ...]) -> list[dict]:
    """Rows in order of their step; of several rows with one key the last wins; half-written lines are passed over."""
    rows = {}
    for row in _values(list(lines)):
        with suppress(KeyError, TypeError):
            rows[tuple(row[name] for name in key)] = row
    return sorted(rows.values(), key=lambda row: row["step"])


def _values(lines: list[str]) -> list:
    """Of whole lines all at once, which takes half the time; where one is broken, line by line."""
    with suppress(json.JSONDecodeError):
        values = json.loads(f"[{','.join(lines)}]")
        if len(values) == len(lines):
            return values
    values = []
    for line in lines:
        with suppress(json.JSONDecodeError):
            values.append(json.loads(line))
    return values


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
                rows = parse_rows(file.read().decode(errors="replace").split("\n"), ROW_KEYS[name])
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

    def num_attempts(self) -> int:
        """Attempts begun so far, from the status and, where that was lost, from logs/attempt_<n>.json."""
        numbers = [path.stem.removeprefix("attempt_") for path in (self.path / "logs").glob("attempt_*.json")]
        logged = max((int(number) for number in numbers if number.isdigit()), default=0)
        return max((self.read_status() or {}).get("attempts", 0), logged)

    def attempts(self) -> list[dict]:
        """What logs/attempt_<n>.json hold, in order of n."""
        records = [read_json(path) for path in (self.path / "logs").glob("attempt_*.json")]
        return sorted([record for record in records if record], key=lambda record: record["number"])

    def end_attempt(self, number: int, **facts) -> str:
        """Write into logs/attempt_<n>.json how it ended. Returns the time of it."""
        path, ended = self.path / "logs" / f"attempt_{number}.json", now()
        write_json(path, (read_json(path) or {"number": number}) | facts | {"ended": ended})
        return ended

    def spent_before(self) -> tuple[float, float]:
        """Seconds and device-hours of the attempts so far, each with its own number of ranks. One that was killed left its
        clock in the lock, at most a heartbeat old."""
        status = self.read_status() or {}
        killed = (self.lock.previous or {}).get("seconds", 0.0) if status.get("state") == "running" else 0.0
        hours = (status.get("device_hours") or 0.0) + killed * status.get("ranks", 1) / 3600
        return status.get("seconds", 0.0) + killed, round(hours, 6)

    def newest_checkpoint(self) -> int:
        """Its step; 0 when there is none."""
        return max(complete_steps(self.path / "checkpoints"), default=0)

    def remove_leftovers(self) -> None:
        """What a killed process had written aside and not yet renamed. Only for the folder's owner."""
        places = [self.path, *(self.path / name for name in ("samples", "traces", "batches", "logs"))]
        for path in chain.from_iterable(place.glob(".*.tmp") for place in places):
            if path.is_file():
                path.unlink()

    @cached_property
    def lock(self) -> RunLock:
        return RunLock(self.path / "lock.json")


def complete_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints with a completion mark, ascending."""
    return [step for step, path in by_step(checkpoints).items() if (path / "manifest.json").exists()]


def by_step(folder: Path, ending: str = "") -> dict[int, Path]:
    """What is called step=<n><ending> in a folder, in order of n. Other names, a copy kept beside say, are passed over."""
    found = [(re.fullmatch(rf"step=(\d+){re.escape(ending)}", path.name), path) for path in folder.glob(f"step=*{ending}")]
    return dict(sorted((int(match[1]), path) for match, path in found if match))


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
    """Ownership of a run folder by one process, written in a file that a heartbeat thread keeps changing.

    A lock whose process is gone from this host is taken over at once. One from another host (or another container of this
    one) counts as alive while its file is younger than STALE_SECONDS. An older one is watched for some heartbeats before it
    is taken over, because clocks differ and jump: a beat is a change of the file, whatever the time.
    """

    def __init__(self, path: Path):
        self.path = path
        self.previous: dict | None = None  # the lock of a dead owner that acquire() replaced
        self._content: dict = {}
        self._stop = threading.Event()

    def acquire(self) -> bool:
        """Take the folder; False if another live process owns it."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.owner() is not None or (self._is_elsewhere() and self._changes()):
            return False
        seen = self._look()
        with self._guard():
            if self.owner() is not None or self._look() != seen:
                return False  # someone was faster
            self.previous = read_json(self.path)
            self._content = me() | {"since": now(), "seconds": 0.0}
            write_json(self.path, self._content)
        threading.Thread(target=self._beat, args=(time.monotonic(),), daemon=True).start()
        return True

    def release(self) -> None:
        self._stop.set()
        try:
            with self._guard():
                if self.is_mine():
                    self.path.unlink()
        except OSError as error:  # the lock ends with this process anyway
            log.warning("the lock %s could not be removed: %s", self.path, error)

    def is_mine(self) -> bool:
        lock = read_json(self.path) or {}
        return {key: lock.get(key) for key in me()} == me()

    def require(self) -> None:
        """Raise if the folder was taken over, which happens to a process that slept for minutes: it may write no more."""
        if not self.is_mine():
            raise RuntimeError(f"{self.path.parent} was taken over by another process: {read_json(self.path)}")

    def owner(self) -> dict | None:
        """Who owns the folder now, as {host, pid, born, namespace, since, seconds}; None if nobody who lives."""
        lock = read_json(self.path)
        if lock is None:
            return None
        if not self._is_elsewhere():
            return lock if born(lock.get("pid", 0)) == lock.get("born") is not None else None
        try:
            return lock if abs(time.time() - self.path.stat().st_mtime) < STALE_SECONDS else None
        except FileNotFoundError:
            return None

    def _is_elsewhere(self) -> bool:
        lock = read_json(self.path)
        return lock is not None and any(lock.get(key) != me()[key] for key in ("host", "namespace"))

    def _look(self) -> tuple | None:
        """Changes with every heartbeat."""
        try:
            return self.path.stat().st_mtime_ns, self.path.read_bytes()
        except FileNotFoundError:
            return None

    def _changes(self) -> bool:
        """Watch for two and a half heartbeats, by a clock that does not jump."""
        first, start = self._look(), time.monotonic()
        while time.monotonic() - start < 2.5 * HEARTBEAT_SECONDS:
            if self._look() != first:
                return True
            time.sleep(HEARTBEAT_SECONDS / 10)
        return False

    @contextmanager
    def _guard(self):
        """Between looking at the owner and writing ourselves nobody else may do the same."""
        with writing(self.path), open(self.path.with_name(".lock.guard"), "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _beat(self, start: float) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                with self._guard():
                    if self._stop.is_set() or not self.is_mine():
                        return
                    write_json(self.path, self._content | {"seconds": round(time.monotonic() - start, 1)})
            except OSError:  # a full disk is no reason to lose the folder
                with suppress(OSError):
                    os.utime(self.path)


def me() -> dict:
    """This process, so that no other is taken for it: a pid means nothing on another host or in another container."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> dict:
    """Asked once: a laptop's host name may change while it works."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = None
    return {"host": socket.gethostname(), "namespace": namespace, "pid": pid, "born": born(pid)}


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
