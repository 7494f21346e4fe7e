"""Checkpoints on disk: what is kept, what is dropped, and what a reader takes for whole."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save as save_tensors

import harness.runs.checkpoint as checkpoint
import harness.runs.tensor_file as tensor_file
from harness.parts import Parts
from harness.rollout.decode import TransformersEngine
from harness.runs.attempt import StopRequest, attempt
from harness.runs.checkpoint import Checkpoint, complete_steps, load_checkpoint, save_checkpoint


def save(root, step: int, score: float | None = None, keep_last: int = 2, keep_best: int = 0):
    model, optimizer = {"w": torch.full((3,), float(step))}, {"w/step": torch.tensor(1.0)}
    return save_checkpoint(root, Checkpoint(step, 4 * step, model, optimizer, [], score), keep_last, keep_best)


def test_it_comes_back_as_it_was(tmp_path):
    save(tmp_path, 3, 0.25)
    found = load_checkpoint(tmp_path)
    assert (found.step, found.num_updates, found.score, found.queue) == (3, 12, 0.25, [])
    assert torch.equal(found.model["w"], torch.full((3,), 3.0)) and torch.equal(found.optimizer["w/step"], torch.tensor(1.0))


def test_none_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path) is None and load_checkpoint(tmp_path / "nowhere") is None


def test_the_newest_are_kept(tmp_path):
    for step in (7, 14, 21, 28):
        save(tmp_path, step)
    assert complete_steps(tmp_path) == [21, 28]


def test_the_best_are_kept_beside_the_newest_and_of_equals_the_earliest(tmp_path):
    scores = {7: 0.5, 14: 0.7, 21: 0.7, 24: None, 28: 0.6, 35: 0.1}
    for step, score in scores.items():
        save(tmp_path, step, score, keep_last=1, keep_best=1)
    assert complete_steps(tmp_path) == [14, 35]


def test_a_damaged_newer_one_never_pushes_out_a_good_one(tmp_path):
    save(tmp_path, 7)
    (save(tmp_path, 14) / "model.safetensors").write_bytes(b"")
    assert load_checkpoint(tmp_path).step == 7
    save(tmp_path, 8, keep_last=1)
    assert complete_steps(tmp_path) == [8]


def test_leftovers_are_no_checkpoints_and_go_at_the_next_save(tmp_path):
    save(tmp_path, 7)
    (tmp_path / ".step=14.1.tmp").mkdir()
    (tmp_path / ".step=14.1.tmp" / "manifest.json").write_text("{}")
    (tmp_path / "step=5").mkdir()
    assert load_checkpoint(tmp_path).step == 7
    save(tmp_path, 14)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step=14", "step=7"]


def test_all_damaged_is_none(tmp_path, caplog):
    for step in (7, 14):
        (save(tmp_path, step) / "manifest.json").write_text("")
    assert load_checkpoint(tmp_path) is None
    assert caplog.text.count("is damaged") == 2


def test_a_checkpoint_follows_every_evaluation_that_is_the_best_so_far(tiny_plan, tiny_train, tmp_path, monkeypatch):
    """The evaluation at step 0 is of untrained weights and does not count; step 2 is no better than step 1; 3 is the last."""
    scores = {0: 0.9, 1: 0.5, 2: 0.5, 3: 0.1}
    saved, original = [], Parts.save
    steps = lambda rows: sorted({row["step"] for row in rows})
    monkeypatch.setattr("harness.parts.evaluation_means", lambda rows: [(step, scores[step]) for step in steps(rows)])
    monkeypatch.setattr(Parts, "save", lambda self, step: saved.append(step) or original(self, step))
    plan = tiny_plan(tmp_path, "eval.every=1", "checkpoint.every=100", "checkpoint.keep_last=1", "checkpoint.keep_best=1")
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert saved == [1, 3]
    assert complete_steps(plan.folder.path / "checkpoints") == [1, 3]


def test_resuming_samples_nothing_again(tiny_plan, tiny_train, tmp_path, monkeypatch):
    """Lag 1: at the end of step 2 of 3 the last batch waits in the checkpoint."""
    plan = tiny_plan(tmp_path)
    attempt(plan, tiny_train, StopRequest(lambda: plan.folder.last_step() == 2))
    generate, calls = TransformersEngine.generate, []

    def counted(self, prompts, seeds, sampling):
        calls.append(sampling.top_k)
        return generate(self, prompts, seeds, sampling)

    monkeypatch.setattr(TransformersEngine, "generate", counted)
    assert attempt(plan, tiny_train, StopRequest()) == "completed"
    assert calls == [0], "one evaluation, no training batch"


def test_weights_of_another_model_are_refused():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="another model: missing.*weight.*unexpected.*other"):
        checkpoint.restore_model(model, {"other": torch.zeros(1)})


def test_weights_of_another_shape_are_refused():
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"another model: weight has shape \[3, 2\] there and \[2, 2\] here"):
        checkpoint.restore_model(model, {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})


def test_a_tensor_file_is_what_safetensors_writes(tmp_path):
    dtypes = list(tensor_file.DTYPES)
    tensors = {f"b{i}": torch.full((3, 5), 7).to(dtype) for i, dtype in enumerate(dtypes)}
    tensors |= {f"ä{i}/step": torch.ones(()).to(dtype) for i, dtype in enumerate(dtypes)} | {"none": torch.zeros(0, 4)}
    digest = tensor_file.write_tensors(tmp_path / "file", tensors)
    assert (tmp_path / "file").read_bytes() == save_tensors(tensors)
    assert digest == checkpoint.file_hash(tmp_path / "file")
    read = tensor_file.TensorFile(tmp_path / "file")
    assert set(read) == set(tensors) and all(torch.equal(read[name], tensors[name]) for name in tensors)
