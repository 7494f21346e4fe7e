"""Queue of rollouts between engine and learner: with rollout.lag k, step s learns from responses sampled k steps earlier.

The first k + 1 batches are sampled from the initial weights. Since the queue stores batches, no old weights have to be stored.
"""

from __future__ import annotations

from collections import Counter

from evals.records import Problem
from harness.data import step_problems, training_prompts
from harness.rollout.records import Rollout, RolloutEngine, Sampling, request_seed
from harness.settings.config import Config, RolloutConfig


class RolloutQueue:
    def __init__(self, config: Config, engine: RolloutEngine):
        self.config, self.engine = config, engine
        training_prompts(config, [])  # a prompt that is too long fails here, not in the middle of a run
        self.waiting: list[Rollout] = []
        self.sampled = 0  # the last step whose batch has been sampled

    def restore(self, step: int, waiting: list[Rollout]) -> None:
        self.waiting, self.sampled = list(waiting), step + len(waiting)

    def take(self, step: int) -> tuple[Rollout, Rollout | None]:
        """The batch that `step` learns from, and what this call sampled with the current weights (None near the end)."""
        last = min(step + self.config.rollout.lag, self.config.train.steps)
        steps = range(self.sampled + 1, last + 1)
        fresh = self._sample(steps) if steps else None
        if fresh is not None:
            self.waiting += fresh.split(len(steps))
            self.sampled = last
        return self.waiting.pop(0), fresh

    def _sample(self, steps: range) -> Rollout:
        """Sample the responses of several steps as one batch: the more rows, the cheaper each token."""
        problems = [problem for step in steps for problem in self.problems(step)]
        seeds = [key for step in steps for key in self.keys(step)]
        return self.engine.generate(training_prompts(self.config, problems), seeds, training_sampling(self.config.rollout))

    def problems(self, step: int) -> list[Problem]:
        return step_problems(self.config.data, self.config.seed, step, self.config.train.prompts_per_step)

    def keys(self, step: int) -> list[int]:
        return response_seeds(self.config, step, self.problems(step))


def response_seeds(config: Config, step: int, problems: list[Problem]) -> list[int]:
    """[B] the seeds of the responses: the same for every method, so that equal weights give equal tokens.

    A problem that occurs again within a step (in a small file) gets other seeds, so that its responses differ.
    """
    seeds, seen = [], Counter()
    for problem in problems:
        repeat = (seen[problem.id],) if seen[problem.id] else ()
        seen[problem.id] += 1
        samples = range(config.train.group_size)
        seeds += [request_seed(config.seed, "train", step, problem.id, *repeat, index) for index in samples]
    return seeds


def training_sampling(config: RolloutConfig) -> Sampling:
    """Sampling settings of training: untempered and untruncated (RolloutConfig refuses anything else)."""
    return Sampling(config.max_response_length, top_k=config.top_k)
