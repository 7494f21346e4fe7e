"""Reads and writes slurm.json, the record of a submission in each run's folder. Imports neither torch nor hydra."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.files import read_json, write_json
from harness.store import RunFolder

NAME = "slurm.json"
JOB_ID = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class Submission:
    """The latest submission of one run."""

    job_id: str  # "12_3": task 3 of array 12; "12": a job of its own
    jobs_folder: str  # holds the batch script and SLURM's own logs
    overrides: list[str]  # from which the job composes the run's settings
    cwd: str  # directory in which the overrides are to be read
    submitted: str
    cancelled: str | None = None  # when `python -m slurm cancel` cancelled it

    def write(self, folder: RunFolder) -> None:
        write_json(folder.path / NAME, asdict(self))

    def logs(self) -> list[Path]:
        """Files with the job's output that SLURM itself captured, in all attempts."""
        return sorted(Path(self.jobs_folder).glob(f"{self.job_id}_*_log.*"))


def read_submission(folder: RunFolder) -> Submission | None:
    """The run's latest submission; None if there was none, or its record is damaged."""
    stored = read_json(folder.path / NAME) or {}
    try:
        return Submission(**stored) if JOB_ID.fullmatch(stored["job_id"]) else None
    except (KeyError, TypeError):
        return None


def find_folders(*roots: Path | str) -> Iterator[RunFolder]:
    """Run folders at or below the roots, including those that were submitted and have not begun."""
    for root in roots:
        if not Path(root).is_dir():
            raise ValueError(f"{root} is not a folder: give run folders or a folder that holds them (default: runs)")
        for path, subfolders, files in os.walk(root):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            if NAME in files or ("config.json" in files and "status.json" in files):
                subfolders.clear()
                yield RunFolder(Path(path))


def job_here(environment: Mapping[str, str] = os.environ) -> str:
    """Id of the job that this process belongs to, in the form of `Submission.job_id`."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]
