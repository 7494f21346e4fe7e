"""The command as a user types it, on the smallest settings that still train."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TINY = ["train.steps=2", "train.prompts_per_step=2", "train.group_size=4", "train.updates_per_step=2", "eval.benchmarks=[chain4]"]


def harness(*arguments: str, tiny: bool = True, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "harness", *(TINY if tiny else []), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, **options)


@pytest.fixture(scope="session")
def run_harness():
    return harness
