"""Mirrors the stored metrics to Weights & Biases under the same keys. The only file that imports wandb.

    python -m harness -m … tracker=wandb              while training; offline unless tracker.mode=online
    python -m harness.tracker sync runs [--online]    later, from the stored rows; replaces an earlier mirror

The run folder remains the reference: an error of the mirror is logged, and training goes on.
"""

from __future__ import annotations

import argparse
import functools
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from omegaconf import OmegaConf

import conf
from harness.files import read_json, write_json
from harness.settings.command import exit_with
from harness.settings.config import TrackerConfig
from harness.settings.identity import RunPlan
from harness.store import RunFolder, find_runs
from harness.telemetry.collapse import benchmark_means

log = logging.getLogger(__name__)
FINISH_SECONDS = 60  # limit for the upload at the end: without a network wandb would wait for ever


class Tracker:
    """Tracker that mirrors nothing, for tracker=none."""

    def log(self, row: dict) -> None: ...

    def log_evaluation(self, rows: list[dict]) -> None: ...

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_) -> None: ...


def harmless(call: Callable) -> Callable:
    """Wrap a method so that its failure is logged and ends the mirror, never the run."""

    @functools.wraps(call)
    def guarded(self, *arguments) -> None:
        if self.broken:
            return
        try:
            call(self, *arguments)
        except Exception as error:
            self.broken = True
            remedy = "the run goes on without it; later: python -m harness.tracker sync RUNS"
            log.warning("wandb: %s failed (%s): %s", call.__name__, error, remedy)

    return guarded


class WandbTracker(Tracker):
    """Mirror of one run folder in one wandb run, whatever the number of attempts. The wandb run starts with the first row."""

    def __init__(self, folder: RunFolder, record: dict, config: TrackerConfig, resume: str | None = "allow"):
        self.folder, self.record, self.config, self.resume = folder, record, config, resume
        self.broken, self.run = False, None

    @harmless
    def log(self, row: dict) -> None:
        self._open().log({key: value for key, value in row.items() if value is not None})

    @harmless
    def log_evaluation(self, rows: list[dict]) -> None:
        for row in evaluation_summaries(rows):
            self._open().log(row)

    @harmless
    def finish(self) -> None:
        if self.run is not None:
            self.run.finish()

    def __exit__(self, *_) -> None:
        self.finish()

    def _open(self):
        if self.run is None:
            self.run = start(self.folder, self.record, self.config, self.resume)
        return self.run


def start(folder: RunFolder, record: dict, config: TrackerConfig, resume: str | None):
    """A wandb run whose x axis is the training step: wandb's own counter can't go back to a checkpoint."""
    import wandb

    if config.mode == "online" and not wandb.login(prompt=False):  # no prompt: a live table would hide it
        raise RuntimeError("no API key (wandb login), or WANDB_MODE says otherwise")
    bounded = {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    quiet = {"console": "off", "x_disable_stats": True, "x_disable_meta": True, "disable_git": True, "disable_code": True}
    run = wandb.init(
        project=config.project,
        entity=config.entity,
        mode=config.mode,
        id=wandb_id(folder),
        name=record["run_id"],
        group=f"{record['experiment']}/{record['model']}",
        config=record["settings"] | {"preset": record["preset"], "settings_fingerprint": record["settings_fingerprint"]},
        dir=folder.path,
        resume=resume,
        reinit="create_new",
        settings=wandb.Settings(silent=True, **quiet, **bounded),
    )
    run.define_metric("*", step_metric="step")
    return run


def wandb_id(folder: RunFolder) -> str:
    """Id of the wandb run, drawn once for a run folder and stored in it."""
    path = folder.path / "wandb.json"
    stored = read_json(path)
    if stored is None:
        stored = {"id": uuid.uuid4().hex[:16]}
        write_json(path, stored)
    return stored["id"]


def evaluation_summaries(rows: list[dict]) -> list[dict]:
    """One row for each evaluated step with eval/<benchmark> and eval/mean, from rows of evals.jsonl."""
    return [
        {"step": step, "eval/mean": mean(scores.values())} | {f"eval/{name}": score for name, score in scores.items()}
        for step, scores in benchmark_means(rows).items()
    ]


def make_tracker(config: TrackerConfig, plan: RunPlan) -> Tracker:
    return WandbTracker(plan.folder, plan.record(), config) if config.kind == "wandb" else Tracker()


def sync(roots: list[Path], config: TrackerConfig) -> list[str]:
    """Replay stored runs into wandb, replacing earlier mirrors with the same ids. Returns the folders that failed."""
    failed, folders = [], list(find_runs(*roots))
    if not folders:
        raise ValueError(f"no runs under {', '.join(map(str, roots))}: give run folders, or folders that hold them")
    for folder in folders:
        tracker = WandbTracker(folder, folder.read_config(), config, resume=None)
        evaluations = {row["step"]: row for row in evaluation_summaries(folder.rows("evals"))}
        rows = {row["step"]: row for row in folder.rows("metrics")}
        for step in sorted(rows.keys() | evaluations.keys()):
            tracker.log(rows.get(step, {}) | evaluations.get(step, {}))
        tracker.finish()
        print(f"{'failed' if tracker.broken else 'synced'}: {folder.path} ({len(rows)} steps, {len(evaluations)} evaluations)")
        failed += [str(folder.path)] if tracker.broken else []
    return failed


def main(words: list[str]) -> int:
    defaults = OmegaConf.load(Path(conf.__file__).parent / "tracker" / "wandb.yaml")
    parser = argparse.ArgumentParser(prog="python -m harness.tracker", description="Replay stored metrics into Weights & Biases.")
    command = parser.add_subparsers(required=True).add_parser("sync", help="replay run folders")
    command.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold them")
    command.add_argument("--online", action="store_true", help="upload now; else `wandb sync` uploads what this writes")
    command.add_argument("--project", default=defaults.project)
    command.add_argument("--entity", default=defaults.entity)
    chosen = parser.parse_args(words)
    logging.basicConfig(format="%(message)s")
    mode = "online" if chosen.online else "offline"
    return 1 if sync(chosen.runs, TrackerConfig(defaults.kind, mode, chosen.project, chosen.entity)) else 0


if __name__ == "__main__":
    exit_with(main)
