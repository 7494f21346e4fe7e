"""Reads one run's record of itself: the only module that knows the keys of config.json, status.json and logs/attempt_<n>.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from analysis.style import TUNED
from harness.store import FINISHED_STATES, RunFolder, content_hash, flatten

TYPED = "python -m harness"  # beginning of a command that a user typed; an attempt requeued by SLURM holds its launcher's instead
# Keys of the status that are shown elsewhere than under provenance.
NOT_PROVENANCE = {
    "state", "step", "reason", "run_id", "method", "preset", "model", "experiment", "seed", "device_hours", "command",
    "collapse_step", "collapse_reason", "mismatch_step", "mismatch_reason",
}  # fmt: skip


class InputError(ValueError):
    """Raised if the given runs cannot be analysed; the message says what the user can do about it."""


@dataclass(frozen=True)
class Group:
    """A comparison group: inside it nothing may differ but method and seed."""

    experiment: str
    model: str
    stress: str = ""

    @property
    def label(self) -> str:
        return " / ".join(part for part in (self.experiment, self.model, self.stress) if part)


@dataclass(frozen=True)
class Run:
    """One run folder. `method` is the preset's name (the rows of tables), `rule` the rule behind it."""

    run_id: str
    method: str
    rule: str
    group: Group
    seed: int
    state: str
    step: int  # last step with a metrics row
    steps: int  # planned steps
    collapse_step: int | None
    fingerprint: str
    path: Path = field(compare=False)
    config: dict = field(compare=False, repr=False)
    status: dict = field(compare=False, repr=False)

    @property
    def finished(self) -> bool:
        """True if the run is completed or collapsed, so that its scores count; any other run is listed, not scored."""
        return self.state in FINISHED_STATES

    @property
    def stopped_early(self) -> bool:
        """True if the collapse rule stopped the run, so that nothing was measured after `step`."""
        return self.state == "collapsed"

    @property
    def settings(self) -> dict:
        return self.config.get("settings", {})

    @property
    def shared_settings(self) -> dict:
        """The settings that runs of one group must share, flat: {"train.lr": 2e-4, …}."""
        return flatten({key: value for key, value in self.settings.items() if key not in ("method", "seed")})

    @property
    def method_settings(self) -> dict:
        return flatten(self.settings.get("method", {}))

    @property
    def operational_settings(self) -> dict:
        """The settings that change no number of the run, flat: cluster and ranks, checkpoints, recordings."""
        return flatten(self.config.get("operational", {}))

    @property
    def is_variant(self) -> bool:
        """True for an ablation or changed setting of a rule, False for the rule itself, as published or as tuned."""
        return self.method != self.rule and not self.method.endswith(TUNED)

    @property
    def device_hours(self) -> float | None:
        return self.status.get("device_hours")

    @cached_property
    def attempts(self) -> list[dict]:
        """The record of each attempt, the first one first: host, job, commit, how it ended."""
        return RunFolder(self.path).attempts()

    @property
    def command(self) -> str:
        """The newest command that a user typed; without one the newest command of any kind, and "" if none is recorded."""
        recorded = [self.status.get("command"), *(attempt.get("command") for attempt in reversed(self.attempts))]
        known = [command for command in recorded if command]
        return next((command for command in known if command.startswith(TYPED)), known[0] if known else "")

    @property
    def provenance(self) -> dict:
        """All entries of the status that are shown nowhere else: when, where and with what the run was made."""
        return {key: value for key, value in self.status.items() if key not in NOT_PROVENANCE and value is not None}

    @property
    def warnings(self) -> list[str]:
        """Sentences: why the run ended or failed, if it says so, and at which step and why collapse or mismatch was marked."""
        marks = [
            f"{name} marked at step {self.status[f'{name}_step']}: {self.status.get(f'{name}_reason') or 'no reason recorded'}"
            for name in ("collapse", "mismatch")
            if self.status.get(f"{name}_step") is not None
        ]
        return [reason for reason in [self.status.get("reason")] if reason] + marks


def read_run(folder: RunFolder) -> Run:
    """The run of a folder, in state "missing" if its status cannot be read. InputError if its config cannot."""
    config, status = folder.read_config(), folder.read_status() or {}
    if config is None:
        raise InputError(f"{folder.path}/config.json cannot be read: remove the folder, or re-issue its run")
    try:
        require_unchanged(folder, config, status)
        return as_run(folder, config, status)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder.path} is not a run of this harness ({type(error).__name__}: {error}): leave it out") from error


STATUS_TYPES = {
    "state": str, "step": int, "collapse_step": int, "mismatch_step": int, "reason": str, "collapse_reason": str,
    "mismatch_reason": str, "command": str,
}  # fmt: skip


def require_unchanged(folder: RunFolder, config: dict, status: dict) -> None:
    """InputError if a run does not carry the settings and the identity that it was made with."""
    settings = config["settings"]
    shared = {key: value for key, value in settings.items() if key not in ("method", "seed")}
    hashes = {"config_hash": content_hash(settings), "settings_fingerprint": content_hash(shared)}
    for key, expected in hashes.items():
        if config[key] != expected:
            raise InputError(f"{folder.path}/config.json was edited: its {key} is not that of its settings: leave the run out")
    own = {key: config[key] for key in ("run_id", "preset", "model", "experiment", "seed")} | {"method": config["rule"]}
    for key, value in own.items():
        if status.get(key, value) != value:
            both = f"{key} is {value!r} in config.json and {status[key]!r} in status.json"
            raise InputError(f"{folder.path}: {both}: leave the run out")
    for key, kind in STATUS_TYPES.items():
        if status.get(key) is not None and type(status[key]) is not kind:
            raise InputError(f"{folder.path}/status.json is damaged: {key} is {status[key]!r}: leave the run out")


def as_run(folder: RunFolder, config: dict, status: dict) -> Run:
    steps = config["settings"]["train"]["steps"]
    return Run(
        run_id=config["run_id"],
        method=config["preset"],
        rule=config["rule"],
        group=Group(config["experiment"], config["model"], str(config.get("stress") or "")),
        seed=config["seed"],
        state=status.get("state", "missing"),
        step=max(status.get("step") or 0, folder.last_step()),  # a running run's status lags behind
        steps=steps,
        collapse_step=status.get("collapse_step"),
        fingerprint=config["settings_fingerprint"],
        path=folder.path,
        config=config,
        status=status,
    )


def differing(settings: list[dict]) -> dict[str, list]:
    """Keys whose values are not the same in all of the flat settings, with the distinct values in order of appearance.

    An absent key counts as None.
    """
    keys = dict.fromkeys(key for flat in settings for key in flat)
    values = {key: [] for key in keys}
    for flat in settings:
        for key in keys:
            if flat.get(key) not in values[key]:
                values[key].append(flat.get(key))
    return {key: distinct for key, distinct in values.items() if len(distinct) > 1}


def by_group(runs: list[Run]) -> dict[Group, list[Run]]:
    """The runs of each group. Groups come in the order in which their experiment and model first appear, and of these the
    default before its stress points."""
    groups: dict[Group, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    sweeps = list(dict.fromkeys((group.experiment, group.model) for group in groups))
    place = lambda group: (sweeps.index((group.experiment, group.model)), group.stress)
    return {group: groups[group] for group in sorted(groups, key=place)}


def mixed_settings(runs: list[Run]) -> list[str]:
    """Lines that list the keys and values of settings that should be equal: one for each comparison group whose runs differ in
    shared settings, and one for each method of a group whose runs differ in the method's own (its preset was edited)."""
    lines = []
    for group, members in by_group(runs).items():
        if len({run.fingerprint for run in members}) > 1:
            keys = differing([run.shared_settings for run in members])
            lines.append(f"{group.label}: {listing(keys or {'settings_fingerprint': [run.fingerprint for run in members]})}")
        for method in dict.fromkeys(run.method for run in members):
            keys = differing([run.method_settings for run in members if run.method == method])
            lines += [f"{group.label}, {method}: {listing(keys)}"] if keys else []
    return lines


def listing(keys: dict[str, list]) -> str:
    """Such as: train.lr = 0.0001, 0.0002; rollout.lag = 0, 4"""
    return "; ".join(f"{key} = {', '.join(map(str, values))}" for key, values in keys.items())
