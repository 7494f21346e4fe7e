"""Reads and writes files that survive a crash.

They are written to a temporary file and renamed, or appended line by line; readers skip half-written lines. JSON is strict: a
number that is not finite is stored as null.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

MAX_STEP = 10**9  # no run has this many steps: a larger number is damage


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class WriteError(OSError):
    """A file could not be written. The message names the file, the cause and the remedy for a run, whose earlier rows are safe;
    `what` only file and cause."""

    def __init__(self, number: int | None, message: str, what: str = ""):
        super().__init__(number, message)
        self.what = what or message


REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "make that file system writable, or choose another runs_dir",
    errno.EACCES: "give yourself the right to write there, or choose another runs_dir",
    errno.EPERM: "give yourself the right to write there, or choose another runs_dir",
    errno.ENOTDIR: "choose another runs_dir: part of that path is a file",
    errno.EEXIST: "choose another runs_dir: part of that path is a file",
}


@contextmanager
def writing(path: Path):
    """Turn an OSError of the block into a WriteError that names the file and the remedy."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        remedy = REMEDIES.get(error.errno, "see to that disk")
        what = f"cannot write {path} ({error.strerror or error})"
        raise WriteError(error.errno, f"{what}: {remedy}, then give the same command again: it resumes", what) from error


def put(file, data: bytes) -> None:
    """Write all of `data`, flush and fsync: it is on disk when this returns."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a temporary file, fsync it and rename it: a reader sees the old file or the new one, never half of one."""
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
    """Fsync a folder: a rename inside it is durable only after that."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict | None:
    """Content of a JSON file; None when it is absent, unreadable, empty, half-written or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def append_rows(path: Path, rows: list[dict]) -> None:
    """Append rows as JSON lines, on disk when this returns. Half a line left by a crash is ended first."""
    text = "".join(json.dumps(strict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with open(path, "ab+") as file:
            put(file, (b"\n" if _ends_in_half_a_line(file) else b"") + text.encode())
        if is_new:
            sync_folder(path.parent)


def strict(value):
    """The value with None in place of NaN and infinity at any depth, since JSON has neither."""
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


IsRow = Callable[[dict], bool]


def read_rows(path: Path, key: tuple[str, ...], is_row: IsRow = lambda row: True) -> list[dict]:
    """All rows of a JSON Lines file, as `parse_rows` returns them; none if the file does not exist."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return parse_rows(file, key, is_row)


def parse_rows(lines: Iterable[str], key: tuple[str, ...], is_row: IsRow = lambda row: True) -> list[dict]:
    """Rows in order of their step. Of several rows with the same key the last one counts.

    Lines that are half-written, or whose values `is_row` rejects, are skipped.
    """
    rows = {}
    for row in _values(list(lines)):
        if is_step_row(row, key) and is_row(row):
            identity = tuple(row[name] for name in key)
            rows.pop(identity, None)  # so that rows of a step are in the order in which they were last written
            rows[identity] = row
    return sorted(rows.values(), key=lambda row: row["step"])


def is_step_row(row: object, key: tuple[str, ...]) -> bool:
    """Whether the value of a line is a row with a valid step and all parts of its key."""
    if not isinstance(row, dict) or type(row.get("step")) is not int or not 0 <= row["step"] < MAX_STEP:
        return False
    return all(isinstance(row.get(name), str | int) for name in key)


def _values(lines: list[str]) -> list:
    """Parsed lines. They are parsed together, which takes half the time, and one by one if any of them is broken."""
    with suppress(ValueError, RecursionError):
        values = json.loads(f"[{','.join(lines)}]")
        if len(values) == len(lines):
            return values
    values = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    return values
