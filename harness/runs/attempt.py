"""Makes one attempt at one run: locks the run's folder, trains, and writes how the attempt began and ended.

An error is always recorded as a failure, never as success.
"""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.distributed import current_ranks
from harness.files import now, write_atomic, write_json
from harness.runs.rank_watch import Watch, watching
from harness.settings.identity import RunPlan
from harness.settings.provenance import dirty_diff, provenance
from harness.store import RunFolder

log = logging.getLogger(__name__)

Train = Callable[[RunPlan, "StopRequest"], str]
BUSY = "busy"  # another live process owns the folder


class StopRequest:
    """A request to stop the run, made by SIGINT, SIGTERM or a condition (for example, that the launcher is gone).

    The training loop calls it between steps; it returns True once a stop has been requested.
    """

    def __init__(self, condition: Callable[[], bool] = lambda: False):
        self.condition = condition
        self.signalled: str | None = None

    def __call__(self) -> bool:
        return self.signalled is not None or self.condition()

    @property
    def why(self) -> str:
        return self.signalled or "its launcher stopped"

    def listen(self, *more: signal.Signals) -> None:
        """Turn SIGINT, SIGTERM and the signals of `more` into a request to stop; the next SIGINT interrupts. Main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM, *more):
            signal.signal(number, self._heard)

    def _heard(self, number: int, _frame) -> None:
        self.signalled = signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log.warning("%s: stopping after this step (Ctrl-C again to stop at once)", self.signalled)


@dataclass
class Claim:
    """Ownership of a run's folder by this process and the ranks that it works with."""

    number: int  # of this attempt, from 1
    seconds: float  # used by earlier attempts
    device_hours: float  # used by earlier attempts


def attempt(plan: RunPlan, train: Train, stop: StopRequest, launch: str | None = None) -> str:
    """Run `train` inside the plan's folder. Returns the state in which it ends: a terminal state, "preempted" or BUSY.

    `launch` names the launch of a sweep. It is stored in the status so that one launch does not attempt a failing run twice.
    All ranks call this function together; the first rank locks the folder and writes to it.
    """
    ranks, folder, started = current_ranks(), plan.folder, time.monotonic()
    claim = ranks.on_first(lambda: claimed(plan, folder, launch))
    if not isinstance(claim, Claim):
        return claim
    clock = lambda: time.monotonic() - started
    try:
        return _owned(plan, folder, claim, train, stop, clock)
    finally:
        if ranks.is_first:
            folder.lock.release()


def claimed(plan: RunPlan, folder: RunFolder, launch: str | None) -> Claim | str:
    """Lock the folder and write its status. Returns the claim, or the state of a folder that must be left alone."""
    if folder.finished:
        return folder.state
    if not folder.lock.acquire():
        return BUSY
    with ExitStack() as undo:
        undo.callback(folder.lock.release)
        if folder.finished:  # another process has finished it just before this one took the lock
            return folder.state
        plan.check_folder()
        claim = Claim(folder.num_attempts() + 1, *folder.spent_before())
        try:
            begin(plan, folder, claim, launch)
        except OSError:
            raise
        except Exception as error:
            with logged_only():
                spent = {"seconds": claim.seconds, "device_hours": claim.device_hours}
                folder.update_status(state="failed", reason=explain(error), launch=launch, step=folder.last_step(), **spent)
            raise
        undo.pop_all()
    return claim


def _owned(plan: RunPlan, folder: RunFolder, claim: Claim, train: Train, stop: StopRequest, clock: Callable[[], float]) -> str:
    ranks = current_ranks()
    name = f"attempt_{claim.number}" if ranks.is_first else f"attempt_{claim.number}.rank{ranks.rank}"

    def write_end(state: str, reason: str | None) -> None:
        if ranks.is_first:
            end(folder, claim, state, reason, clock(), stop.signalled if state == "preempted" else None)

    with log_file(folder.path / "logs" / f"{name}.log"), watching(ranks, partial(write_end, "failed")) as watch:
        try:
            state = train(plan, stop)
        except KeyboardInterrupt:
            with logged_only():
                write_end("preempted", "interrupted")
            raise
        except BaseException as error:
            with logged_only():
                write_end("failed", why(error, watch))
                write_atomic(folder.path / "logs" / f"{name}.traceback.txt", "".join(traceback.format_exception(error)))
            raise
        write_end(state, f"stopped before its last step ({stop.why})" if state == "preempted" else None)
    return state


def traceback_note(folder: RunFolder) -> str:
    """Where the traceback of a run's last attempt is, if it got as far as to write one."""
    written = any(folder.path.glob(f"logs/attempt_{folder.num_attempts()}.*traceback.txt"))
    return f" (traceback in {folder.path}/logs)" if written else ""


def why(error: BaseException, watch: Watch | None) -> str:
    """Reason of a failure, for status.json. Of several ranks it is the first one's to die: that makes the others fail."""
    reason = explain(error)
    if watch is None:
        return reason
    if isinstance(error, RuntimeError) and (cause := watch.find_cause()):
        return cause
    watch.died(reason)
    return reason


def begin(plan: RunPlan, folder: RunFolder, claim: Claim, launch: str | None) -> None:
    """Write config.json, the attempt's record and the status "running": who runs what, with which code and machine."""
    number = claim.number
    folder.remove_leftovers()
    if not folder.read_config():
        write_json(folder.path / "config.json", plan.record())
    facts = {"number": number, "started": now(), "launch": launch, "checkpoint": folder.newest_checkpoint(), **provenance()}
    if diff := dirty_diff():
        write_atomic(folder.path / "logs" / f"attempt_{number}.diff", diff)
    write_json(folder.path / "logs" / f"attempt_{number}.json", facts | {"state": "running"})
    folder.update_status(
        state="running",
        step=folder.last_step(),
        reason=None,
        attempts=number,
        run_id=plan.run_id,
        method=plan.rule,
        preset=plan.preset,
        model=plan.model,
        experiment=plan.experiment,
        seed=plan.config.seed,
        settings_fingerprint=plan.settings_fingerprint,
        config_hash=plan.config_hash,
        started=(folder.read_status() or {}).get("started", facts["started"]),
        ended=None,
        data_fingerprints=plan.data_fingerprints,
        seconds=claim.seconds,
        device_hours=claim.device_hours,
        collapse_step=None,
        collapse_reason=None,
        launch=launch,
        **provenance(),
    )


def end(folder: RunFolder, claim: Claim, state: str, reason: str | None, seconds: float, signalled: str | None = None) -> None:
    """Write how the attempt ended after `seconds`. RuntimeError if another process has taken over the folder."""
    folder.lock.require()
    step = folder.last_step()
    device_hours = claim.device_hours + seconds * current_ranks().size / 3600
    spent = {"seconds": round(claim.seconds + seconds, 3), "device_hours": round(device_hours, 6)}
    ended = folder.end_attempt(claim.number, state=state, reason=reason, step=step, signal=signalled)
    folder.update_status(state=state, reason=reason, ended=ended, step=step, **spent)


def explain(error: BaseException) -> str:
    """Text of an error for status.json, with the remedy where one is known."""
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "can't allocate memory" in str(error):
        return f"{reason} (out of memory: lower train.token_budget, rollout.max_rows or eval.max_rows)"
    return reason


@contextmanager
def logged_only():
    """Log errors of the block instead of raising them: failing to record a failed attempt must not hide why it failed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        log.error("%s", error)


@contextmanager
def log_file(path: Path):
    """Write the log messages of the block to a file as well. If the disk is full, lines of the file are lost and the run goes on.

    Python prints warnings to the console by itself only while no handler is installed. Its handler of last resort is therefore
    installed beside that of the file.
    """
    handler = logging.FileHandler(path, delay=True)
    handler.handleError = lambda record: None
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handlers = [handler] if logging.getLogger().handlers else [handler, logging.lastResort]
    for installed in handlers:
        logging.getLogger("harness").addHandler(installed)
    try:
        yield
    finally:
        for installed in handlers:
            logging.getLogger("harness").removeHandler(installed)
        with suppress(OSError):
            handler.close()
