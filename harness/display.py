"""Shows a sweep to its user: a live table (or plain lines), the final tables, and the plan of a dry run. Reads files only."""

from __future__ import annotations

import shlex
import statistics
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.runs.attempt import traceback_note
from harness.settings.identity import RunPlan, different_keys
from harness.store import RunFolder, flatten
from harness.telemetry.collapse import benchmark_means, evaluation_means
from harness.timing import throughput

REFRESH_SECONDS = 1.0
STATE_STYLES = {"running": "cyan", "completed": "green", "failed": "red", "collapsed": "magenta", "preempted": "yellow"}


@dataclass
class Progress:
    """Progress of one run, as its files show it."""

    state: str
    step: int
    steps: int
    reward: float | None = None
    score: float | None = None  # mean over benchmarks of the last evaluation
    scored_at: int | None = None  # step of that evaluation
    seconds_left: float | None = None
    collapse_step: int | None = None
    reason: str | None = None

    @property
    def label(self) -> str:
        return f"{self.state}, collapse @ {self.collapse_step}" if self.collapse_step else self.state


class Watcher:
    """Reads one run's progress; evaluations are read again only when their file has grown."""

    def __init__(self, plan: RunPlan):
        self.plan, self.folder = plan, plan.folder
        self._evals_size, self._scores = -1, []

    def look(self) -> Progress:
        status = self.folder.read_status() or {}
        rows = self.folder.tail("metrics", 5)
        steps = self.plan.config.train.steps
        progress = Progress(status.get("state", "waiting"), rows[-1]["step"] if rows else 0, steps)
        progress.collapse_step, progress.reason = status.get("collapse_step"), status.get("reason")
        if rows:
            progress.reward = rows[-1]["reward/mean"]
            seconds = statistics.mean(row["time/step"] for row in rows)
            progress.seconds_left = seconds * (steps - progress.step)
        if scores := self.scores():
            progress.scored_at, progress.score = scores[-1]
        return progress

    def scores(self) -> list[tuple[int, float]]:
        path = self.folder.path / "evals.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size != self._evals_size:
            self._evals_size, self._scores = size, evaluation_means(self.folder.rows("evals"))
        return self._scores


class Display:
    """Shows the runs while they execute. `mode`: auto (live on a terminal, else plain) | live | plain | none."""

    def __init__(self, plans: list[RunPlan], mode: str):
        self.plans, self.watchers = plans, [Watcher(plan) for plan in plans]
        self.console = Console(stderr=True)
        self.mode = ("live" if self.console.is_terminal else "plain") if mode == "auto" else mode
        self.notes: list[str] = []
        self.last, self.started = 0.0, time.monotonic()
        self._said: dict[int, tuple] = {}

    def __enter__(self) -> Display:
        self.live = Live(console=self.console, auto_refresh=False) if self.mode == "live" else None
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        self.update(force=True)
        if self.live:
            self.live.stop()

    def note(self, text: str) -> None:
        self.notes.append(text)
        if not self.live:
            print(text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """What needs no saying where the live table shows it."""
        if self.mode == "plain":
            print(text, file=sys.stderr, flush=True)

    def update(self, force: bool = False) -> None:
        if self.mode == "none" or (not force and time.monotonic() - self.last < REFRESH_SECONDS):
            return
        self.last = time.monotonic()
        looks = [watcher.look() for watcher in self.watchers]
        if self.live:
            self.live.update(Group(self.table(looks), *map(Text, self.notes)), refresh=True)
        else:
            self.print_changes(looks)

    @contextmanager
    def in_background(self):
        """Context in which a thread keeps the display up to date while this thread trains."""
        done = threading.Event()

        def refresh() -> None:
            while not done.wait(REFRESH_SECONDS):
                self.update()

        thread = threading.Thread(target=refresh, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def table(self, looks: list[Progress]) -> Table:
        elapsed = time.monotonic() - self.started
        table = Table(
            title=f"{sum(p.step for p in looks)} of {sum(p.steps for p in looks)} steps, {elapsed:.0f} s", title_justify="left"
        )
        for name in ("method", "seed", "step", "reward", "evaluation", "left", "state"):
            table.add_column(name, justify="left" if name in ("method", "state") else "right")
        for plan, p in zip(self.plans, looks, strict=True):
            score = "" if p.score is None else f"{100 * p.score:.1f} % @ {p.scored_at}"
            left = f"{p.seconds_left:.0f} s" if p.state == "running" and p.seconds_left is not None else ""
            reward = "" if p.reward is None else f"{p.reward:.3f}"
            state = Text(p.label, STATE_STYLES.get(p.state, ""))
            table.add_row(plan.preset, str(plan.config.seed), f"{p.step}/{p.steps}", reward, score, left, state)
        return table

    def print_changes(self, looks: list[Progress]) -> None:
        """Print a line for each run whose state has changed or that has a new evaluation."""
        for i, (plan, p) in enumerate(zip(self.plans, looks, strict=True)):
            key = (p.state, p.scored_at)
            if self._said.get(i) == key or p.state == "waiting":
                continue
            self._said[i] = key
            score = "" if p.score is None else f"  evaluation {100 * p.score:.1f} % @ {p.scored_at}"
            reward = "" if p.reward is None else f"  reward {p.reward:.3f}"
            left = f"  {p.seconds_left:.0f} s left" if p.state == "running" and p.seconds_left else ""
            reason = f"  ({p.reason})" if p.reason else ""
            print(
                f"[{time.monotonic() - self.started:6.1f} s] {plan.preset} seed={plan.config.seed}  {p.label}  "
                f"step {p.step}/{p.steps}{reward}{score}{left}{reason}",
                file=sys.stderr,
                flush=True,
            )


def summary(plans: list[RunPlan]) -> str:
    """Final tables: scores (method × benchmark, mean ± sd over seeds) and seconds; then open runs and the next command."""
    console, sums = Console(width=120), totals(plans)
    with console.capture() as captured:
        console.print(score_table(plans))
        console.print(time_table(sums))
        for line in [*([rates(sums)] if sums else []), *closing_lines(plans)]:
            console.print(line, soft_wrap=True, highlight=False)
    return captured.get().rstrip()


def score_table(plans: list[RunPlan]) -> Table:
    names = list(dict.fromkeys(name for plan in plans for name in plan.config.eval.benchmarks))
    table = Table(title="last evaluation, % (mean ± sd over seeds)", title_justify="left")
    for column in ("method", *names, "mean", "reward, last 8 steps", "runs"):
        table.add_column(column, justify="left" if column in ("method", "runs") else "right")
    for preset in dict.fromkeys(plan.preset for plan in plans):
        group = [plan for plan in plans if plan.preset == preset]
        scores = [last_scores(plan.folder) for plan in group]
        cells = [spread([100 * s[name] for s in scores if name in s]) for name in names]
        means = spread([100 * statistics.mean(s.values()) for s in scores if s])
        rewards = spread([r for plan in group if (r := late_reward(plan.folder)) is not None], digits=3)
        table.add_row(preset, *cells, means, rewards, states(group))
    return table


def totals(plans: list[RunPlan]) -> dict[str, float]:
    """Seconds and token counts, summed over all steps of all runs."""
    sums: dict[str, float] = {}
    for plan in plans:
        for row in plan.folder.rows("metrics"):
            for key, value in row.items():
                if key.startswith(("time/", "cost/")) and "tokens_per_s" not in key:
                    sums[key] = sums.get(key, 0) + value
    return sums


def time_table(sums: dict[str, float]) -> Table:
    """Table of wall time by stage, summed over all runs."""
    stages = {key.removeprefix("time/"): value for key, value in sums.items() if key.startswith("time/")}
    table = Table(title="seconds by stage, all runs", title_justify="left")
    for stage in stages:
        table.add_column(stage, justify="right")
    table.add_row(*[f"{value:.1f}" for value in stages.values()])
    return table


def rates(sums: dict[str, float]) -> str:
    """Line with the response tokens per second of one run, by stage."""
    by_stage = {key.rpartition("_")[2]: value for key, value in throughput(sums).items()}
    return "tokens/s of a run: " + ", ".join(f"{stage} {value:,.0f}" for stage, value in by_stage.items())


def closing_lines(plans: list[RunPlan]) -> list[str]:
    done = sum(plan.folder.finished for plan in plans)
    lines = [f"{done} of {len(plans)} runs done; folders under {plans[0].config.runs_dir}/{plans[0].experiment}"]
    for plan in plans:
        status = plan.folder.read_status() or {}
        if status.get("state") == "failed":
            lines.append(f"failed: {plan.folder.path}: {status.get('reason')}{traceback_note(plan.folder)}")
        elif owner := plan.folder.lock.owner():
            lines.append(f"at work: {plan.folder.path}: process {owner['pid']} on {owner['host']}")
    if done < len(plans):
        return [*lines, "next: the same command again resumes what is not done"]
    return [*lines, f"next: python -m analysis {shlex.quote(plans[0].config.runs_dir)} --out results"]


def states(group: list[RunPlan]) -> str:
    labels = [Watcher(plan).look().label for plan in group]
    return ", ".join(f"{labels.count(label)} {label}" for label in dict.fromkeys(labels))


def last_scores(folder: RunFolder) -> dict[str, float]:
    """Mean score over problems at the last evaluation, by benchmark."""
    scores = benchmark_means(folder.rows("evals"))
    return scores[max(scores)] if scores else {}


def late_reward(folder: RunFolder, steps: int = 8) -> float | None:
    rows = folder.tail("metrics", steps)
    return statistics.mean(row["reward/mean"] for row in rows) if rows else None


def spread(values: list[float], digits: int = 1) -> str:
    if not values:
        return "missing"
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def describe(plans: list[RunPlan]) -> str:
    """Text of a dry run: the runs with states and folders, the settings that they share, and those that differ."""
    settings = [plan.settings for plan in plans]
    varying = different_keys(settings)
    lines = [f"{len(plans)} runs"]
    lines += [f"  {Watcher(plan).look().label:<10} {plan.folder.path}" for plan in plans]
    lines += ["", "shared settings"]
    lines += [f"  {key}: {value}" for key, value in flatten(settings[0]).items() if key not in varying]
    if varying:
        lines += ["", "different settings"]
        for key in varying:
            values = list(dict.fromkeys(str(flatten(nested).get(key, "–")) for nested in settings))
            lines.append(f"  {key}: {', '.join(values)}")
    return "\n".join([*lines, "", matched(plans)])


def matched(plans: list[RunPlan]) -> str:
    """Line that says whether only method and seed differ among the runs; each stress point is compared by itself."""
    points: dict[str, set[str]] = {}
    for plan in plans:
        points.setdefault(plan.stress, set()).add(plan.settings_fingerprint)
    prints = sorted(set().union(*points.values()))
    if any(len(fingerprints) > 1 for fingerprints in points.values()):
        return f"NOT matched: {len(prints)} settings fingerprints ({', '.join(prints)})"
    where = f", at each of {len(points)} stress points" if len(points) > 1 else ""
    return f"matched: nothing but method and seed differs{where} ({', '.join(prints)})"
