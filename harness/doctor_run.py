"""Is a run folder whole? Behind `python -m harness.doctor run FOLDER…`. Reads only."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator

from harness.files import read_json
from harness.store import ROW_KEYS, TERMINAL_STATES, RunFolder, by_step, find_runs


def run(words: list[str]) -> int:
    """Re-check the hashes, rows and samples of run folders, or of all below a folder."""
    if not words:
        raise ValueError("name a run folder, or a folder that holds some: python -m harness.doctor run runs")
    folders = list(find_runs(*words))
    if not folders:
        raise ValueError(f"no run folders in {', '.join(words)}: a run folder holds config.json and status.json or metrics.jsonl")
    findings = {folder.path: list(examine(folder)) for folder in folders}
    for path, problems in findings.items():
        print(f"{path}: {headline(RunFolder(path))}; {'NOT whole' if problems else 'whole'}")
        print("".join(f"  {problem}\n" for problem in problems), end="")
    return 1 if any(findings.values()) else 0


def headline(folder: RunFolder) -> str:
    evaluated = {row["step"] for row in folder.rows("evals")}
    return f"{folder.state}, {len(folder.rows('metrics'))} steps, {len(evaluated)} evaluations"


def examine(folder: RunFolder) -> Iterator[str]:
    """What is wrong, a line each with its remedy; nothing for a whole folder. A run that stopped half-way can be whole."""
    yield from check_config(folder)
    yield from check_status(folder)
    yield from check_lines(folder)
    yield from check_steps(folder)
    yield from check_evaluations(folder)
    yield from check_samples(folder)
    yield from check_checkpoints(folder)


def check_config(folder: RunFolder) -> Iterator[str]:
    from harness.settings.identity import content_hash

    config = folder.read_config()
    if config is None:
        yield "config.json is not readable: the run's command writes it again"
    elif content_hash(config.get("settings")) != config.get("config_hash"):
        yield "config.json: its settings do not have the hash that it names; it was edited"
    elif not folder.path.name.endswith(config["config_hash"][:8]):
        yield f"the folder's name is not that of its settings (hash {config['config_hash'][:8]}); it was renamed"


def check_status(folder: RunFolder) -> Iterator[str]:
    status = folder.read_status()
    if status is None:
        yield "status.json is missing or not readable: the run's command writes it again"
    elif status.get("state") == "running" and folder.lock.owner() is None:
        yield "status.json says running, but nobody is: the run was killed; its command resumes it"
    elif status.get("state") in TERMINAL_STATES and status.get("step") != folder.last_step():
        yield f"status.json says step {status.get('step')}, metrics.jsonl ends at {folder.last_step()}"


def check_lines(folder: RunFolder) -> Iterator[str]:
    """A half-written last line is the mark of a kill; readers pass over it, so it is no loss, but it is said."""
    for name in ROW_KEYS:
        path = folder.path / f"{name}.jsonl"
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        broken = [number for number, line in enumerate(lines, 1) if line and not is_row(line)]
        if broken:
            yield f"{path.name}: lines {broken} are half-written (readers pass over them; no row that was acknowledged is lost)"


def is_row(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except json.JSONDecodeError:
        return False


def check_steps(folder: RunFolder) -> Iterator[str]:
    steps = {row["step"] for row in folder.rows("metrics")}
    missing = sorted(set(range(1, max(steps, default=0) + 1)) - steps)
    if missing:
        yield f"metrics.jsonl has no rows for steps {missing}"
    expected = ((folder.read_config() or {}).get("settings") or {}).get("train", {}).get("steps")
    if folder.state == "completed" and max(steps, default=0) != expected:
        yield f"status.json says completed, but metrics.jsonl ends at step {max(steps, default=0)} of {expected}"


def check_evaluations(folder: RunFolder) -> Iterator[str]:
    """Every evaluation is of the same problems, and a completed run has all of them."""
    problems: dict[int, set] = {}
    for row in folder.rows("evals"):
        problems.setdefault(row["step"], set()).add((row["benchmark"], row["problem_id"]))
    everything = set().union(*problems.values()) if problems else set()
    for step, found in sorted(problems.items()):
        if found != everything:
            share = f"{len(found)} of {len(everything)} problems"
            yield f"evals.jsonl: the evaluation at step {step} has {share}; the run's command repeats it"
    missing = sorted(evaluated_steps(folder) - problems.keys()) if folder.state == "completed" else []
    if missing:
        yield f"evals.jsonl has no evaluation of steps {missing}"


def evaluated_steps(folder: RunFolder) -> set[int]:
    """At which steps a run of these settings is evaluated."""
    settings = (folder.read_config() or {}).get("settings") or {}
    if not settings.get("eval", {}).get("benchmarks"):
        return set()
    last, every = settings["train"]["steps"], settings["eval"]["every"]
    return {0, last, *range(every, last, every)}


def check_samples(folder: RunFolder) -> Iterator[str]:
    samples = by_step(folder.path / "samples", ".jsonl.gz")
    for path in samples.values():
        try:
            with gzip.open(path, "rt") as file:
                for line in file:
                    json.loads(line)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            yield f"samples/{path.name} is damaged ({error})"
    missing = sorted({row["step"] for row in folder.rows("evals")} - samples.keys()) if samples else []
    if missing:
        yield f"samples/ has none of the evaluations at steps {missing}"


def check_checkpoints(folder: RunFolder) -> Iterator[str]:
    from harness.runs.checkpoint import damage

    if folder.state == "completed" and folder.newest_checkpoint() != folder.last_step():
        yield "checkpoints/ has none of the last step: the run can be analysed, and not be evaluated again"
    for path in by_step(folder.path / "checkpoints").values():
        manifest = read_json(path / "manifest.json")
        if manifest is None:
            yield f"checkpoints/{path.name} has no readable manifest.json: it is passed over, and removed at the next checkpoint"
            continue
        for problem in damage(path, manifest):
            yield f"checkpoints/{path.name}: {problem}; resuming falls back to the one before"
