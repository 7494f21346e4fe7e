"""Measures whether prefix drift predicts failure: rank correlations and paired differences, each with its 95 % interval.

docs/study.md states the four questions and what counts as support; both were fixed before any number of the drift testbed's
runs was looked at.

Notation, for one run and its steps t = 1, 2, …:

    S(t)              prefix drift: the divergence summed over a response (the protocol's S_T), mean over the step's responses
    Q(t)              quality: training reward of step t + lag. Responses are sampled `rollout.lag` steps before they are learned
                      from, so the policy with which step t begins is scored in the reward of step t + lag.
    H(t)              held-out score at the last evaluation up to step t
    r(x, y | z, …)    partial rank correlation of x and y given z, … (`partial_correlation`)

The coefficients:

    following         r(S(t), after − before | t, before) over the steps t of a run,
                      before = mean of Q(t−3) … Q(t), after = mean of Q(t+1) … Q(t+4)
    within runs       `following` minus the mean of what it is with the S of the rule's other seeds in place of the run's own
    across seeds      r(mean of S(8) … S(14), H(end) − H(14) | H(14)) over the seeds of a rule
    suffix            the metric prefix/rank_correlation, mean over the steps of a run from 8 on

Intervals are Student's t: over rules for "across seeds", where each rule gives one number; else over seeds, each the mean over
its rules, since runs of one seed share problems and random numbers.
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
WINDOW = 4  # steps: quality is averaged over the last 4 up to a step, and over the 4 after it
MIDDLE = 14  # step: early drift is the mean over steps 8 to 14, and the later gain counts from the held-out score at step 14
MIN_STEPS = 8  # a correlation over fewer steps of a run is nan
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
    """One run's values by step: arrays [steps], entry t − 1 is step t, nan where the step has no value."""

    run: Run
    lag: int
    reward: np.ndarray  # mean training reward, in [0, 1]
    drift: np.ndarray  # S(t)
    series: dict[str, np.ndarray]  # the metrics in SERIES, under their names there
    held_out: dict[int, float]  # H(t) at the steps with an evaluation, in [0, 1]; step 0 is the base model
    late_reward: float

    def settled(self, key: str) -> float:
        """Mean of "drift" or of an entry of `series` over the steps from 8 on; nan if it was not recorded there."""
        return finite_mean((self.drift if key == "drift" else self.series[key])[SETTLED - 1 :])

    @cached_property
    def quality(self) -> np.ndarray:
        """Q(t) = reward(t + lag), [steps − lag]: the training score of the policy with which step t begins."""
        return self.reward[self.lag :]

    @cached_property
    def early_drift(self) -> float:
        """Mean of S(8) … S(14)."""
        return finite_mean(self.drift[SETTLED - 1 : MIDDLE])

    @property
    def middle(self) -> float:
        """H(14): held-out score at the last evaluation up to step 14."""
        return self.held_out[max(step for step in self.held_out if step <= MIDDLE)]

    @property
    def later_gain(self) -> float:
        """H(end) − H(14)."""
        return self.held_out[max(self.held_out)] - self.middle


def courses(results: Results | None) -> dict[str, list[Course]]:
    """Courses of the finished runs, by preset and in order of seeds; empty if the experiment has no runs at all."""
    if results is None:
        return {}
    group = only_group(results)
    scored = [name for name in ordered(group.methods) if group.methods[name].runs]
    return {name: [course_of_run(results.sweep, group, run) for run in group.methods[name].runs] for name in scored}


def course_of_run(sweep: Sweep, group: GroupScores, run: Run) -> Course:
    def by_step(key: str) -> np.ndarray:
        values = np.full(run.step, np.nan)
        steps, recorded = sweep.metric(run, key)
        values[steps - 1] = recorded
        return values

    drift = by_step("prefix/drift")
    if np.isnan(drift).all():  # a run made before prefix/drift was recorded
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
    """Ranks from 0. Ties share their mean rank; values that are equal to 12 decimals are ties."""
    values = np.round(values, 12)
    num_below = (values[:, None] > values).sum(1)
    num_equal = (values[:, None] == values).sum(1)  # itself included
    return num_below + (num_equal - 1) / 2


def partial_correlation(x: np.ndarray, y: np.ndarray, *controls: np.ndarray) -> float:
    """Partial rank correlation r(x, y | controls): Pearson's of the residuals that the ranks of x and y leave when they are
    regressed on a constant and the ranks of the controls. Without controls it is Spearman's. nan where a residual is 0."""
    x, y, *controls = map(ranks, (x, y, *controls))
    design = np.stack([np.ones_like(x), *controls], 1)
    x, y = (values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (x, y))
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 1e-9 else float("nan")


def following(drift: np.ndarray, quality: np.ndarray) -> float:
    """Correlation of S with the change of quality after it: r(S(t), after − before | t, before) over the steps t of a run.

    before = mean of Q(t−3) … Q(t), after = mean of Q(t+1) … Q(t+4). Steps at which one of them is nan are left out; the
    coefficient is nan if fewer than MIN_STEPS remain.
    """
    quality = quality[: len(drift)]  # the drift may be another run's, and that run may have ended earlier
    steps = np.arange(WINDOW, len(quality) - WINDOW + 1)  # t, counted from 1
    before = np.array([quality[t - WINDOW : t].mean() for t in steps])
    after = np.array([quality[t : t + WINDOW].mean() for t in steps])
    drift_at_step = drift[steps - 1]
    known = np.isfinite(drift_at_step + before + after)
    if known.sum() < MIN_STEPS:
        return float("nan")
    return partial_correlation(*(column[known] for column in (drift_at_step, after - before, steps, before)))


def over_seeds(courses_by_rule: dict[str, list[Course]], value: Callable[[Course], float]) -> Interval | None:
    """Mean over seeds, with Student's t over them, of each seed's mean over its rules. Runs whose value is nan are left out;
    None if that leaves none."""
    by_seed = defaultdict(list)
    for course in (course for courses in courses_by_rule.values() for course in courses):
        if np.isfinite(number := value(course)):
            by_seed[course.run.seed].append(number)
    return of_samples(np.array([np.mean(numbers) for numbers in by_seed.values()])) if by_seed else None


def across_runs(courses_by_rule: dict[str, list[Course]], *controls: Callable[[Course], float]) -> dict[str, float]:
    """{rule: r(early_drift, later_gain | controls) over its seeds}.

    A rule is left out where the coefficient is nan, and where no more than len(controls) + 2 runs have an early drift.
    """
    by_rule = {}
    for rule, courses in courses_by_rule.items():
        known = [course for course in courses if np.isfinite(course.early_drift)]
        if len(known) > len(controls) + 2:
            variables = [lambda course: course.early_drift, lambda course: course.later_gain, *controls]
            columns = [np.array([variable(course) for course in known]) for variable in variables]
            by_rule[rule] = partial_correlation(*columns)
    return {rule: coefficient for rule, coefficient in by_rule.items() if np.isfinite(coefficient)}


def over_rules(by_rule: dict[str, float]) -> Interval | None:
    """Mean over rules with Student's t over them; None without any."""
    return of_samples(np.array(list(by_rule.values()))) if by_rule else None


# What the prefix budget is judged by: a run's S and suffix spread (means over steps from 8 on), which should be lower with it,
# and its scores, of which one should be higher.
BUDGET = {
    "S_T": lambda course: course.settled("drift"),
    "suffix spread": lambda course: course.settled("spread"),
    "late reward": lambda course: course.late_reward,
    "held-out": lambda course: course.held_out[max(course.held_out)],
}
COSTS, GAINS = ("S_T", "suffix spread"), ("late reward", "held-out")


def budget_effect(courses_by_preset: dict[str, list[Course]], value: Callable[[Course], float]) -> Interval | None:
    """Mean of value(with the prefix budget) − value(without), paired by seed; None unless two seeds have both values."""
    with_budget, without = (
        {course.run.seed: value(course) for course in courses_by_preset.get(preset, [])} for preset in (WITH, WITHOUT)
    )
    gaps = [with_budget[seed] - without[seed] for seed in sorted(with_budget.keys() & without.keys())]
    gaps = [gap for gap in gaps if np.isfinite(gap)]
    return of_samples(np.array(gaps)) if len(gaps) > 1 else None


@dataclass(frozen=True, eq=False)
class Mechanism:
    """The answers on one testbed, from the courses of its runs by preset. An answer is None where these runs cannot give it."""

    courses: dict[str, list[Course]]

    @cached_property
    def rules(self) -> dict[str, list[Course]]:
        """Courses of the seven rules, without CPPO's ablations."""
        return {preset: courses for preset, courses in self.courses.items() if preset in RULES}

    def beyond_others(self, course: Course) -> float:
        """following(S, Q) of a run, minus the mean of following(S', Q) over the S' of the rule's other seeds.

        All seeds of a rule go through a similar course, in which drift and quality both change with time. The subtracted
        part is the correlation that this shared course gives by itself.
        """
        others = [other for other in self.rules[course.run.method] if other is not course]
        shared = finite_mean(np.array([following(other.drift, course.quality) for other in others]))
        return following(course.drift, course.quality) - shared

    def within(self, *rules: str) -> Interval | None:
        """Mean of `beyond_others` over the seeds of these rules; of all seven if none is named."""
        chosen = {rule: courses for rule, courses in self.rules.items() if rule in (rules or RULES)}
        return over_seeds(chosen, self.beyond_others)

    @property
    def within_with_shared(self) -> Interval | None:
        """Mean of `following` over seeds; the part that a rule's seeds share is not subtracted."""
        return over_seeds(self.rules, lambda course: following(course.drift, course.quality))

    @cached_property
    def across_by_rule(self) -> dict[str, float]:
        """{rule: r(early_drift, later_gain | middle) over its seeds}.

        A rule whose runs all end at the same score has none: its gain is that score minus H(14), so nothing of it is left when
        H(14) is partialled out.
        """
        return across_runs(self.rules, lambda course: course.middle)

    @property
    def across(self) -> Interval | None:
        return over_rules(self.across_by_rule)

    @cached_property
    def across_plain_by_rule(self) -> dict[str, float]:
        """{rule: r(early_drift, later_gain) over its seeds}, without a control."""
        return across_runs(self.rules)

    @property
    def suffix(self) -> Interval | None:
        """Spearman's correlation, over an update's responses, of the first half's divergence per token with |z| of the second."""
        return over_seeds(self.rules, lambda course: course.settled("correlation"))

    @property
    def ratio(self) -> Interval | None:
        """Spread of z over the responses whose first half drifted more, divided by that over the calmer ones.

        z: the second half's summed log ρ over the square root of its length.
        """
        return over_seeds(self.rules, lambda course: course.settled("spread_drifted") / course.settled("spread_calm"))

    @cached_property
    def budget(self) -> dict[str, Interval | None]:
        """CPPO minus CPPO without its prefix budget, for each measure in BUDGET."""
        return {name: budget_effect(self.courses, value) for name, value in BUDGET.items()}

    @cached_property
    def supports(self) -> dict[str, bool | None]:
        """For each of the protocol's four questions: do the runs support the claim?"""
        return {
            "within runs": is_negative(self.within()),
            "across runs": is_negative(self.across),
            "suffix": is_positive(self.suffix),
            "budget": self.budget_supports,
        }

    @property
    def budget_supports(self) -> bool | None:
        """True if the budget lowers every cost and raises one gain or more, each by its whole interval."""
        costs = [is_negative(self.budget[name]) for name in COSTS]
        gains = [is_positive(self.budget[name]) for name in GAINS]
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


def is_negative(interval: Interval | None) -> bool | None:
    """True if the whole interval lies below 0; None without an interval."""
    return interval.high < 0 if interval and interval.df else None


def is_positive(interval: Interval | None) -> bool | None:
    """True if the whole interval lies above 0; None without an interval."""
    return interval.low > 0 if interval and interval.df else None


def mechanism(results: Results | None) -> Mechanism:
    return Mechanism(courses(results))
