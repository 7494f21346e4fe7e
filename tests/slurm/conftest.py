"""The command as a user types it, on the smallest settings that still train."""

import os
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TINY = ["train.steps=2", "train.prompts_per_step=2", "train.group_size=4", "train.updates_per_step=2", "eval.benchmarks=[chain4]"]


def harness(*arguments: str, tiny: bool = True, **options) -> subprocess.CompletedProcess:
    flags = list(takewhile(lambda argument: "=" not in argument, arguments))
    command = [sys.executable, "-m", "harness", *flags, *(TINY if tiny else []), *arguments[len(flags) :]]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, **options)


@pytest.fixture(scope="session")
def run_harness():
    return harness
