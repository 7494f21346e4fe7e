"""Lets the ranks of a run watch each other: when one dies, the others end within a minute and can say why.

A collective operation waits for a dead rank for up to half an hour, and not every launcher ends the other processes. Therefore
each rank writes a heartbeat to the key-value store of the launcher's rendezvous, and a thread checks those of the others.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress

import torch.distributed as dist

from harness.distributed import Ranks

log = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
SILENT_SECONDS = 40.0  # a rank without a heartbeat for this long is taken to be dead
GRACE_SECONDS = 10.0  # until this process is ended: the main thread may notice by itself and write down why
LEFT = "left"


class Watch:
    """Heartbeats of this rank and of the others. `cause` says which rank died and why; None while none is known to have died."""

    def __init__(self, ranks: Ranks, last_words: Callable[[str], None]):
        self.ranks, self.last_words, self.cause = ranks, last_words, None
        self._stop = threading.Event()
        self._signs: dict[int, tuple[bytes, float]] = {}
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # a separate connection: that of the process group is blocked while the main thread waits in a collective
        self._store = dist.PrefixStore("harness.watch", dist.TCPStore(host, port, is_master=False, wait_for_workers=False))

    def died(self, why: str) -> None:
        """Tell the other ranks why this rank ends."""
        try:
            self._store.set("cause", f"rank {self.ranks.rank}: {why}")
        except RuntimeError as error:
            log.warning("the other ranks could not be told: %s", error)

    def find_cause(self) -> str | None:
        """Reason that another rank gave before it died, or None if none arrives within three seconds."""
        for _ in range(10):
            with suppress(RuntimeError):  # the store may have gone with the rank that held it
                self._look_for_cause()
            if self.cause:
                return self.cause
            time.sleep(0.3)
        return None

    def start(self) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self) -> None:
        self._stop.set()
        try:
            self._store.set(f"sign/{self.ranks.rank}", LEFT)
        except RuntimeError:
            log.debug("the ranks' store has ended before this rank")

    def _watch(self) -> None:
        beat = 0
        while self.cause is None:
            try:
                self._store.set(f"sign/{self.ranks.rank}", str(beat))
                self._look_for_cause()
                self._look_for_signs()
            except RuntimeError as error:  # the process that held the store is gone
                self.cause = f"the ranks' store is gone: {error}"
            beat += 1
            if self._stop.wait(BEAT_SECONDS):
                return
        if not self._stop.wait(GRACE_SECONDS):
            log.error("ending rank %d, which waits for a dead one: %s", self.ranks.rank, self.cause)
            with suppress(OSError, RuntimeError):
                self.last_words(self.cause)
            os._exit(1)

    def _look_for_cause(self) -> None:
        if self.cause is None and self._store.check(["cause"]):
            self.cause = self._store.get("cause").decode()

    def _look_for_signs(self) -> None:
        now = time.monotonic()
        for rank in set(range(self.ranks.size)) - {self.ranks.rank}:
            key = f"sign/{rank}"
            sign = self._store.get(key) if self._store.check([key]) else b""
            last, since = self._signs.get(rank, (None, now))
            if sign != last or sign == LEFT.encode():
                self._signs[rank] = (sign, now)
            elif now - since > SILENT_SECONDS:
                self.cause = f"rank {rank} has given no sign of life for {SILENT_SECONDS:.0f} s"


@contextmanager
def watching(ranks: Ranks, last_words: Callable[[str], None]):
    """Context with a Watch for several ranks, or None for one. `last_words` gets the cause before this process is ended."""
    if ranks.size == 1:
        yield None
        return
    watch = Watch(ranks, last_words)
    watch.start()
    try:
        yield watch
    finally:
        watch.leave()
