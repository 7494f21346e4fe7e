"""Builds the components of one run from its settings, and restores them from its last checkpoint."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import nn

from evals.graders import Grade, Grader, make_grader
from harness.data import step_problems, training_prompts
from harness.distributed import Ranks, current_ranks
from harness.evaluation import Question, eval_rows, evaluate, load_questions, save_samples
from harness.files import strict
from harness.learning.divergence import require_complete
from harness.learning.learner import Learner
from harness.learning.model import load_model, load_tokenizer
from harness.planning.fit import check_memory
from harness.rollout.canary import check_push, gate, gate_limits, learner_logprobs, score_fresh
from harness.rollout.engines import make_engine
from harness.rollout.queue import RolloutQueue
from harness.rollout.records import Rollout, RolloutEngine
from harness.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    model_tensors,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from harness.settings.config import ClusterConfig, Config
from harness.settings.identity import RunPlan
from harness.store import RunFolder
from harness.telemetry.collapse import CollapseWatch, evaluation_means
from harness.tracker import Tracker, make_tracker

log = logging.getLogger(__name__)


class SharedGrader(Grader):
    """A grader for several ranks: the first rank grades, and all ranks get its verdicts."""

    def __init__(self, grader: Grader, ranks: Ranks):
        self.grader, self.ranks = grader, ranks
        self.name, self.version = grader.name, grader.version

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        return self.ranks.on_first(lambda: self.grader.grade_many(responses, answers, truncated))

    def close(self) -> None:
        self.grader.close()


@dataclass
class Parts:
    """The components of a run, the same on every rank. Only the first rank writes the folder and the tracker."""

    plan: RunPlan
    ranks: Ranks
    model: nn.Module
    tokenizer: object
    engine: RolloutEngine
    learner: Learner
    queue: RolloutQueue
    reward_grader: Grader
    eval_grader: Grader
    questions: list[Question]
    tracker: Tracker
    watch: CollapseWatch
    scores: dict[int, float]  # step → mean score over benchmarks, for every evaluation so far
    done: int  # steps completed

    @property
    def config(self) -> Config:
        return self.plan.config

    @property
    def folder(self) -> RunFolder:
        return self.plan.folder

    def rewards(self, step: int, rollout: Rollout) -> tuple[torch.Tensor, int]:
        """Rewards [B], 1 for a correct response and else 0, and the number of responses that the grader timed out on."""
        answers = [problem.answer for problem in self.queue.problems(step) for _ in range(rollout.group_size)]
        texts = self.tokenizer.batch_decode(rollout.responses(), skip_special_tokens=True)
        grades = self.reward_grader.grade_many(texts, answers, rollout.truncated.tolist())
        num_timeouts = sum(grade.verdict == "grader_timeout" for grade in grades)
        return torch.tensor([float(grade.correct) for grade in grades]), num_timeouts

    def push(self) -> None:
        """Send the learner's weights to the engine and check that they arrived."""
        self.engine.push(self.model, self.learner.num_updates)
        score = None if self.ranks.size == 1 else partial(learner_logprobs, self.learner)
        check_push(self.engine, self.model, self.canary_prompts, self.config.mismatch, score)

    @cached_property
    def canary_prompts(self) -> list[list[int]]:
        problems = step_problems(self.config.data, self.config.seed, 1, self.config.rollout.canary_rows)
        return training_prompts(self.config, problems)

    def compare(self, step: int, fresh: Rollout | None) -> dict[str, float]:
        """The mismatch/* metrics of fresh responses, if any. Above a limit: warn, mark the run or stop it (mismatch.action)."""
        if fresh is None:
            return {}
        metrics = score_fresh(fresh, self.learner, self.config.rollout.canary_rows, self.engine)
        exceeded = gate(metrics, gate_limits(self.config.mismatch, self.model), self.config.mismatch, step)
        mark = exceeded and self.config.mismatch.action == "mark" and self.ranks.is_first
        if mark and not (self.folder.read_status() or {}).get("mismatch_step"):
            self.folder.update_status(mismatch_step=step, mismatch_reason=exceeded)
        return metrics

    def evaluate(self, step: int) -> None:
        config, engine = self.config, self.engine
        batches = evaluate(engine, self.questions, self.tokenizer, self.eval_grader, config.eval, config.seed, step)
        samples = [sample for batch in batches for sample in batch]
        rows = eval_rows(samples)
        if self.ranks.is_first:
            self.folder.lock.require()
            if config.record.samples:
                save_samples(self.folder.path, samples)
            self.folder.append("evals", rows)
        self.see_evaluations(rows)
        self.tracker.log_evaluation(rows)

    def record(self, row: dict) -> None:
        """Store a step's metrics, then pass them to the collapse watch and the tracker."""
        row = self.ranks.broadcast(row)
        if self.ranks.is_first:
            self.folder.lock.require()
            self.folder.append("metrics", [row])
        self.watch.see(strict(row))  # the row as it is read back after a resume
        self.mark_collapse()
        self.tracker.log(row)

    def see_evaluations(self, rows: list[dict]) -> None:
        for step, score in evaluation_means(rows):
            self.scores[step] = score
            self.watch.see_evaluation(step, score)

    def mark_collapse(self) -> None:
        breach = self.watch.breach
        if breach and self.ranks.is_first and (self.folder.read_status() or {}).get("collapse_step") != breach.step:
            self.folder.update_status(collapse_step=breach.step, collapse_reason=breach.reason)

    def is_best(self, step: int) -> bool:
        """True if the evaluation at `step` beats all earlier ones of trained weights and its checkpoint is to be kept."""
        earlier = [score for other, score in self.scores.items() if 0 < other < step]
        return self.config.checkpoint.keep_best > 0 and step in self.scores and self.scores[step] > max(earlier, default=-1.0)

    def save(self, step: int) -> None:
        checkpoint = Checkpoint(
            step,
            self.learner.num_updates,
            model_tensors(self.model),
            optimizer_tensors(self.learner.stepped, self.learner.optimizer),
            self.queue.waiting,
            self.scores.get(step),
        )
        settings = self.config.checkpoint
        if self.ranks.is_first:
            self.folder.lock.require()
            save_checkpoint(self.folder.path / "checkpoints", checkpoint, settings.keep_last, settings.keep_best)
        else:
            checkpoint.send()


def build(plan: RunPlan) -> Parts:
    """Build all components, restore the last checkpoint if there is one, and push the weights to the engine."""
    config, ranks = plan.config, current_ranks()
    check_memory(config, ranks)
    tokenizer = load_tokenizer(config.model.path, config.model.revision)
    model = load_model(config.model, with_weights=ranks.is_first)
    for name in filter(None, (config.method.divergence, config.train.divergence)):
        require_complete(name, config.rollout.top_k, model.config.get_text_config().vocab_size)
    engine = make_engine(config, model, tokenizer, ranks)  # before the learner shards the model: the engine may copy it
    savings = memory_savings(config.cluster)
    learner = Learner(model, config.method, config.train, config.rollout.max_response_length, ranks, **savings)
    parts = Parts(
        plan,
        ranks,
        model,
        tokenizer,
        engine,
        learner,
        RolloutQueue(config, engine),
        SharedGrader(make_grader(config.data.grader), ranks),
        SharedGrader(make_grader(config.eval.grader), ranks),
        [question for name in config.eval.benchmarks for question in load_questions(name, config)],
        make_tracker(config.tracker, plan) if ranks.is_first else Tracker(),
        CollapseWatch(vars(config.train.collapse), config.train.steps),
        scores={},
        done=0,
    )
    restore(parts)
    parts.push()
    return parts


def memory_savings(cluster: ClusterConfig) -> dict[str, bool]:
    """The learner's options that save memory and cost time."""
    return {"recompute": cluster.activation_checkpointing, "offload": cluster.offload_optimizer}


def restore(parts: Parts) -> None:
    ranks, root = parts.ranks, parts.folder.path / "checkpoints"
    checkpoint = load_checkpoint(root) if ranks.is_first else None
    facts = ranks.broadcast(checkpoint and replace(checkpoint, model={}, optimizer={}))
    if facts is None:
        return
    ranks.on_first(lambda: require_rows(parts, facts.step))
    restore_model(parts.model, (checkpoint or facts).model, ranks)
    restore_optimizer(parts.learner.stepped, parts.learner.optimizer, (checkpoint or facts).optimizer, ranks)
    parts.learner.num_updates = facts.num_updates
    parts.queue.restore(facts.step, facts.queue)
    parts.done = facts.step
    log.info("resuming %s after step %d", parts.plan.run_id, parts.done)
    look_back(parts)


def require_rows(parts: Parts, step: int) -> None:
    """ValueError unless all rows up to a checkpoint's step are stored: going on from it would leave the gap for ever."""
    folder = parts.folder
    measured = {0} | {row["step"] for row in folder.rows("metrics")}
    num_evaluated = Counter(row["step"] for row in folder.rows("evals"))
    num_questions = len({(question.benchmark, question.problem.id) for question in parts.questions})
    short = {step for step in folder.planned_evaluations(step) if num_evaluated[step] < num_questions}
    if lost := sorted({*range(step + 1)} - measured | short):
        raise ValueError(
            f"{folder.path}: rows of step {lost[0]} are lost, and the checkpoint of step {step} stands on them: restore "
            f"metrics.jsonl and evals.jsonl, or remove checkpoints/step=N from N = {lost[0]} on to train again from there"
        )


def look_back(parts: Parts) -> None:
    """Pass the stored rows up to the checkpoint to the collapse watch; later rows will be written again."""
    metrics, evals = parts.ranks.on_first(lambda: [parts.folder.rows(name) for name in ("metrics", "evals")])
    for row in metrics:
        if row["step"] <= parts.done:
            parts.watch.see(row)
    parts.see_evaluations([row for row in evals if row["step"] <= parts.done])
    parts.mark_collapse()
