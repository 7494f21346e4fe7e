"""Ownership of a run folder by one process."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from harness.files import now, read_json, write_json, writing

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10
STALE_SECONDS = 60  # a lock from another host with an older heartbeat than this may be taken over


class RunLock:
    """Ownership of a run folder by one process, written in a file that a heartbeat thread keeps changing.

    A lock whose process is gone from this host is taken over at once. One from another host (or another container of this
    one) counts as alive while its file is younger than STALE_SECONDS. An older one is watched for some heartbeats before it
    is taken over, because clocks differ and jump: any change of the file counts as a heartbeat, whatever its time.
    """

    def __init__(self, path: Path):
        self.path = path
        self.previous: dict | None = None  # the lock of a dead owner that acquire() replaced
        self._content: dict = {}
        self._stop = threading.Event()

    def acquire(self) -> bool:
        """Take ownership of the folder. False if another live process owns it."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.owner() is not None or (self._is_elsewhere() and self._changes()):
            return False
        seen = self._look()
        with self._guard():
            if self.owner() is not None or self._look() != seen:
                return False  # another process was faster
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
        """RuntimeError if another process has taken over the folder, as happens after minutes of sleep, or if the folder was
        removed: write no more."""
        if not self.is_mine():
            other = read_json(self.path)
            what = f"taken over by another process: {other}" if other else f"moved or removed: its {self.path.name} is gone"
            raise RuntimeError(f"{self.path.parent} was {what}")

    def owner(self) -> dict | None:
        """Record of the live process that owns the folder: {host, pid, born, namespace, since, seconds}; else None."""
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
        """Time and content of the lock file, which change with every heartbeat; None without a file."""
        try:
            return self.path.stat().st_mtime_ns, self.path.read_bytes()
        except FileNotFoundError:
            return None

    def _changes(self) -> bool:
        """Whether the file changes within two and a half heartbeats, by a clock that does not jump."""
        first, start = self._look(), time.monotonic()
        while time.monotonic() - start < 2.5 * HEARTBEAT_SECONDS:
            if self._look() != first:
                return True
            time.sleep(HEARTBEAT_SECONDS / 10)
        return False

    @contextmanager
    def _guard(self):
        """Keep other processes from changing the lock while this one checks for an owner and writes itself."""
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
    """Identity of this process. A pid alone would not do: it means nothing on another host or in another container."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> dict:
    """Identity of a process. Cached, because a laptop's host name may change while the process runs."""
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
