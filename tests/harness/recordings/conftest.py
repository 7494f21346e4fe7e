"""A short run with everything recorded, and the same run without, shared by these tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

# Long strides, so that the rules have something to drop.
SMALL = ["method=cppo", "seed=1", "train.prompts_per_step=8", "train.updates_per_step=2", "train.steps=2", "rollout.lag=1"]
SMALL += ["train.lr=2e-3", "train.warmup_updates=0", "eval.benchmarks=[]"]
EVERYTHING = ["record.shadow_every=1", "record.batches_every=1", "record.trace_prompts=2", "record.trace_responses=2"]
NOTHING = ["record.shadow_every=0", "record.batches_every=0"]


def short_run(root, overrides: list[str]) -> SimpleNamespace:
    """Two steps of learning without evaluation, the first saved: the run's parts, folder, metrics and timers."""
    from harness.files import write_json
    from harness.parts import build
    from harness.run import learn
    from harness.settings.compose import compose_plan
    from harness.timing import Timer

    plan = compose_plan([*SMALL, *overrides, f"runs_dir={root}"])
    plan.folder.path.mkdir(parents=True)
    write_json(plan.folder.path / "config.json", plan.record())
    write_json(plan.folder.path / "status.json", {"state": "completed"})
    assert plan.folder.lock.acquire()
    parts, timers = build(plan), {1: Timer(), 2: Timer()}
    metrics = [learn(parts, 1, timers[1])]
    parts.record(metrics[0])
    parts.save(1)
    metrics.append(learn(parts, 2, timers[2]))
    plan.folder.lock.release()
    return SimpleNamespace(parts=parts, folder=plan.folder, metrics=metrics, timers=timers)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> SimpleNamespace:
    return short_run(tmp_path_factory.mktemp("recorded"), EVERYTHING)


@pytest.fixture(scope="session")
def unrecorded(tmp_path_factory) -> SimpleNamespace:
    return short_run(tmp_path_factory.mktemp("unrecorded"), NOTHING)
