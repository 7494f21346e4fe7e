"""Does prefix drift predict failure? Questions, measures and what counts as support: docs/study.md, written before any run.

S is S_T, the divergence summed over a response, mean over a step's responses. All coefficients are rank correlations. Intervals
are Student's t over seeds, whose runs share problems and random numbers, or over rules where each rule gives one number.

A step's responses are `rollout.lag` steps old: what its policy is worth shows in the reward of `lag` steps later. `quality` is
the reward set back by the lag, so that at each step S and quality speak of the same weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.load import Sweep
from analysis.results import Results
from analysis.runs import Run
from analysis.scores import GroupScores
from analysis.stats import Interval
from analysis.study.cells import of_samples, only_group
from analysis.study.protocol import SETTLED, late_reward
from analysis.style import ordered

RULES = ("grpo", "dppo", "cppo", "trm_avg", "cispo", "minpro", "pg_is")
WITH, WITHOUT = "cppo", "cppo_no_prefix_budget"
AROUND = 4  # steps up to a step, and after it, over which quality is averaged
MIDDLE = 14  # early drift is that of steps 8 to 14, and the held-out score there is where the later gain starts
FEWEST = 8  # steps, for a correlation over them
SERIES = {
    "masked": "trust/mask_frac",
    "masked_budget": "trust/mask_frac_budget",
    "spread": "prefix/suffix_spread",
    "spread_calm": "prefix/suffix_spread_calm",
    "spread_drifted": "prefix/suffix_spread_drifted",
    "correlation": "prefix/rank_correlation",
}


@dataclass(frozen=True, eq=False)
class Course:
    """What one run went through: values by step, nan where a step has none."""

    run: Run
    lag: int
    reward: np.ndarray
    drift: np.ndarray
    series: dict[str, np.ndarray]  # by the names in SERIES
    held_out: dict[int, float]  # by step, 0 the base model
    late_reward: float

    def settled(self, key: str) -> float:
        """Mean from step 8 on; nan if it was not recorded."""
        return finite_mean((self.drift if key == "drift" else self.series[key])[SETTLED - 1 :])

    @cached_property
    def quality(self) -> np.ndarray:
        """By step, what the policy that entered it scores in training."""
        return self.reward[self.lag :]

    @cached_property
    def early_drift(self) -> float:
        return finite_mean(self.drift[SETTLED - 1 : MIDDLE])

    @property
    def middle(self) -> float:
        """Held-out score at the last evaluation up to step 14."""
        return self.held_out[max(step for step in self.held_out if step <= MIDDLE)]

    @property
    def later_gain(self) -> float:
        """Final held-out score less that of the middle."""
        return self.held_out[max(self.held_out)] - self.middle


def courses(results: Results | None) -> dict[str, list[Course]]:
    """Finished runs by preset, in order of seeds; nothing without the experiment."""
    if results is None:
        return {}
    group = only_group(results)
    scored = [name for name in ordered(group.methods) if group.methods[name].runs]
    return {name: [course(results.sweep, group, run) for run in group.methods[name].runs] for name in scored}


def course(sweep: Sweep, group: GroupScores, run: Run) -> Course:
    def by_step(key: str) -> np.ndarray:
        values = np.full(run.step, np.nan)
        steps, found = sweep.metric(run, key)
        values[steps - 1] = found
        return values

    drift = by_step("prefix/drift")
    if np.isnan(drift).all():  # runs from before it was recorded
        drift = by_step("trust/div_mean") * by_step("response_length/mean")
    series = {name: by_step(key) for name, key in SERIES.items()}
    steps, scores_EK = group.curves[run.run_id]
    held_out = dict(zip(steps.tolist(), scores_EK.mean(1).tolist(), strict=True))
    return Course(
        run, run.shared_settings["rollout.lag"], by_step("reward/mean"), drift, series, held_out, late_reward(sweep, run)
    )


def finite_mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def ranks(values: np.ndarray) -> np.ndarray:
    """From 0, ties share their mean rank; what differs by rounding alone is a tie."""
    values = np.round(values, 12)
    return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2


def partial_correlation(x: np.ndarray, y: np.ndarray, *others: np.ndarray) -> float:
    """Of the ranks, when the others' are regressed out; nan where nothing is left of x or y."""
    x, y, *others = map(ranks, (x, y, *others))
    design = np.stack([np.ones_like(x), *others], 1)
    x, y = (values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (x, y))
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 1e-9 else float("nan")


def following(drift: np.ndarray, quality: np.ndarray) -> float:
    """Drift at a step against the change of quality after it, with the step and the quality so far partialled out."""
    quality = quality[: len(drift)]  # another run's drift may have ended earlier
    ends = np.arange(AROUND, len(quality) - AROUND + 1)  # steps, from 1
    before = np.array([quality[t - AROUND : t].mean() for t in ends])
    after = np.array([quality[t : t + AROUND].mean() for t in ends])
    at_step = drift[ends - 1]
    known = np.isfinite(at_step + before + after)
    if known.sum() < FEWEST:
        return float("nan")
    return partial_correlation(*(column[known] for column in (at_step, after - before, ends, before)))


def over_seeds(found: dict[str, list[Course]], value: Callable[[Course], float]) -> Interval | None:
    """Mean of the runs that have the value, by seed; None without any."""
    by_seed = defaultdict(list)
    for one in (one for runs in found.values() for one in runs):
        if np.isfinite(of := value(one)):
            by_seed[one.run.seed].append(of)
    return of_samples(np.array([np.mean(values) for values in by_seed.values()])) if by_seed else None


def across_runs(found: dict[str, list[Course]], *controls: Callable[[Course], float]) -> dict[str, float]:
    """Early drift against later gain over the seeds of each rule, for the rules that have such a coefficient."""
    by_rule = {}
    for name, runs in found.items():
        known = [one for one in runs if np.isfinite(one.early_drift)]
        if len(known) > len(controls) + 2:
            columns = [lambda one: one.early_drift, lambda one: one.later_gain, *controls]
            by_rule[name] = partial_correlation(*(np.array([of(one) for one in known]) for of in columns))
    return {name: value for name, value in by_rule.items() if np.isfinite(value)}


def over_rules(by_rule: dict[str, float]) -> Interval | None:
    return of_samples(np.array(list(by_rule.values()))) if by_rule else None


BUDGET = {
    "S_T": lambda one: one.settled("drift"),
    "suffix spread": lambda one: one.settled("spread"),
    "late reward": lambda one: one.late_reward,
    "held-out": lambda one: one.held_out[max(one.held_out)],
}
COSTS, GAINS = ("S_T", "suffix spread"), ("late reward", "held-out")


def budget_effect(found: dict[str, list[Course]], value: Callable[[Course], float]) -> Interval | None:
    """With the prefix budget less without, paired by seed; None unless two seeds have both."""
    one, other = ({course.run.seed: value(course) for course in found.get(name, [])} for name in (WITH, WITHOUT))
    gaps = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    gaps = [gap for gap in gaps if np.isfinite(gap)]
    return of_samples(np.array(gaps)) if len(gaps) > 1 else None


@dataclass(frozen=True, eq=False)
class Mechanism:
    """The answers on one testbed; None where its runs do not say."""

    courses: dict[str, list[Course]]

    @cached_property
    def rules(self) -> dict[str, list[Course]]:
        return {name: runs for name, runs in self.courses.items() if name in RULES}

    def beyond_others(self, one: Course) -> float:
        """What a run's own drift says of it beyond what the rule's other seeds' drift says: their shared course is no sign."""
        mates = [following(mate.drift, one.quality) for mate in self.rules[one.run.method] if mate is not one]
        return following(one.drift, one.quality) - finite_mean(np.array(mates))

    def within(self, *rules: str) -> Interval | None:
        """Over the seeds of these rules; of all without any."""
        return over_seeds({rule: runs for rule, runs in self.rules.items() if rule in (rules or RULES)}, self.beyond_others)

    @property
    def within_with_shared(self) -> Interval | None:
        return over_seeds(self.rules, lambda one: following(one.drift, one.quality))

    @cached_property
    def across_by_rule(self) -> dict[str, float]:
        """Without the rules whose runs all end at the same score: their gain is their middle score with its sign turned."""
        return across_runs(self.rules, lambda one: one.middle)

    @property
    def across(self) -> Interval | None:
        return over_rules(self.across_by_rule)

    @cached_property
    def across_plain_by_rule(self) -> dict[str, float]:
        return across_runs(self.rules)

    @property
    def suffix(self) -> Interval | None:
        return over_seeds(self.rules, lambda one: one.settled("correlation"))

    @property
    def ratio(self) -> Interval | None:
        """Spread of suffix ratios behind drifted prefixes over that behind calm ones."""
        return over_seeds(self.rules, lambda one: one.settled("spread_drifted") / one.settled("spread_calm"))

    @cached_property
    def budget(self) -> dict[str, Interval | None]:
        return {name: budget_effect(self.courses, of) for name, of in BUDGET.items()}

    @cached_property
    def supports(self) -> dict[str, bool | None]:
        """Each of the protocol's four questions."""
        return {
            "within runs": below(self.within()),
            "across runs": below(self.across),
            "suffix": above(self.suffix),
            "budget": self.budget_supports,
        }

    @property
    def budget_supports(self) -> bool | None:
        costs, gains = [below(self.budget[name]) for name in COSTS], [above(self.budget[name]) for name in GAINS]
        return None if None in costs + gains else all(costs) and any(gains)

    @property
    def verdict(self) -> str:
        within, across, suffix, budget = self.supports.values()
        if None in (within, across):
            return "cannot be said"
        if not within and not across:
            return "not supported"
        if None in (suffix, budget):
            return "drift goes before losses; the rest was not asked"
        return "supported" if suffix and budget else "supported in part"


def below(found: Interval | None) -> bool | None:
    return found.high < 0 if found and found.df else None


def above(found: Interval | None) -> bool | None:
    return found.low > 0 if found and found.df else None


def mechanism(results: Results | None) -> Mechanism:
    return Mechanism(courses(results))
