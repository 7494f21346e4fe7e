"""The command as a user types it, on the smallest settings that still train; a SLURM of our own for the tests that need one."""

import importlib.util
import os
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TINY = ["train.steps=2", "train.prompts_per_step=2", "train.group_size=4", "train.updates_per_step=2", "eval.benchmarks=[chain4]"]


def harness(*arguments: str, tiny: bool = True, env: dict | None = None, **options) -> subprocess.CompletedProcess:
    flags = list(takewhile(lambda argument: "=" not in argument, arguments))
    command = [sys.executable, "-m", "harness", *flags, *(TINY if tiny else []), *arguments[len(flags) :]]
    environment = (env or os.environ) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, **options)


@pytest.fixture(scope="session")
def run_harness():
    return harness


def load(path: Path):
    """A module of tests or benchmarks: neither is installed, so by its path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bring_up(tmp_path_factory, accounting: bool):
    module = load(Path(__file__).parent / "cluster.py")
    if missing := module.missing_programs(accounting):
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge{' slurmdbd mariadb-server' if accounting else ''}")
    with module.Cluster(tmp_path_factory.mktemp("slurm"), accounting) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A SLURM without accounting."""
    yield from bring_up(tmp_path_factory, accounting=False)


@pytest.fixture(scope="session")
def accounting_cluster(tmp_path_factory):
    """One with slurmdbd, so that sacct works."""
    yield from bring_up(tmp_path_factory, accounting=True)


@pytest.fixture(scope="session")
def wait_for():
    return load(Path(__file__).parent / "cluster.py").wait_for


@pytest.fixture(scope="session")
def differences():
    """benchmarks.faults.differences: what is not the same in two run folders but the times."""
    return load(ROOT / "benchmarks" / "faults.py").differences
