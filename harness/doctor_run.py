"""Checks that a run folder is whole: the command `python -m harness.doctor run FOLDER…`. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from harness.files import read_json
from harness.store import MARKS, ROW_KEYS, TERMINAL_STATES, RunFolder, by_step, content_hash, find_runs


def run(words: list[str]) -> int:
    """Check the hashes, rows and samples of run folders, or of all run folders below a folder."""
    if not words:
        raise ValueError("name a run folder, or a folder that holds some: python -m harness.doctor run runs")
    folders = list(find_runs(*words))
    if not folders:
        raise ValueError(f"no run folders in {', '.join(words)}: a run folder holds two of {', '.join(sorted(MARKS))}")
    findings = {folder.path: list(examine(folder)) for folder in folders}
    for path, problems in findings.items():
        print(f"{path}: {headline(RunFolder(path))}; {'NOT whole' if problems else 'whole'}")
        print("".join(f"  {problem}\n" for problem in problems), end="")
    return 1 if any(findings.values()) else 0


def headline(folder: RunFolder) -> str:
    evaluated = {row["step"] for row in folder.rows("evals")}
    return f"{folder.state}, {len(folder.rows('metrics'))} steps, {len(evaluated)} evaluations"


def examine(folder: RunFolder) -> Iterator[str]:
    """Problems of a folder with their remedies, a line each. A folder can be whole even if its run stopped half-way."""
    for check in (check_config, check_status, check_lines, check_steps, check_evaluations, check_samples, check_checkpoints):
        try:
            yield from check(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # damage that the check does not expect
            what = check.__name__.removeprefix("check_")
            yield f"its {what} cannot be checked: a file does not hold what it should ({type(error).__name__}: {error})"


def check_config(folder: RunFolder) -> Iterator[str]:
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
    """Report damaged lines. A killed run leaves half a line and rewrites the row on resuming; other losses are missing rows."""
    for name in ROW_KEYS:
        if lines := folder.damaged_lines(name):
            yield f"{name}.jsonl: lines {lines} are half-written or damaged; readers pass over them"


def check_steps(folder: RunFolder) -> Iterator[str]:
    steps = {row["step"] for row in folder.rows("metrics")}
    expected = ((folder.read_config() or {}).get("settings") or {}).get("train", {}).get("steps")
    last = max(steps, default=0)
    if beyond := sorted(step for step in steps if step > expected):
        yield f"metrics.jsonl has rows of steps {beyond}, and the run has {expected} steps"
    if missing := sorted(set(range(1, min(last, expected) + 1)) - steps):
        yield f"metrics.jsonl has no rows for steps {missing}"
    if folder.state == "completed" and last != expected:
        yield f"status.json says completed, but metrics.jsonl ends at step {last} of {expected}"


def check_evaluations(folder: RunFolder) -> Iterator[str]:
    """Report evaluations that lack some of the problems, and evaluations that a completed run lacks."""
    problems: dict[int, set] = {}
    for row in folder.rows("evals"):
        problems.setdefault(row["step"], set()).add((row["benchmark"], row["problem_id"]))
    everything = set().union(*problems.values()) if problems else set()
    for step, evaluated in sorted(problems.items()):
        if evaluated != everything:
            share = f"{len(evaluated)} of {len(everything)} problems"
            yield f"evals.jsonl: the evaluation at step {step} has {share}; the run's command repeats it"
    missing = sorted(folder.planned_evaluations(folder.last_step()) - problems.keys()) if folder.state == "completed" else []
    if missing:
        yield f"evals.jsonl has no evaluation of steps {missing}"


def check_samples(folder: RunFolder) -> Iterator[str]:
    """Report samples that are unreadable, missing, or graded otherwise than evals.jsonl counts them."""
    from harness.evaluation import eval_rows, read_samples

    files, stored = by_step(folder.path / "samples", ".jsonl.gz"), folder.rows("evals")
    for step, path in files.items():
        try:
            counted = {counts(row) for row in eval_rows(read_samples(path))}
        except (OSError, ValueError) as error:
            yield f"samples/{path.name} is damaged ({error})"
            continue
        if differing := len({counts(row) for row in stored if row["step"] == step} - counted):
            yield f"samples/{path.name}: {differing} rows of evals.jsonl count other verdicts than its samples have"
    missing = sorted({row["step"] for row in stored} - files.keys()) if files else []
    if missing:
        yield f"samples/ has none of the evaluations at steps {missing}"


def counts(row: dict) -> tuple:
    return tuple(row[name] for name in ("step", "benchmark", "problem_id", "n", "num_correct"))


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
