"""Run on two ranks: the same learner alone and divided, and what differs. The first rank writes it to the file that is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from models import KINDS, make_experience, make_model
from torch import Tensor

from harness.distributed import ALONE, Ranks, join
from harness.learning.learner import Learner
from harness.learning.sharded import whole
from harness.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    model_tensors,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from harness.settings.compose import compose_rule
from harness.telemetry.timing import Timer

TRAIN = SimpleNamespace(
    lr=1e-3, betas=[0.9, 0.999], adam_eps=1e-8, weight_decay=0.01, clip_norm=0.5, warmup_updates=1, aggregation="token-mean",
    divergence="topk_tv", precision="float32", token_budget=40, logprob_chunk=7,
)  # fmt: skip


class Trial:
    """A learner that keeps the gradient of its last update, whole."""

    def __init__(self, kind: str, rule: str, ranks: Ranks):
        self.ranks, self.gradient = ranks, {}
        self.model = make_model(kind)
        if not ranks.is_first:  # a rank that is sent its weights may hold anything before
            for parameter in self.model.parameters():
                parameter.data.fill_(torch.nan)
        self.learner = Learner(self.model, compose_rule(rule), TRAIN, 9, ranks)
        step = self.learner.step

        def watched(loss: float):
            self.gradient = {name: whole(p.grad).clone() for name, p in self.model.named_parameters()}
            return step(loss)

        self.learner.step = watched

    def weights(self) -> dict[str, Tensor]:
        return {name: whole(tensor).detach().clone() for name, tensor in model_tensors(self.model).items()}

    def state(self) -> dict[str, Tensor]:
        return {name: whole(tensor).clone() for name, tensor in optimizer_tensors(self.model, self.learner.optimizer).items()}

    def checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(
            step, step, model_tensors(self.model), optimizer_tensors(self.model, self.learner.optimizer), queue=[], score=None
        )

    def save(self, root: Path, step: int) -> None:
        if self.ranks.is_first:
            save_checkpoint(root, self.checkpoint(step), 9, 0)
        else:
            self.checkpoint(step).send()

    def restore(self, root: Path) -> None:
        found = load_checkpoint(root) if self.ranks.is_first else Checkpoint(0, 0, {}, {}, [])
        restore_model(self.model, found.model, self.ranks)
        restore_optimizer(self.model, self.learner.optimizer, found.optimizer, self.ranks)


def largest_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def compare(kind: str, rule: str, num_rows: int, ranks: Ranks) -> dict:
    """One update of `num_rows` responses: alone against divided."""
    experience = make_experience().rows(torch.arange(num_rows))
    alone, divided = Trial(kind, rule, ALONE), Trial(kind, rule, ranks)
    logprobs = [trial.learner.logprobs(experience)[0] for trial in (alone, divided)]
    updates = [trial.learner.update(experience, Timer(), keep_pairs=True) for trial in (alone, divided)]
    keys = [sorted(int(key) for j in update.judged for key in j.batch.response_key) for update in updates]
    return {
        "scale": max(float(gradient.abs().max()) for gradient in alone.gradient.values()),
        "gradient": largest_difference(alone.gradient, divided.gradient),
        "weights": largest_difference(alone.weights(), divided.weights()),
        "logprobs": float((logprobs[0] - logprobs[1]).abs().max()),
        "loss": abs(updates[0].loss - updates[1].loss),
        "grad_norm": abs(updates[0].grad_norm - updates[1].grad_norm) / updates[0].grad_norm,
        "same_rows_judged": keys[0] == keys[1],
    }


def reshard(kind: str, folder: Path, ranks: Ranks) -> dict:
    """Saved by two and loaded by one, saved by one and loaded by two: everything must be equal, bit for bit."""
    experience = make_experience()
    divided = Trial(kind, "grpo", ranks)
    divided.learner.update(experience, Timer())
    divided.save(folder / f"{kind}-two", 1)
    kept_weights, kept_state = divided.weights(), divided.state()
    ranks.gather(None)  # the file is there
    alone = Trial(kind, "grpo", ALONE)
    alone.restore(folder / f"{kind}-two")
    two_to_one = max(largest_difference(alone.weights(), kept_weights), largest_difference(alone.state(), kept_state))
    if ranks.is_first:
        alone.save(folder / f"{kind}-one", 1)
    ranks.gather(None)
    again = Trial(kind, "grpo", ranks)
    again.restore(folder / f"{kind}-one")
    one_to_two = max(largest_difference(again.weights(), kept_weights), largest_difference(again.state(), kept_state))
    contents = [
        [(folder / f"{kind}-{number}" / "step=1" / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]
        for number in ("one", "two")
    ]
    again.learner.update(experience, Timer())  # the restored state is one that trains
    return {"two_to_one": two_to_one, "one_to_two": one_to_two, "same_bytes": contents[0] == contents[1]}


def main(out: Path) -> None:
    ranks = join("cpu")
    cases = [(kind, "grpo", 11) for kind in KINDS] + [("qwen3", rule, 11) for rule in ("cppo", "m2po")] + [("qwen3", "pg_is", 1)]
    cases += [("qwen3_moe", "pg_is", 1)]
    found = {"/".join(map(str, case)): compare(*case, ranks) for case in cases}
    found |= {f"reshard/{kind}": reshard(kind, out.parent, ranks) for kind in ("qwen3", "qwen3_moe")}
    if ranks.is_first:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
