"""The working parts of one run, made from its settings and put back to where its last checkpoint stands."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import torch
from torch import nn

from evals import benchmarks
from evals.graders import Grade, Grader, make_grader
from harness.data import step_problems, training_prompts
from harness.distributed import ALONE, Ranks, current_ranks
from harness.evaluation import Question, eval_rows, evaluate, save_samples
from harness.files import strict
from harness.learning.divergence import require_complete
from harness.learning.learner import Learner
from harness.learning.model import encode_prompts, load_model, load_tokenizer, stop_token_ids
from harness.planning.fit import check_memory
from harness.rollout.canary import check_push, gate, gate_limits, learner_logprobs, score_fresh
from harness.rollout.data_parallel import DataParallelEngine
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
    """The first rank grades, and all ranks get its verdicts."""

    def __init__(self, grader: Grader, ranks: Ranks):
        self.grader, self.ranks = grader, ranks
        self.name, self.version = grader.name, grader.version

    def grade_many(self, responses: Sequence[str], answers: Sequence[str], truncated: Sequence[bool]) -> list[Grade]:
        return self.ranks.on_first(lambda: self.grader.grade_many(responses, answers, truncated))

    def close(self) -> None:
        self.grader.close()


@dataclass
class Parts:
    """On every rank the same; the folder and the tracker are written by the first one alone."""

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
    scores: dict[int, float]  # of the evaluations so far: mean over benchmarks, by step
    done: int  # steps completed

    @property
    def config(self) -> Config:
        return self.plan.config

    @property
    def folder(self) -> RunFolder:
        return self.plan.folder

    def rewards(self, step: int, rollout: Rollout) -> tuple[torch.Tensor, int]:
        """[B] 1 for a correct response, else 0; and on how many the grader gave no verdict in time."""
        answers = [problem.answer for problem in self.queue.problems(step) for _ in range(rollout.group_size)]
        texts = self.tokenizer.batch_decode(rollout.responses(), skip_special_tokens=True)
        grades = self.reward_grader.grade_many(texts, answers, rollout.truncated.tolist())
        num_timeouts = sum(grade.verdict == "grader_timeout" for grade in grades)
        return torch.tensor([float(grade.correct) for grade in grades]), num_timeouts

    def push(self) -> None:
        """The learner's weights to the engine, and proof that they arrived."""
        self.engine.push(self.model, self.learner.num_updates)
        score = None if self.ranks.size == 1 else partial(learner_logprobs, self.learner)
        check_push(self.engine, self.model, self.canary_prompts, self.config.mismatch, score)

    @cached_property
    def canary_prompts(self) -> list[list[int]]:
        problems = step_problems(self.config.data, self.config.seed, 1, self.config.rollout.canary_rows)
        return training_prompts(self.config, problems)

    def compare(self, step: int, fresh: Rollout | None) -> dict[str, float]:
        """mismatch/* of responses that were sampled just now, if any; beyond a gate the run is warned of, marked or stopped."""
        if fresh is None:
            return {}
        metrics = score_fresh(fresh, self.learner, self.config.rollout.canary_rows, self.engine)
        found = gate(metrics, gate_limits(self.config.mismatch, self.model), self.config.mismatch, step)
        mark = found and self.config.mismatch.action == "mark" and self.ranks.is_first
        if mark and not (self.folder.read_status() or {}).get("mismatch_step"):
            self.folder.update_status(mismatch_step=step, mismatch_reason=found)
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
        """A step's metrics: stored first, then looked at."""
        row = self.ranks.broadcast(row)
        if self.ranks.is_first:
            self.folder.lock.require()
            self.folder.append("metrics", [row])
        self.watch.see(strict(row))  # as it will be read again after a resume
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
        """Whether this step's evaluation beats all others of trained weights, so that its checkpoint is to be kept."""
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
        kept = self.config.checkpoint
        if self.ranks.is_first:
            self.folder.lock.require()
            save_checkpoint(self.folder.path / "checkpoints", checkpoint, kept.keep_last, kept.keep_best)
        else:
            checkpoint.send()


def build(plan: RunPlan) -> Parts:
    config, ranks = plan.config, current_ranks()
    check_memory(config, ranks)
    tokenizer = load_tokenizer(config.model.path, config.model.revision)
    model = load_model(config.model, with_weights=ranks.is_first)
    for name in filter(None, (config.method.divergence, config.train.divergence)):
        require_complete(name, config.rollout.top_k, model.config.get_text_config().vocab_size)
    engine = make_engine(config, model, tokenizer, ranks)  # before the learner divides the model: it may need a whole copy
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
    """What the learner trades for memory."""
    return {"recompute": cluster.activation_checkpointing, "offload": cluster.offload_optimizer}


def restore(parts: Parts) -> None:
    ranks, root = parts.ranks, parts.folder.path / "checkpoints"
    checkpoint = load_checkpoint(root, last_whole_step(parts)) if ranks.is_first else None
    facts = ranks.broadcast(checkpoint and replace(checkpoint, model={}, optimizer={}))
    if facts is None:
        return
    restore_model(parts.model, (checkpoint or facts).model, ranks)
    restore_optimizer(parts.learner.stepped, parts.learner.optimizer, (checkpoint or facts).optimizer, ranks)
    parts.learner.num_updates = facts.num_updates
    parts.queue.restore(facts.step, facts.queue)
    parts.done = facts.step
    log.info("resuming %s after step %d", parts.plan.run_id, parts.done)
    look_back(parts)


def last_whole_step(parts: Parts) -> int:
    """The last step up to which all rows of metrics and of planned evaluations are stored; −1 if none is.

    A checkpoint beyond it would leave a gap for ever.
    """
    folder, steps = parts.folder, parts.config.train.steps
    measured = {0} | {row["step"] for row in folder.rows("metrics")}
    num_evaluated = Counter(row["step"] for row in folder.rows("evals"))
    short = {step for step in folder.planned_evaluations(steps) if num_evaluated[step] < len(parts.questions)}
    gap = next((step for step in range(steps + 1) if step not in measured or step in short), steps + 1)
    if gap <= folder.newest_checkpoint():
        log.warning("%s: rows of step %d are lost: going on from the checkpoint before it", folder.path, gap)
    return gap - 1


def look_back(parts: Parts) -> None:
    """Show the collapse rule what is stored up to the checkpoint; rows beyond it will be written again."""
    metrics, evals = parts.ranks.on_first(lambda: [parts.folder.rows(name) for name in ("metrics", "evals")])
    for row in metrics:
        if row["step"] <= parts.done:
            parts.watch.see(row)
    parts.see_evaluations([row for row in evals if row["step"] <= parts.done])
    parts.mark_collapse()


def make_engine(config: Config, model: nn.Module, tokenizer, ranks: Ranks = ALONE) -> RolloutEngine:
    sharing = config.rollout.vllm.tensor_parallel if config.rollout.vllm else 1
    engine = one_engine(config, model, stop_token_ids(model.generation_config, tokenizer), ranks)
    return engine if sharing == ranks.size else DataParallelEngine(engine, ranks)


def one_engine(config: Config, model: nn.Module, stop_ids: list[int], ranks: Ranks) -> RolloutEngine:
    if config.rollout.engine == "vllm":
        from harness.rollout.vllm import VllmEngine

        return VllmEngine(model, stop_ids, config, ranks)
    from harness.rollout.decode import TransformersEngine

    return TransformersEngine(model, stop_ids, getattr(torch, config.rollout.precision), config.rollout.max_rows, ranks)


def load_questions(name: str, config: Config) -> list[Question]:
    model, settings, limit = config.model, config.eval, config.rollout.max_prompt_length
    return _questions(name, settings.root, settings.template, model.path, model.revision, model.chat_template, limit)


@cache
def _questions(name, root, template, model_path, revision, chat_template, limit) -> list[Question]:
    """Loaded and tokenised once for all runs of a process."""
    tokenizer = load_tokenizer(model_path, revision)
    problems = benchmarks.load(name, root)
    prompts = encode_prompts(problems, template, tokenizer, chat_template, limit)
    return [Question(name, problem, ids) for problem, ids in zip(problems, prompts, strict=True)]
