"""Compares the harness with the least work that training needs: `python -m benchmarks floor`.

It times the learner beside a bare forward and backward pass of the same tokens, and shows on what else a step of the default task
spends its time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch.nn import functional as F

from benchmarks.ratio import Clock, Ratio, faster, interleaved
from benchmarks.shadow import CASES, interval, recording_seconds
from benchmarks.sides import Harness
from benchmarks.workload import FIXED, VARIED, Workload, save_model, trained_run, write_problems
from harness.learning.advantage import group_advantages
from harness.learning.experience import Experience, build_experience, microbatches, minibatches

NEEDED = ("rollout", "forward_backward", "evaluation")
RULE = ("rule", "metrics")


def run(quick: bool) -> list[Ratio]:
    with tempfile.TemporaryDirectory() as name:
        learners = [learner_ratio(Path(name), workload, 2 if quick else 6) for workload in (VARIED, FIXED)]
    return [*learners, *shares(5 if quick else 28), padding_share(), shadow_share(2 if quick else 8)]


def learner_ratio(folder: Path, workload: Workload, num_rounds: int) -> Ratio:
    model = save_model(folder / workload.name, workload)
    parts = Harness(model, write_problems(folder / "problems.jsonl", workload), workload).parts
    experience = sampled_experience(parts)
    split = minibatches(len(experience), parts.config.train.updates_per_step, seed=0)
    batches = [experience.rows(rows) for rows in split]
    sides = {"learner": whole_learner(parts.learner, batches), "bare": bare_passes(parts.learner, batches)}
    values = faster(interleaved(sides, num_rounds), "bare", "learner", "learn")
    return Ratio(f"learner_vs_bare_{workload.name}", f"learner, all included, against bare passes, {workload.name}", values, 0.95)


def sampled_experience(parts) -> Experience:
    rollout, _ = parts.queue.take(1)
    advantages, informative = group_advantages(parts.rewards(1, rollout)[0], rollout.group_size, "none")
    return build_experience(rollout, advantages, informative, parts.queue.keys(1))


def whole_learner(learner, batches: list[Experience]) -> Callable[[], Clock]:
    from harness.telemetry.metrics import learner_metrics
    from harness.timing import Timer

    def work() -> Clock:
        clock = Clock()
        with clock("learn"):
            learner_metrics([learner.update(batch, Timer()) for batch in batches], learner.rule)
        return clock

    return work


def bare_passes(learner, batches: list[Experience]) -> Callable[[], Clock]:
    """A side that puts the same micro-batches through the model, its head and a cross-entropy, without rule and records."""
    model, budget = learner.model, learner.config.token_budget

    def work() -> Clock:
        clock = Clock()
        with clock("learn"):
            for batch in batches:
                for rows in microbatches(batch, budget):
                    inputs = batch.rows(rows).inputs.to(learner.ranks.device)
                    with learner.autocast():
                        logits = model(inputs, use_cache=False).logits[:, :-1]
                        loss = F.cross_entropy(logits.flatten(0, 1), inputs[:, 1:].flatten())
                    loss.backward()
                model.zero_grad(set_to_none=True)
        return clock

    return work


def shares(num_steps: int) -> list[Ratio]:
    """Shares of the step time of a run of the default task, evaluations and checkpoints included."""
    with tempfile.TemporaryDirectory() as folder:
        rows = trained_run("method=cppo", f"runs_dir={folder}", f"train.steps={num_steps}").rows("metrics")
    total = sum(row["time/step"] for row in rows)
    spent = lambda stages: sum(row.get(f"time/{stage}", 0.0) for row in rows for stage in stages)
    return [
        Ratio("rule_share", "divergence, rule and metrics in a run of the default task", [spent(RULE) / total], 0.03, True),
        Ratio("other_share", "outside rollout, passes and evaluation", [1 - spent(NEEDED) / total], 0.08, True),
    ]


def padding_share() -> Ratio:
    """Share of padding in the positions that the learner computes in the first step of the default task."""
    from harness.parts import build
    from harness.settings.compose import compose_plan

    with tempfile.TemporaryDirectory() as folder:
        plan = compose_plan(["method=grpo", f"runs_dir={folder}"])
        plan.folder.path.mkdir(parents=True)
        parts = build(plan)
    experience, train = sampled_experience(parts), plan.config.train
    batches = [experience.rows(rows) for rows in minibatches(len(experience), train.updates_per_step, seed=0)]
    used = [batch.rows(rows) for batch in batches for rows in microbatches(batch, train.token_budget)]
    real = sum(int((part.prompt_lengths + part.lengths).sum()) for part in used)
    share = 1 - real / sum(part.inputs.numel() for part in used)
    return Ratio("padding_share", "padding in a step of the default task", [share], 0.05, True)


def shadow_share(num_steps: int) -> Ratio:
    from harness.settings.compose import compose_plan

    record = compose_plan([]).config.record
    case = "every rule: rows and traces"
    seconds, step = recording_seconds(CASES[case], [], num_steps)
    value = seconds / interval(case, record) / step
    return Ratio("shadow_share", "all rules on the same tokens, at the default interval", [value], 0.03, True)
