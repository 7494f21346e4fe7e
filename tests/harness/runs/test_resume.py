"""Every state in which a killed process can leave the disk: resuming from it ends with the files of an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from pathlib import Path

import pytest

import harness.files as files
import harness.runs.checkpoint as checkpoint
from harness.runs.attempt import StopRequest, attempt
from harness.timing import Timer


class Recorder:
    """Copies the run folder whenever it is in a state that it has not been in before."""

    def __init__(self, folder: Path, target: Path):
        self.folder, self.target, self.seen = folder, target, {}
        self.alone = threading.RLock()  # the heartbeat's thread writes too

    def look(self, moment: str) -> None:
        with self.alone:
            digest = hashlib.sha256(repr(self.content()).encode()).hexdigest()
            if digest not in self.seen:
                copy = self.target / str(len(self.seen))
                shutil.copytree(self.folder, copy)
                self.seen[digest] = (moment, copy)

    def content(self) -> list:
        """What a resumed run could read: logs, the lock and times in the status make no difference."""
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and path.parent.name != "logs"]
        status = (files.read_json(self.folder / "status.json") or {}).get("state")
        others = [path for path in paths if "status.json" not in path.name and "lock" not in path.name]
        return [status, *((str(path.relative_to(self.folder)), hash(path.read_bytes())) for path in others)]

    def around(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments, **options):
            with self.alone:
                self.look(f"before {name}")
                result = original(*arguments, **options)
                self.look(f"after {name}")
            return result

        patch.setattr(owner, name, watched)

    def halves(self, patch: pytest.MonkeyPatch) -> None:
        """Half of a file's bytes are there."""
        put, write_tensors, rmtree = files.put, checkpoint.write_tensors, shutil.rmtree

        def half_put(file, data):
            file.write(data[: len(data) // 2])
            file.flush()
            self.look("half a write")
            put(file, data[len(data) // 2 :])

        def half_write(path, tensors):
            digest = write_tensors(path, tensors)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            self.look("half a tensor file")
            path.write_bytes(whole)
            return digest

        def half_rmtree(path, ignore_errors=False):
            for file in sorted(Path(path).glob("*"))[:1]:
                file.unlink()
            self.look("half removed")
            rmtree(path, ignore_errors=ignore_errors)

        patch.setattr(files, "put", half_put)
        patch.setattr(checkpoint, "write_tensors", half_write)
        patch.setattr(shutil, "rmtree", half_rmtree)


@pytest.fixture(scope="module")
def states(tiny_plan, tiny_train, tmp_path_factory) -> list[tuple[str, Path]]:
    plan = tiny_plan(tmp_path_factory.mktemp("watched"), "checkpoint.keep_last=1", "checkpoint.keep_best=0")
    recorder = Recorder(plan.folder.path, tmp_path_factory.mktemp("states"))
    stage = Timer.__call__
    with pytest.MonkeyPatch.context() as patch:
        recorder.halves(patch)
        for owner, name in ((os, "replace"), (files, "put"), (checkpoint, "write_tensors"), (Path, "unlink")):
            recorder.around(patch, owner, name)
        patch.setattr(Timer, "__call__", lambda self, name: recorder.look(f"stage {name}") or stage(self, name))
        assert attempt(plan, tiny_train, StopRequest()) == "completed"
    return list(recorder.seen.values())


def owner_died(folder: Path) -> None:
    lock = files.read_json(folder / "lock.json")
    if lock:
        (folder / "lock.json").write_text(json.dumps(lock | {"born": "0"}))


def test_every_state_of_the_disk_leads_to_the_undisturbed_run(states, undisturbed, tiny_plan, tiny_train, faults, tmp_path):
    moments = {moment for moment, _ in states}
    assert moments >= {"half a write", "half a tensor file", "after put", "after write_tensors", "after unlink"}
    assert len(states) > 50
    for number, (moment, state) in enumerate(states):
        plan = tiny_plan(tmp_path / str(number), "checkpoint.keep_last=1", "checkpoint.keep_best=0")
        shutil.move(state, plan.folder.path)
        owner_died(plan.folder.path)
        was_finished = plan.folder.finished
        assert attempt(plan, tiny_train, StopRequest()) == "completed", moment
        assert faults.differences(undisturbed, plan.folder) == [], moment
        assert was_finished or not list(plan.folder.path.rglob("*.tmp")), moment
        shutil.rmtree(tmp_path / str(number))  # 5 MB each
