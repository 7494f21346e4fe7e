"""The training loop of one run, the same for every method. Each line of a step is a stage, implemented in its own module."""

from __future__ import annotations

from contextlib import closing

import torch

from harness.learning.advantage import group_advantages
from harness.learning.experience import build_experience, minibatches
from harness.parts import Parts, build
from harness.rollout.records import request_seed
from harness.runs.attempt import StopRequest
from harness.settings.identity import RunPlan
from harness.telemetry.metrics import learner_metrics, rollout_metrics
from harness.telemetry.recording import record_step, recording_due
from harness.timing import Timer, throughput


def train(plan: RunPlan, stop: StopRequest) -> str:
    """Train from the last checkpoint to the last step.

    Returns "completed", "collapsed" (stopped by the collapse rule) or "preempted".
    """
    parts = build(plan)
    with parts.tracker, closing(parts.engine):
        return run_steps(parts, stop)


def run_steps(parts: Parts, stop: StopRequest) -> str:
    config, timer = parts.config, Timer()
    ended = early_end(parts, parts.done, stop)
    if parts.done == 0 and not ended:
        with timer("evaluation"):
            parts.evaluate(0)
        ended = early_end(parts, 0, stop)
    for step in range(parts.done + 1, config.train.steps + 1):
        if ended:
            break
        row = learn(parts, step, timer)
        last = step == config.train.steps
        if last or step % config.eval.every == 0:
            with timer("evaluation"):
                parts.evaluate(step)
        row |= timer.metrics()
        parts.record(row | throughput(row))
        timer = Timer()
        ended = early_end(parts, step, stop)
        if last or ended or step % config.checkpoint.every == 0 or parts.is_best(step):
            with timer("checkpoint"):
                parts.save(step)
    return ended or "completed"


def learn(parts: Parts, step: int, timer: Timer) -> dict:
    """Run one step (sample, reward, decide, update, push) and return its metrics."""
    config, learner = parts.config, parts.learner
    with timer("rollout"):
        rollout, fresh = parts.queue.take(step)
    with timer("canary"):
        mismatch = parts.compare(step, fresh)
    with timer("reward"):
        rewards, num_timeouts = parts.rewards(step, rollout)
    advantages, informative = group_advantages(rewards, rollout.group_size, config.train.advantage_norm)
    parts.engine.sleep()
    finite = torch.isfinite(rollout.logprobs).all(-1)
    experience = build_experience(rollout, advantages, informative & finite, parts.queue.keys(step))
    if config.train.anchor == "old":
        with timer("old_logprobs"):
            experience = experience.with_anchor(*learner.logprobs(experience))
    split = minibatches(len(experience), config.train.updates_per_step, request_seed(config.seed, "minibatches", step))
    age = learner.num_updates - int(rollout.weight_version)
    recorded = recording_due(config.record, step)
    updates = [learner.update(experience.rows(rows), timer, keep_pairs=recorded and rows is split[-1]) for rows in split]
    if recorded and updates and parts.ranks.is_first:
        with timer("record"):
            record_step(parts, step, updates, rollout, rewards)
    with timer("push"):
        parts.push()
    return (
        {"step": step}
        | rollout_metrics(rollout, rewards, informative)
        | {"cost/sampled_tokens": int(fresh.mask.sum()) if fresh else 0, "health/nonfinite_rollout": int((~finite).sum())}
        | {"health/grader_timeouts": num_timeouts}
        | {"actor/lr": learner.learning_rate(max(learner.num_updates - 1, 0))}
        | ({"staleness/versions": age + (len(split) - 1) / 2} if split else {})
        | learner_metrics(updates, parts.plan.rule)
        | mismatch
    )


def early_end(parts: Parts, step: int, stop: StopRequest) -> str | None:
    """The reason to end the run early, after `step`: "collapsed" or "preempted"; None to go on."""
    if step == parts.config.train.steps:
        return None
    if parts.config.train.on_collapse == "stop" and parts.watch.breach:
        return "collapsed"
    return "preempted" if parts.ranks.any(stop()) else None
