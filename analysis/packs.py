"""Packs finished runs into small files that can be committed, and unpacks them: all that the analysis reads, without weights
and samples.

python -m analysis pack RUNS --out docs/study     one file for each finished run: <run id>.json.gz
python -m analysis unpack docs/study RUNS_DIR     run folders, which the sweep skips as finished when it is started again
"""

from __future__ import annotations

import argparse
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from analysis.complete import require_complete
from analysis.load import parse
from analysis.options import folder as existing_folder
from analysis.options import new_folder
from analysis.recordings import last_trace, own_budget
from analysis.runs import InputError, read_run
from harness.files import strict, write_atomic, write_json
from harness.store import IS_ROW, RunFolder, find_runs

PACKS = Path("docs/study")
ENDING = ".json.gz"
FORMAT = 1
LIMIT_MB = 15.0  # of all packs together
DIGITS = 6  # significant digits of metrics, which come from float32
MACHINE = {"host", "pid", "launch", "slurm_job_id", "slurm_restarts", "updated", "runs_dir"}  # keys that belong to the machine
TABLES = ("metrics", "evals", "shadow")
SHADOW = ("step", "rule", "jaccard")  # what fig_agreement reads


def pack_main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis pack", description="Finished runs -> one small file for each.")
    parser.add_argument("roots", nargs="+", type=existing_folder, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", type=new_folder, default=PACKS, help=f"where to write (default: {PACKS})")
    options = parser.parse_args(argv)
    if not any(folder.finished for folder in find_runs(*options.roots)):
        raise InputError(f"no finished runs under {', '.join(map(str, options.roots))}: give folders that hold some")
    for path in pack(options.roots, options.out):
        print(f"packed {path} ({path.stat().st_size / 1000:.1f} kB)")
    print(size_line(options.out))


def unpack_main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis unpack", description="Packs -> run folders.")
    parser.add_argument("packs", nargs="?", type=existing_folder, default=PACKS, metavar="PACKS", help=f"(default: {PACKS})")
    parser.add_argument(
        "runs_dir", type=Path, metavar="RUNS_DIR", help="where the run folders go; finished ones stay as they are"
    )
    options = parser.parse_args(argv)
    made = list(unpack(options.packs, options.runs_dir))
    print(f"{len(made)} runs unpacked into {options.runs_dir}")


def pack(roots: list[Path], out: Path) -> Iterator[Path]:
    """Write a pack for each finished run that has none yet. Yields the new files. InputError if a run lacks what it wrote."""
    for folder in find_runs(*roots):
        run = read_run(folder)
        path = out / (run.run_id + ENDING)
        if run.finished and not path.exists():
            require_complete(run, folder, *(parse(folder.rows(name), name) for name in ("metrics", "evals")))
            write_atomic(path, encode(content(folder)))
            yield path


def unpack(packs: Path, runs_dir: Path, tables: tuple[str, ...] = TABLES) -> Iterator[tuple[Path, Path]]:
    """Write the run folders of all packs, except those that are finished there or that a live process owns. Yields pairs
    (folder, its pack).

    Only the named `tables` are written; the others can be read with `packed_rows`. InputError if there are no packs.
    """
    paths = pack_files(packs)
    if not paths:
        raise InputError(f"no packs under {packs}: make some with python -m analysis pack RUNS --out {packs}")
    for path in paths:
        packed = decode(path)
        folder = RunFolder(inside(runs_dir, packed["run_id"], path))
        if not folder.finished and folder.lock.owner() is None:
            restore(packed, folder, tables)
            yield folder.path, path


def inside(runs_dir: Path, run_id: str, pack: Path) -> Path:
    """The folder of a pack's run. InputError if the run id leads out of `runs_dir`."""
    target = runs_dir / run_id
    if not target.resolve().is_relative_to(runs_dir.resolve()):
        raise InputError(f"{pack}: its run {run_id!r} lies outside of {runs_dir}: not a pack of python -m analysis pack")
    return target


def packed_rows(packs: dict[Path, Path], folder: RunFolder, name: str) -> list[dict]:
    """The rows of a table of the run that `unpack` wrote to `folder`, read from its pack. `packs`: what `unpack` yields."""
    return [row for row in to_rows(decode(packs[folder.path])[name]) if IS_ROW[name](row)]


def pack_files(packs: Path) -> list[Path]:
    return sorted(packs.rglob(f"*{ENDING}"))


def size_line(packs: Path) -> str:
    sizes = [path.stat().st_size for path in pack_files(packs)]
    total = sum(sizes) / 1e6
    return f"{len(sizes)} packs in {packs}: {total:.2f} MB" + (f", MORE than {LIMIT_MB:g} MB" if total > LIMIT_MB else "")


def encode(packed: dict) -> bytes:
    """The bytes of a pack file. Equal content gives equal bytes: gzip's header holds no time and no file name."""
    text = json.dumps(packed, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def decode(path: Path) -> dict:
    try:
        packed = json.loads(gzip.decompress(path.read_bytes()))
    except (EOFError, ValueError, OSError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or pack its run again") from error
    number = packed.get("format") if isinstance(packed, dict) else None
    if number != FORMAT:
        raise InputError(f"{path} has format {number}, this code reads {FORMAT}")
    return packed


def content(folder: RunFolder) -> dict:
    """A run as the JSON value that its pack holds."""
    config = folder.read_config()
    rows = {name: [strict(row) for row in folder.rows(name)] for name in TABLES}
    rows["metrics"] = [{key: rounded(value) for key, value in row.items()} for row in rows["metrics"]]
    rows["shadow"] = [{key: row[key] for key in SHADOW} for row in rows["shadow"]]
    return {
        "format": FORMAT,
        "run_id": config["run_id"],
        "config": portable(config),
        "status": portable(folder.read_status()),
        **{name: to_columns(table) for name, table in rows.items()},
        "trace": own_budget(last_trace(folder.path)),
    }


def restore(packed: dict, folder: RunFolder, tables: tuple[str, ...] = TABLES) -> None:
    """Write a run's folder. The status comes last: until it is there the folder is not finished, and another `unpack` completes
    what an interrupted one left."""
    encode_row = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # faster: json.dumps makes an encoder for each row
    for name in tables:
        lines = [encode_row(row) + "\n" for row in to_rows(packed[name])]
        if lines:
            write_atomic(folder.path / f"{name}.jsonl", "".join(lines))
    if packed["trace"]:
        write_json(folder.path / "traces" / f"step={packed['trace']['step']}.json", packed["trace"])
    write_json(folder.path / "config.json", packed["config"])
    write_json(folder.path / "status.json", packed["status"])


def rounded(value):
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def portable(record: dict) -> dict:
    """The record without what belongs to the machine: process and launch, absolute paths, the folder of the runs."""
    kept = {}
    for key, value in record.items():
        if key == "command" and value:
            kept[key] = " ".join(word for word in value.split() if not word.startswith("runs_dir=") and "=/" not in word)
        elif isinstance(value, dict):
            kept[key] = portable(value)
        elif key not in MACHINE and not str(value).startswith("/"):
            kept[key] = value
    return kept


def to_columns(rows: list[dict]) -> dict:
    """Rows as {"num_rows", "columns": {key: values}, "at": {key: row numbers}}; `at` holds only keys that some rows lack."""
    keys = dict.fromkeys(key for row in rows for key in row)
    having = {key: [i for i, row in enumerate(rows) if key in row] for key in keys}
    return {
        "num_rows": len(rows),
        "columns": {key: [rows[i][key] for i in at] for key, at in having.items()},
        "at": {key: at for key, at in having.items() if len(at) < len(rows)},
    }


def to_rows(table: dict) -> list[dict]:
    """The inverse of `to_columns`."""
    rows: list[dict] = [{} for _ in range(table["num_rows"])]
    for key, values in table["columns"].items():
        for i, value in zip(table["at"].get(key, range(len(rows))), values, strict=True):
            rows[i][key] = value
    return rows
