"""A pool of math-verify processes: questions in, outcomes out, each answer under a deadline."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from multiprocessing.connection import wait
from pathlib import Path

Question = tuple[str, str]  # gold, answer

WORKER = Path(__file__).with_name("math_verify_worker.py")
MAX_WORKERS = 8
JOB_SIZE = 8
START_SECONDS = 120
OUTCOMES = {b"c": "correct", b"w": "wrong", b"u": "unreadable", b"g": "bad_gold"}


class Template:
    """The process that has math-verify loaded and forks workers (evals/math_verify_worker.py)."""

    def __init__(self):
        self.control, child = socket.socketpair()
        self.control.settimeout(START_SECONDS)
        # -P keeps this package's folder off the module path. A fixed hash seed makes set orders, hence verdicts, repeat.
        with child:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)],
                stdin=child,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )

    def fork(self) -> "Worker":
        ours, theirs = socket.socketpair()
        with theirs, suppress(OSError):
            socket.send_fds(self.control, [bytes(4)], [theirs.fileno()])
            if worker := self.control.recv(4):
                return Worker(ours, int.from_bytes(worker))
        ours.close()
        self.close()
        raise RuntimeError(f"the math-verify process did not start; run {sys.executable} -P {WORKER} < /dev/null to see why")

    def kill(self, worker: "Worker") -> None:
        """End a worker, hung or not. If this process is gone, its workers end by their own alarm."""
        worker.connection.close()
        with suppress(OSError):
            self.control.sendall(worker.pid.to_bytes(4))
            self.control.recv(4)

    def close(self) -> None:
        """End the process and with it its workers."""
        self.control.close()
        try:
            self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Worker:
    """The near end of a worker process: a connection, the questions it was given and when the first is due.

    `from_right`: at which end of the waiting jobs it takes its next.
    """

    def __init__(self, connection: socket.socket, pid: int):
        self.connection, self.pid, self.from_right = connection, pid, False
        self.job: deque[Question] = deque()
        self.due = 0.0

    def fileno(self) -> int:
        return self.connection.fileno()

    def begin(self, job: deque[Question], deadline: float) -> None:
        self.job, self.due = job, time.monotonic() + deadline
        with suppress(OSError):  # a dead worker is told by `receive`
            self.connection.sendall(json.dumps([job[0][0], [answer for _, answer in job]]).encode() + b"\n")

    def receive(self) -> list[str]:
        """The outcomes that have come; none if the process ended."""
        with suppress(ConnectionResetError):
            return [OUTCOMES[bytes([letter])] for letter in self.connection.recv(JOB_SIZE)]
        return []


class Pool:
    """One worker for each core this process may use, at most MAX_WORKERS, started when needed. Not for several threads.

    Jobs are in order of what their golds look like, and workers take from either end: each learns its own part of the grammar.
    """

    def __init__(self):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.size = min(cores, MAX_WORKERS)
        self.template: Template | None = None
        self.workers: list[Worker] = []

    def ask(self, questions: Iterable[Question], deadline: float) -> dict[Question, str]:
        """The outcome of each question: one of OUTCOMES, "deadline" (none in that many seconds) or "died" (of memory, say)."""
        outcomes: dict[Question, str] = {}
        waiting = deque(sorted(_jobs(questions), key=_shape))
        try:
            while waiting or any(worker.job for worker in self.workers):
                while waiting and (worker := self._free_worker()):
                    worker.begin(waiting.pop() if worker.from_right else waiting.popleft(), deadline)
                for worker in self._collect(outcomes, deadline):
                    waiting.extendleft([worker.job] if worker.job else [])
                    self._end(worker)
        except BaseException:
            self.close()  # an answer still on its way must not meet the next question
            raise
        return outcomes

    def _collect(self, outcomes: dict[Question, str], deadline: float) -> list[Worker]:
        """Take the answers that come until the next is due; the workers that failed, their first question answered for them."""
        busy = [worker for worker in self.workers if worker.job]
        ready = wait(busy, max(0.0, min(worker.due for worker in busy) - time.monotonic()))
        now = time.monotonic()
        failed = []
        for worker in busy:
            answers = worker.receive() if worker in ready else []
            for answer in answers:
                outcomes[worker.job.popleft()] = answer
            if answers:
                worker.due = now + deadline
            elif worker in ready or now >= worker.due:
                outcomes[worker.job.popleft()] = "died" if worker in ready else "deadline"
                failed.append(worker)
        return failed

    def _free_worker(self) -> Worker | None:
        """A worker without a job: an old one, else a new one while there is room."""
        idle = [worker for worker in self.workers if not worker.job]
        for worker in wait(idle, 0):  # it says something unasked: it has ended
            idle.remove(worker)
            self._end(worker)
        if idle or len(self.workers) == self.size:
            return idle[0] if idle else None
        if self.template and self.template.process.poll() is not None:
            if self.workers:  # they outlive it, and finish what they are at
                return None
            self.close()
        self.template = self.template or Template()
        worker = self.template.fork()
        worker.from_right = 2 * sum(other.from_right for other in self.workers) < len(self.workers)
        self.workers.append(worker)
        return worker

    def _end(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.template.kill(worker)

    def close(self) -> None:
        """End all processes; the pool may be used again."""
        for worker in self.workers:
            worker.connection.close()
        if self.template:
            self.template.close()
        self.workers, self.template = [], None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


def _jobs(questions: Iterable[Question]) -> Iterator[deque[Question]]:
    """Runs of up to JOB_SIZE questions about one gold, which a worker then reads once."""
    for _, run in groupby(questions, key=lambda question: question[0]):
        run = list(run)
        yield from (deque(run[start : start + JOB_SIZE]) for start in range(0, len(run), JOB_SIZE))


def _shape(job: deque[Question]) -> str:
    """The gold without what differs between golds of one kind."""
    return re.sub(r"[\d\s]", "", job[0][0])
