"""Imports once what every rank needs, then forks the ranks it is asked for: a line of JSON in, their exit statuses out."""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

# slow to import
import models  # noqa: F401
import transformers.models.qwen3.modeling_qwen3  # noqa: F401

import harness.run
import harness.settings.compose  # noqa: F401


def become(script: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
    """In a forked child: this script's process from here on."""
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    sys.exit(0)


def wait(children: list[int], seconds: float) -> list[int]:
    """Exit statuses, negative for signals; who is late is killed."""
    statuses, deadline = {}, time.monotonic() + seconds
    while len(statuses) < len(children):
        for child in set(children) - statuses.keys():
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                statuses[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return [statuses[child] for child in children]


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    children = []
    for environment, output in zip(order["environments"], order["outputs"], strict=True):
        child = os.fork()
        if child == 0:
            become(str(Path(__file__).parent / order["script"]), order["arguments"], environment, output)
        children.append(child)
    print(json.dumps(wait(children, order["seconds"])), flush=True)
