"""`python -m slurm status|resubmit|cancel|logs|watch RUNS`: the runs of a sweep that was submitted with cluster=slurm."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.files import now
from harness.store import RunFolder
from slurm import scheduler
from slurm.record import find_folders, read_submission
from slurm.state import RESUBMITTED, RunState, is_bad, look

STYLES = {"running": "cyan", "completed": "green", "failed": "red", "lost": "red", "silent": "yellow", "collapsed": "magenta"}
TAIL_BYTES = 1 << 16


def status(chosen: argparse.Namespace) -> int:
    """Show the state of every run in a table. Exit status 1 if one has failed or is lost."""
    states = look(folders(chosen))
    if chosen.json:
        print(json.dumps([dataclasses.asdict(run) for run in states], indent=1))
    else:
        show(table(states), summary(states))
    return int(is_bad(states))


def watch(chosen: argparse.Namespace) -> int:
    """Show the table of `status` until no run is waiting or running. Without a terminal, print a table for each change."""
    console, last = Console(), None
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            states = look(folders(chosen))
            if console.is_terminal:
                live.update(table(states), refresh=True)
            elif states != last:
                show(table(states), summary(states))
            if not any(run.state in ("running", "pending", "silent") for run in states):
                return int(is_bad(states))
            last = states
            time.sleep(chosen.every)


def cancel(chosen: argparse.Namespace) -> int:
    """Cancel the jobs of these runs. Running ones save a checkpoint if SLURM's KillWait leaves them the time."""
    states = [run for run in look(folders(chosen)) if run.job_state and run.job_state not in scheduler.ENDED]
    for run in states:
        folder = RunFolder(Path(run.folder))
        dataclasses.replace(read_submission(folder), cancelled=now()).write(folder)
    scheduler.cancel([run.job_id for run in states])
    print(f"cancelled {len(states)} jobs; python -m slurm resubmit goes on with their runs")
    return 0


def resubmit(chosen: argparse.Namespace) -> int:
    """Submit again the runs that failed, were lost or were cancelled; never those that are finished, waiting or running."""
    states = look(folders(chosen))
    taken = [run for run in states if run.state in RESUBMITTED and run.job_id]
    print(f"{summary(states)}\nresubmitting {len(taken)}", flush=True)
    if stray := [run for run in states if run.state in ("lost", "failed", "preempted") and not run.job_id]:
        print(f"{len(stray)} runs were never submitted: give the command of their sweep again, with cluster=slurm")
    for group in by_folder(taken):
        submit_again(group, chosen.overrides)
    return 0


def by_folder(states: list[RunState]) -> Iterator[list[RunState]]:
    """Groups of runs submitted from the same directory, since overrides are read in the directory where they were typed."""
    place = lambda run: read_submission(RunFolder(Path(run.folder))).cwd
    for cwd in dict.fromkeys(map(place, states)):
        yield [run for run in states if place(run) == cwd]


def submit_again(states: list[RunState], extra: list[str]) -> None:
    from harness.settings.compose import compose_plan  # imports torch, which the other commands do without
    from slurm.submit import submit

    paths = [Path(run.folder).absolute() for run in states]
    submissions = [read_submission(RunFolder(path)) for path in paths]
    with chdir(submissions[0].cwd):
        overrides = [[*submission.overrides, *extra] for submission in submissions]
        plans = [compose_plan(words) for words in overrides]
        for plan, path in zip(plans, paths, strict=True):
            if plan.folder.path.absolute() != path:
                raise ValueError(f"{path} would become {plan.run_id}: only operational settings (cluster.*) can change")
        print(submit(plans, overrides))


def logs(chosen: argparse.Namespace) -> int:
    """Print a line for each attempt, then the end of the output of the last one (or of --attempt)."""
    for folder in folders(chosen):
        attempts = folder.attempts()
        print(f"== {folder.path}")
        for attempt in attempts:
            print(describe_attempt(attempt, is_last=attempt is attempts[-1]))
        number = chosen.attempt or (attempts[-1]["number"] if attempts else 0)
        for path in log_files(folder, number):
            print(f"-- {path}\n{tail(path, chosen.lines)}")
    return 0


def describe_attempt(attempt: dict, is_last: bool) -> str:
    state = "lost with its node" if attempt["state"] == "running" and not is_last else attempt["state"]
    where = f"{attempt.get('host')}, job {attempt.get('slurm_job_id') or '–'}"
    period = f"{attempt.get('started')} to {attempt.get('ended', '…')}"
    reason = f": {attempt['reason']}" if attempt.get("reason") else ""
    return f"attempt {attempt['number']}: {state}, {period}, {where}{reason}"


def log_files(folder: RunFolder, number: int) -> list[Path]:
    paths = sorted((folder.path / "logs").glob(f"attempt_{number}.*"))
    submission = read_submission(folder)
    return [path for path in paths if path.suffix in (".out", ".log", ".txt")] + (submission.logs() if submission else [])


def tail(path: Path, lines: int) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def folders(chosen: argparse.Namespace) -> list[RunFolder]:
    run_folders = list(find_folders(*chosen.runs))
    if not run_folders:
        raise ValueError(f"no runs in {', '.join(map(str, chosen.runs))}: submit some with python -m harness -m … cluster=slurm")
    return run_folders


def table(states: list[RunState]) -> Table:
    shown = Table(title=summary(states), title_justify="left")
    for name in ("method", "seed", "state", "step", "attempts", "job", "nodes", "note"):
        shown.add_column(name, justify="right" if name in ("seed", "step", "attempts") else "left", overflow="fold")
    for run in states:
        step = f"{run.step}/{run.steps}" if run.steps else ""
        state = Text(run.state, STYLES.get(run.state, ""))
        shown.add_row(run.preset, run.seed, state, step, str(run.attempts), run.job_id or "", run.nodes, Text(run.note))
    return shown


def summary(states: list[RunState]) -> str:
    counts = Counter(run.state for run in states)
    return f"{len(states)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.most_common())


def show(states_table: Table, counts: str) -> None:
    """Print the table, and the next command if `counts` (see `summary`) names lost or failed runs."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(states_table)
    if "lost" in counts or "failed" in counts:
        console.print("next: python -m slurm logs RUN, then python -m slurm resubmit RUNS", highlight=False)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m slurm", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(function: Callable[[argparse.Namespace], int], **flags: dict) -> None:
        subparser = commands.add_parser(function.__name__, help=function.__doc__.split("\n")[0], description=function.__doc__)
        subparser.add_argument("runs", nargs="*", help="run folders, or folders that hold them (default: runs)")
        for name, options in flags.items():
            subparser.add_argument(f"--{name}", **options)
        subparser.set_defaults(function=function)

    command(status, json={"action": "store_true", "help": "a list of records for programs"})
    command(watch, every={"type": float, "default": 5.0, "help": "seconds between looks"})
    command(resubmit)
    command(cancel)
    command(logs, lines={"type": int, "default": 40}, attempt={"type": int, "default": None})
    chosen = parser.parse_args(arguments)
    chosen.overrides = [word for word in chosen.runs if "=" in word and not Path(word).exists()]
    if chosen.overrides and chosen.command != "resubmit":
        parser.error(f"{chosen.overrides[0]}: only resubmit takes settings (key=value)")
    chosen.runs = [word for word in chosen.runs if word not in chosen.overrides] or ["runs"]
    return chosen


def main(arguments: list[str]) -> int:
    chosen = parse(arguments)
    return chosen.function(chosen)


if __name__ == "__main__":
    from harness.settings.command import exit_with

    exit_with(main)
