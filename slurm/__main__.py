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
    """The state of every run in a table. Exit status 1 if one has failed or is lost."""
    states = look(folders(chosen))
    if chosen.json:
        print(json.dumps([dataclasses.asdict(one) for one in states], indent=1))
    else:
        show(table(states), summary(states))
    return int(is_bad(states))


def watch(chosen: argparse.Namespace) -> int:
    """The table of `status`, until nothing is left to wait for. Where the output is no terminal: a table for each change."""
    console, last = Console(), None
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            states = look(folders(chosen))
            if console.is_terminal:
                live.update(table(states), refresh=True)
            elif states != last:
                show(table(states), summary(states))
            if not any(one.state in ("running", "pending", "silent") for one in states):
                return int(is_bad(states))
            last = states
            time.sleep(chosen.every)


def cancel(chosen: argparse.Namespace) -> int:
    """End the jobs of these runs. Those that work save a checkpoint if SLURM's KillWait leaves them the time."""
    states = [one for one in look(folders(chosen)) if one.job_state and one.job_state not in scheduler.ENDED]
    for one in states:
        folder = RunFolder(Path(one.folder))
        dataclasses.replace(read_submission(folder), cancelled=now()).write(folder)
    scheduler.cancel([one.job_id for one in states])
    print(f"cancelled {len(states)} jobs; python -m slurm resubmit goes on with their runs")
    return 0


def resubmit(chosen: argparse.Namespace) -> int:
    """Submit what failed, was lost or cancelled; never what is finished, waits or works."""
    states = look(folders(chosen))
    taken = [one for one in states if one.state in RESUBMITTED and one.job_id]
    print(f"{summary(states)}\nresubmitting {len(taken)}", flush=True)
    if stray := [one for one in states if one.state in ("lost", "failed", "preempted") and not one.job_id]:
        print(f"{len(stray)} runs were never submitted: give the command of their sweep again, with cluster=slurm")
    for group in by_folder(taken):
        submit_again(group, chosen.overrides)
    return 0


def by_folder(states: list[RunState]) -> Iterator[list[RunState]]:
    """Overrides are read in the folder where they were typed."""
    place = lambda one: read_submission(RunFolder(Path(one.folder))).cwd
    for cwd in dict.fromkeys(map(place, states)):
        yield [one for one in states if place(one) == cwd]


def submit_again(states: list[RunState], extra: list[str]) -> None:
    from harness.settings.compose import compose_plan  # imports torch, which the other commands do without
    from slurm.submit import submit

    submissions = [read_submission(RunFolder(Path(one.folder).absolute())) for one in states]
    paths = [Path(one.folder).absolute() for one in states]
    with chdir(submissions[0].cwd):
        overrides = [[*one.overrides, *extra] for one in submissions]
        plans = [compose_plan(words) for words in overrides]
        for plan, path in zip(plans, paths, strict=True):
            if plan.folder.path.absolute() != path:
                raise ValueError(f"{path} would become {plan.run_id}: only operational settings (cluster.*) can change")
        print(submit(plans, overrides))


def logs(chosen: argparse.Namespace) -> int:
    """Every attempt in a line, then the end of what the last one (or --attempt) wrote."""
    for folder in folders(chosen):
        attempts = folder.attempts()
        print(f"== {folder.path}")
        for one in attempts:
            print(describe_attempt(one, is_last=one is attempts[-1]))
        number = chosen.attempt or (attempts[-1]["number"] if attempts else 0)
        for path in log_files(folder, number):
            print(f"-- {path}\n{tail(path, chosen.lines)}")
    return 0


def describe_attempt(one: dict, is_last: bool) -> str:
    state = "lost with its node" if one["state"] == "running" and not is_last else one["state"]
    where = f"{one.get('host')}, job {one.get('slurm_job_id') or '–'}"
    ended = f"{one.get('started')} to {one.get('ended', '…')}"
    return f"attempt {one['number']}: {state}, {ended}, {where}" + (f": {one['reason']}" if one.get("reason") else "")


def log_files(folder: RunFolder, number: int) -> list[Path]:
    found = sorted((folder.path / "logs").glob(f"attempt_{number}.*"))
    submission = read_submission(folder)
    return [path for path in found if path.suffix in (".out", ".log", ".txt")] + (submission.logs() if submission else [])


def tail(path: Path, lines: int) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def folders(chosen: argparse.Namespace) -> list[RunFolder]:
    found = list(find_folders(*chosen.runs))
    if not found:
        raise ValueError(f"no runs in {', '.join(map(str, chosen.runs))}: submit some with python -m harness -m … cluster=slurm")
    return found


def table(states: list[RunState]) -> Table:
    found = Table(title=summary(states), title_justify="left")
    for name in ("method", "seed", "state", "step", "attempts", "job", "nodes", "note"):
        found.add_column(name, justify="right" if name in ("seed", "step", "attempts") else "left", overflow="fold")
    for one in states:
        step = f"{one.step}/{one.steps}" if one.steps else ""
        state = Text(one.state, STYLES.get(one.state, ""))
        found.add_row(one.preset, one.seed, state, step, str(one.attempts), one.job_id or "", one.nodes, Text(one.note))
    return found


def summary(states: list[RunState]) -> str:
    counts = Counter(one.state for one in states)
    return f"{len(states)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.most_common())


def show(found: Table, closing: str) -> None:
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(found)
    if "lost" in closing or "failed" in closing:
        console.print("next: python -m slurm logs RUN, then python -m slurm resubmit RUNS", highlight=False)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m slurm", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(function: Callable[[argparse.Namespace], int], **flags: dict) -> None:
        one = commands.add_parser(function.__name__, help=function.__doc__.split("\n")[0], description=function.__doc__)
        one.add_argument("runs", nargs="*", help="run folders, or folders that hold them (default: runs)")
        for name, options in flags.items():
            one.add_argument(f"--{name}", **options)
        one.set_defaults(function=function)

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
