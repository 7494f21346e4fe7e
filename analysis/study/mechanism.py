"""Does prefix drift predict failure? Questions, measures and what counts as support: docs/study.md, written before any run.

S is S_T, the divergence summed over a response, mean over a step's responses. Coefficients are rank correlations; intervals are
95 %, by bootstrap over runs (percentiles), for paired differences Student's t over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.load import Sweep
from analysis.results import Results
from analysis.runs import Run
from analysis.stats import LEVEL, Interval
from analysis.study.cells import of_samples, only_group
from analysis.study.protocol import late_reward
from analysis.style import ordered

RULES = ("grpo", "dppo", "cppo", "trm_avg", "cispo", "minpro", "pg_is")
WITH, WITHOUT = "cppo", "cppo_no_prefix_budget"
BEFORE, AHEAD = 4, 7  # steps over which the reward is averaged, up to a step and after it
SETTLED, MIDDLE = 8, 14  # a run's early drift is that of these steps and between
FEWEST = 8  # steps of a run, for a correlation over them
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its interval; nan where nothing can be said."""

    value: float
    low: float
    high: float
    run_ids: list[str]

    @property
    def below(self) -> bool:
        return self.high < 0

    @property
    def above(self) -> bool:
        return self.low > 0


@dataclass(frozen=True, eq=False)
class Course:
    """What one run went through: a value for each step, nan where it has none."""

    run: Run
    reward: np.ndarray
    drift: np.ndarray
    late_reward: float
    series: dict[str, np.ndarray]  # by the names in SERIES

    def settled(self, key: str) -> float:
        """Mean from step 8 on; nan if it was not recorded."""
        return finite_mean(self.series[key][SETTLED - 1 :])

    @cached_property
    def within(self) -> float:
        """Rank correlation of S with the change of reward that follows, step and reward so far partialled out."""
        ends = range(BEFORE, len(self.reward) - AHEAD + 1)  # steps, from 1
        before = np.array([self.reward[t - BEFORE : t].mean() for t in ends])
        after = np.array([self.reward[t : t + AHEAD].mean() for t in ends])
        drift = self.drift[[t - 1 for t in ends]]
        known = np.isfinite(drift + before + after)
        if known.sum() < FEWEST:
            return float("nan")
        columns = [drift, after - before, np.arange(len(drift)), before]
        return partial_correlation(*(ranks(column[known]) for column in columns))

    @property
    def early_drift(self) -> float:
        return finite_mean(self.drift[SETTLED - 1 : MIDDLE])

    @property
    def later_gain(self) -> float:
        """Late reward less the reward of steps 8 to 14."""
        return self.late_reward - finite_mean(self.reward[SETTLED - 1 : MIDDLE])


SERIES = {
    "masked": "trust/mask_frac",
    "masked_budget": "trust/mask_frac_budget",
    "spread_kept": "prefix/suffix_spread_kept",
    "spread_calm": "prefix/suffix_spread_calm",
    "spread_drifted": "prefix/suffix_spread_drifted",
    "correlation": "prefix/rank_correlation",
}


def courses(results: Results | None) -> dict[str, list[Course]]:
    """Finished runs by preset, in order of seeds; nothing without the experiment."""
    if results is None:
        return {}
    methods = only_group(results).methods
    return {name: [course(results.sweep, run) for run in methods[name].runs] for name in ordered(methods) if methods[name].runs}


def course(sweep: Sweep, run: Run) -> Course:
    def by_step(key: str) -> np.ndarray:
        values = np.full(run.step, np.nan)
        steps, found = sweep.metric(run, key)
        values[steps - 1] = found
        return values

    drift = by_step("prefix/drift")
    if np.isnan(drift).all():  # runs from before it was recorded
        drift = by_step("trust/div_mean") * by_step("response_length/mean")
    series = {name: by_step(key) for name, key in SERIES.items()} | {"drift": drift}
    return Course(run, by_step("reward/mean"), drift, late_reward(sweep, run), series)


def finite_mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def ranks(values: np.ndarray) -> np.ndarray:
    """From 0, ties share their mean rank; what differs by rounding alone is a tie."""
    values = np.round(values, 12)
    return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's; nan for constants."""
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 1e-9 else float("nan")


def partial_correlation(x: np.ndarray, y: np.ndarray, *others: np.ndarray) -> float:
    """Of what is left of x and y when the others are regressed out."""
    design = np.stack([np.ones_like(x), *others], 1)
    left = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (x, y)]
    return correlation(*left)


def bootstrap(strata: Sequence[Sequence[Course]], of: Callable[[list[list[Course]]], float]) -> Estimate:
    """`of` of the runs, with percentiles over resamples of the runs of each stratum. The same runs give the same numbers."""
    generator = np.random.default_rng(0)
    draws = [
        of([[stratum[i] for i in generator.integers(len(stratum), size=len(stratum))] for stratum in strata])
        for _ in range(RESAMPLES)
    ]
    known = [value for value in draws if np.isfinite(value)]
    edges = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile(known, edges) if known and sum(map(len, strata)) > 1 else (np.nan, np.nan)
    return Estimate(of([list(stratum) for stratum in strata]), float(low), float(high), run_ids(strata))


def run_ids(strata: Sequence[Sequence[Course]]) -> list[str]:
    return [one.run.run_id for stratum in strata for one in stratum]


def mean_of(value: Callable[[Course], float], found: dict[str, list[Course]]) -> Estimate:
    """Mean over all runs that have the value."""
    having = [one for runs in found.values() for one in runs if np.isfinite(value(one))]
    values = {one.run.run_id: value(one) for one in having}
    return bootstrap([having], lambda drawn: finite_mean(np.array([values[one.run.run_id] for one in drawn[0]])))


def within_runs(found: dict[str, list[Course]]) -> Estimate:
    return mean_of(lambda one: one.within, found)


def across_runs(found: dict[str, list[Course]], within_rules: bool = True) -> Estimate:
    """Early drift against later gain; ranks within each rule, or over all runs at once."""
    strata = [[one for one in runs if np.isfinite(one.early_drift + one.later_gain)] for runs in found.values()]
    strata = [runs for runs in strata if len(runs) > 1]
    return bootstrap(strata if within_rules else [sum(strata, [])], pooled_correlation)


def pooled_correlation(strata: list[list[Course]]) -> float:
    """Of ranks within strata, each about its own mean."""
    if not any(strata):
        return float("nan")
    sides = []
    for value in (lambda one: one.early_drift, lambda one: one.later_gain):
        by_stratum = [ranks(np.array([value(one) for one in runs])) for runs in strata]
        sides.append(np.concatenate([one - one.mean() for one in by_stratum]))
    return correlation(*sides)


def suffix_correlation(found: dict[str, list[Course]]) -> Estimate:
    return mean_of(lambda one: one.settled("correlation"), found)


def suffix_ratio(found: dict[str, list[Course]]) -> Estimate:
    """Spread of suffix ratios behind drifted prefixes over that behind calm ones."""
    return mean_of(lambda one: one.settled("spread_drifted") / one.settled("spread_calm"), found)


BUDGET = {
    "S": lambda one: one.settled("drift"),
    "suffix spread, kept tokens": lambda one: one.settled("spread_kept"),
    "late reward": lambda one: one.late_reward,
}


def budget_effects(found: dict[str, list[Course]]) -> dict[str, Interval]:
    """With the prefix budget less without, paired by seed; nothing unless two seeds have both."""
    sides = [{one.run.seed: one for one in found.get(name, [])} for name in (WITH, WITHOUT)]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    pairs = [(sides[0][seed], sides[1][seed]) for seed in seeds]
    if len(pairs) < 2:
        return {}
    return {name: of_samples(np.array([of(one) - of(other) for one, other in pairs])) for name, of in BUDGET.items()}


@dataclass(frozen=True, eq=False)
class Mechanism:
    """The answers on one testbed."""

    courses: dict[str, list[Course]]

    @cached_property
    def rules(self) -> dict[str, list[Course]]:
        return {name: runs for name, runs in self.courses.items() if name in RULES}

    @cached_property
    def within(self) -> Estimate:
        return within_runs(self.rules)

    def within_rule(self, rule: str) -> Estimate:
        return within_runs({rule: self.rules.get(rule, [])})

    @cached_property
    def across(self) -> Estimate:
        return across_runs(self.rules)

    @cached_property
    def confounded(self) -> Estimate:
        return across_runs(self.rules, within_rules=False)

    @cached_property
    def suffix(self) -> Estimate:
        return suffix_correlation(self.rules)

    @cached_property
    def ratio(self) -> Estimate:
        return suffix_ratio(self.rules)

    @cached_property
    def budget(self) -> dict[str, Interval]:
        return budget_effects(self.courses)

    @property
    def supports(self) -> dict[str, bool]:
        """Each of the protocol's four questions."""
        *costs, reward = self.budget.values() or (None,)
        budget = reward is not None and all(cost.high < 0 for cost in costs) and reward.low > 0
        return {
            "within runs": self.within.below,
            "across runs": self.across.below,
            "suffix": self.suffix.above,
            "budget": budget,
        }

    @property
    def verdict(self) -> str:
        holds = self.supports
        drift = holds["within runs"] or holds["across runs"]
        if not drift:
            return "not supported"
        return "supported" if holds["suffix"] and holds["budget"] else "supported in part"


def mechanism(results: Results | None) -> Mechanism:
    return Mechanism(courses(results))
