"""`python -m harness.doctor run`: a whole folder passes, and each kind of damage is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness import doctor
from harness.store import RunFolder


@pytest.fixture
def folder(undisturbed, tmp_path) -> RunFolder:
    path = tmp_path / undisturbed.path.name
    shutil.copytree(undisturbed.path, path)
    return RunFolder(path)


def answer(folder: RunFolder, capsys) -> tuple[int, str]:
    return doctor.main(["run", str(folder.path)]), capsys.readouterr().out


def test_a_whole_folder(folder, capsys):
    code, text = answer(folder, capsys)
    assert code == 0 and text.endswith("completed, 3 steps, 3 evaluations; whole\n")


def edit_settings(path: Path):
    config = json.loads((path / "config.json").read_text())
    config["settings"]["train"]["lr"] = 1.0
    (path / "config.json").write_text(json.dumps(config))


def drop_line(name: str, number: int):
    def damage(path: Path):
        lines = (path / name).read_text().splitlines(keepends=True)
        (path / name).write_text("".join(lines[:number] + lines[number + 1 :]))

    return damage


def cut(name: str):
    def damage(path: Path):
        (path / name).write_bytes((path / name).read_bytes()[:-20])

    return damage


def replaced(name: str, old: str, new: str):
    def damage(path: Path):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new, 1))

    return damage


def another_verdict(path: Path):
    rows = RunFolder(path).rows("evals")
    rows[0]["num_correct"] = 1 - rows[0]["num_correct"]
    (path / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def killed(path: Path):
    RunFolder(path).update_status(state="running")


@pytest.mark.parametrize(
    "damage, said",
    [
        (edit_settings, "it was edited"),
        (cut("config.json"), "config.json is not readable"),
        (cut("status.json"), "status.json is missing or not readable"),
        (killed, "says running, but nobody is"),
        (drop_line("metrics.jsonl", 1), "no rows for steps [2]"),
        (drop_line("metrics.jsonl", 2), "ends at step 2 of 3"),
        (cut("metrics.jsonl"), "lines [3] are half-written or damaged"),
        (drop_line("evals.jsonl", 4), "the evaluation at step 2 has 2 of 3 problems"),
        (lambda path: (path / "evals.jsonl").unlink(), "evals.jsonl has no evaluation of steps [0, 2, 3]"),
        (lambda path: (path / "samples/step=2.jsonl.gz").unlink(), "samples/ has none of the evaluations at steps [2]"),
        (lambda path: shutil.rmtree(path / "checkpoints"), "checkpoints/ has none of the last step"),
        (cut("samples/step=2.jsonl.gz"), "samples/step=2.jsonl.gz is damaged"),
        (cut("checkpoints/step=3/model.safetensors"), "step=3: model.safetensors does not match its hash; resuming falls back"),
        (lambda path: (path / "checkpoints/step=3/optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (cut("checkpoints/step=3/manifest.json"), "step=3 has no readable manifest.json"),
        (replaced("checkpoints/step=3/manifest.json", '"num_updates": ', '"num_updates": 1'), "manifest.json was changed"),
        (lambda path: (path / "checkpoints/step=3").rename(path / "checkpoints/step=9"), "step=9: manifest.json was changed"),
        (replaced("metrics.jsonl", '"step": 2', '"step": 99999'), "rows of steps [99999], and the run has 3 steps"),
        (replaced("metrics.jsonl", '"step": 2', '"step": 1' + "0" * 30), "lines [2] are half-written or damaged"),
        (another_verdict, "1 rows of evals.jsonl count other verdicts than its samples have"),
        (replaced("config.json", '"train": {', '"train": null, "ignored": {'), "cannot be checked"),
    ],
)
def test_damage_is_named(folder, capsys, damage, said):
    damage(folder.path)
    code, text = answer(folder, capsys)
    assert code == 1 and said in text and "NOT whole" in text


def test_a_renamed_folder_is_named(folder, capsys):
    moved = folder.path.rename(folder.path.with_name("seed=1-00000000"))
    code, text = answer(RunFolder(moved), capsys)
    assert code == 1 and "it was renamed" in text


def test_what_a_user_gets_wrong(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        doctor.main(["run", str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="no run folders"):
        doctor.main(["run", str(tmp_path)])
    with pytest.raises(ValueError, match="name a run folder"):
        doctor.main(["run"])
