"""Collects where and with what a run was made: facts that the run finds out by itself and stores in its status."""

from __future__ import annotations

import os
import platform
import shlex
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.distributed import world_size

PACKAGES = ("torch", "transformers", "hydra-core", "math-verify", "numpy", "safetensors", "vllm", "wandb")
COMMAND_VARIABLE = "HARNESS_COMMAND"
MAX_DIFF_CHARACTERS = 5_000_000


def provenance() -> dict:
    import torch

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        "git_sha": git("rev-parse", "HEAD"),
        "git_dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "versions": package_versions(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "ranks": world_size(),
        "memory_gb": memory_gb(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": command_line(),
    }


def command_line() -> str:
    """The command that the user typed; workers inherit it from the process that started them."""
    return os.environ.get(COMMAND_VARIABLE) or shlex.join(sys.argv)


def remember_command_line() -> None:
    """Store the command line for this process and the workers that it starts. `python -m harness` calls this first."""
    os.environ[COMMAND_VARIABLE] = shlex.join(["python", "-m", "harness", *sys.argv[1:]])


@cache
def git(*arguments: str) -> str | None:
    """Output of a git command in the checkout of this code; None if git does not track the code where it lies."""
    here = Path(__file__).resolve()

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here.parent, capture_output=True, text=True, check=True).stdout.rstrip("\n")

    try:
        run("ls-files", "--error-unmatch", here.name)
        return run(*arguments)
    except (OSError, UnicodeDecodeError, subprocess.CalledProcessError):
        return None


def dirty_diff() -> str | None:
    """Difference between the code and its commit, with the names of untracked files; None if there is none."""
    diff, untracked = git("diff", "HEAD"), git("ls-files", "--others", "--exclude-standard")
    if not diff and not untracked:
        return None
    names = "".join(f"# untracked: {name}\n" for name in (untracked or "").splitlines())
    return names + (diff or "")[:MAX_DIFF_CHARACTERS] + "\n"


@cache
def package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError):
        return None
