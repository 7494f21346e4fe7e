"""One attempt at one run: owns the folder, writes its status from start to end, and never lets an error look like success."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Callable

from harness.identity import RunPlan
from harness.provenance import provenance
from harness.store import RunFolder, now, write_atomic, write_json

log = logging.getLogger(__name__)

Train = Callable[[RunPlan, "StopRequest"], str]
BUSY = "busy"  # another live process owns the folder


class StopRequest:
    """Asked between steps: has someone asked us to stop? SIGINT, SIGTERM, or a condition such as a launcher that is gone."""

    def __init__(self, condition: Callable[[], bool] = lambda: False):
        self.condition = condition
        self.signalled: str | None = None

    def __call__(self) -> bool:
        return self.signalled is not None or self.condition()

    def listen(self) -> None:
        """Turn the first SIGINT or SIGTERM into a request; a second SIGINT interrupts at once. Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _frame) -> None:
        self.signalled = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log.warning("%s: stopping after this step (Ctrl-C again to stop at once)", self.signalled)


def attempt(plan: RunPlan, train: Train, stop: StopRequest, launch: str | None = None) -> str:
    """Run `train` inside the plan's folder and return the state it ends in: a terminal one, "preempted" or BUSY.

    `launch` names the sweep that asked; it is stored so that one sweep does not try a failing run twice.
    """
    folder = plan.folder
    if folder.finished:
        return folder.state
    if not folder.lock.acquire():
        return BUSY
    try:
        plan.check_folder()
        return _owned(plan, folder, train, stop, launch)
    finally:
        folder.lock.release()


def _owned(plan: RunPlan, folder: RunFolder, train: Train, stop: StopRequest, launch: str | None) -> str:
    before = folder.read_status() or {}
    begin(plan, folder, before, launch)
    started, spent = time.monotonic(), before.get("seconds", 0.0)
    state, reason = "failed", None
    try:
        state = train(plan, stop)
        reason = "stopped before its last step" if state == "preempted" else None
    except KeyboardInterrupt:
        state, reason = "preempted", "interrupted"
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        number = before.get("attempts", 0) + 1
        write_atomic(folder.path / "logs" / f"attempt_{number}.traceback.txt", traceback.format_exc())
        raise
    finally:
        seconds = round(spent + time.monotonic() - started, 3)
        device_hours = round(seconds / 3600, 6)
        folder.update_status(
            state=state, reason=reason, ended=now(), seconds=seconds, device_hours=device_hours, step=folder.last_step()
        )
    return state


def begin(plan: RunPlan, folder: RunFolder, before: dict, launch: str | None) -> None:
    if not folder.read_config():
        write_json(folder.path / "config.json", plan.record())
    folder.update_status(
        state="running",
        step=folder.last_step(),
        reason=None,
        attempts=before.get("attempts", 0) + 1,
        run_id=plan.run_id,
        method=plan.rule,
        preset=plan.preset,
        model=plan.model,
        experiment=plan.experiment,
        seed=plan.config.seed,
        settings_fingerprint=plan.settings_fingerprint,
        config_hash=plan.config_hash,
        started=before.get("started", now()),
        ended=None,
        data_fingerprints=plan.data_fingerprints,
        collapse_step=None,
        launch=launch,
        **provenance(),
    )
