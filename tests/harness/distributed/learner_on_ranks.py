"""Run on two ranks: the same learner alone and divided, and what differs. The first rank writes it to the file that is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from models import KINDS, make_experience, make_model
from torch import Tensor

from harness.distributed import ALONE, Ranks, init_ranks
from harness.learning.learner import Learner
from harness.learning.model import load_model, load_tokenizer
from harness.learning.sharded import whole
from harness.rollout.engines import make_engine
from harness.rollout.queue import RolloutQueue
from harness.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    model_tensors,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from harness.settings.compose import compose_config, compose_rule
from harness.timing import Timer

TRAIN = SimpleNamespace(
    lr=1e-3, betas=[0.9, 0.999], adam_eps=1e-8, weight_decay=0.01, clip_norm=0.5, warmup_updates=1, aggregation="token-mean",
    divergence="topk_tv", token_budget=40, logprob_chunk=7,
)  # fmt: skip


class Trial:
    """A learner that keeps the gradient of its last update, whole."""

    def __init__(self, kind: str, rule: str, ranks: Ranks, precision: str = "float32", **savings: bool):
        self.ranks, self.gradient = ranks, {}
        self.model = make_model(kind)
        if not ranks.is_first:  # a rank that is sent its weights may hold anything before
            for parameter in self.model.parameters():
                parameter.data.fill_(torch.nan)
        config = SimpleNamespace(**vars(TRAIN) | {"precision": precision})
        self.learner = Learner(self.model, compose_rule(rule), config, 9, ranks, **savings)
        step = self.learner.step

        def watched(loss: float):
            self.gradient = {name: whole(p.grad).clone() for name, p in self.model.named_parameters()}
            return step(loss)

        self.learner.step = watched

    def weights(self) -> dict[str, Tensor]:
        return {name: whole(tensor).detach().clone() for name, tensor in model_tensors(self.model).items()}

    def state(self) -> dict[str, Tensor]:
        return {name: whole(tensor).clone() for name, tensor in self.moments().items()}

    def moments(self) -> dict[str, Tensor]:
        return optimizer_tensors(self.learner.stepped, self.learner.optimizer)

    def checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(step, step, model_tensors(self.model), self.moments(), queue=[], score=None)

    def save(self, root: Path, step: int) -> None:
        if self.ranks.is_first:
            save_checkpoint(root, self.checkpoint(step), 9, 0)
        else:
            self.checkpoint(step).send()

    def restore(self, root: Path) -> None:
        found = load_checkpoint(root) if self.ranks.is_first else Checkpoint(0, 0, {}, {}, [])
        restore_model(self.model, found.model, self.ranks)
        restore_optimizer(self.learner.stepped, self.learner.optimizer, found.optimizer, self.ranks)


def largest_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def dtypes(*held: dict[str, Tensor]) -> list[str]:
    return sorted({str(tensor.dtype) for tensors in held for tensor in tensors.values()})


def compare(kind: str, rule: str, num_rows: int, ranks: Ranks, precision: str = "float32", **savings: bool) -> dict:
    """One update of `num_rows` responses: alone against divided."""
    experience = make_experience().rows(torch.arange(num_rows))
    alone, divided = Trial(kind, rule, ALONE, precision), Trial(kind, rule, ranks, precision, **savings)
    logprobs = [trial.learner.logprobs(experience)[0] for trial in (alone, divided)]
    updates = [trial.learner.update(experience, Timer(), keep_pairs=True) for trial in (alone, divided)]
    keys = [sorted(int(key) for j in update.decided for key in j.batch.response_key) for update in updates]
    return {
        "scale": max(float(gradient.abs().max()) for gradient in alone.gradient.values()),
        "gradient": largest_difference(alone.gradient, divided.gradient),
        "weights": largest_difference(alone.weights(), divided.weights()),
        "logprobs": float((logprobs[0] - logprobs[1]).abs().max()),
        "loss": abs(updates[0].loss - updates[1].loss),
        "grad_norm": abs(updates[0].grad_norm - updates[1].grad_norm) / updates[0].grad_norm,
        "same_rows_judged": keys[0] == keys[1],
        "dtypes": dtypes(divided.gradient, divided.weights(), divided.state()),
    }


def reshard(kind: str, folder: Path, ranks: Ranks) -> dict:
    """Saved by two and loaded by one, saved by one and loaded by two: everything must be equal, bit for bit."""
    experience = make_experience()
    divided = Trial(kind, "grpo", ranks, offload=True)  # which must not show in the files
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


def sample(ranks: Ranks) -> dict:
    """The same requests sampled by one engine and by two: draws that differ, which only float rounding can cause."""
    config = compose_config(["train.prompts_per_step=24", "rollout.lag=1"])
    model, tokenizer = load_model(config.model), load_tokenizer(config.model.path)
    alone, divided = make_engine(config, model, tokenizer, ALONE), make_engine(config, model, tokenizer, ranks)
    one, two = (RolloutQueue(config, engine).take(1)[1] for engine in (alone, divided))
    pairs = list(zip(one.responses(), two.responses(), strict=True))
    return {"draws": int(one.mask.sum()), "flipped": sum(mine != theirs for mine, theirs in pairs)}  # the first of a response


def main(out: Path) -> None:
    ranks = init_ranks("cpu")
    cases = [(kind, "grpo", 11) for kind in KINDS] + [("qwen3", rule, 11) for rule in ("cppo", "m2po")] + [("qwen3", "pg_is", 1)]
    cases += [("qwen3_moe", "pg_is", 1)]
    found = {"/".join(map(str, case)): compare(*case, ranks) for case in cases}
    found["qwen3/bfloat16"] = compare("qwen3", "grpo", 11, ranks, precision="bfloat16")
    saving = {"recompute": True, "offload": True}
    found |= {f"{kind}/saving/11": compare(kind, "grpo", 11, ranks, **saving) for kind in ("qwen3", "qwen3_moe")}
    found |= {f"reshard/{kind}": reshard(kind, out.parent, ranks) for kind in ("qwen3", "qwen3_moe")}
    found["rollout"] = sample(ranks)
    if ranks.is_first:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
