"""Simulates how often the intervals contain the true value: the tables of docs/analysis.md.

    python -m analysis.coverage                     # the published tables, some minutes
    python -m analysis.coverage --replicates 200

A run's score on a problem is the sum of four random effects: problem + method × problem + seed + sampling noise. The noise has
the variance of 16 samples at 30 % correct; over 3 × 30 problems the sampling sd of a run's summary is about 1.2 points. The
seed sd is given as a multiple of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from analysis.pairs import Difference, difference
from analysis.stats import ALPHA, Interval, hierarchical_bootstrap, holm, interval, percentile_interval

STRATA_P = np.repeat(np.arange(3), 30)
NUM_SAMPLES = 16
SAMPLING_SD_OF_PROBLEM = (0.3 * 0.7 / NUM_SAMPLES) ** 0.5
SAMPLING_SD = SAMPLING_SD_OF_PROBLEM / len(STRATA_P) ** 0.5  # of one run's summary
PROBLEM_SD = 0.15
SEEDS = (3, 5, 10)
SEED_SD = (0.1, 0.3, 1.0, 3.0, 5.0)  # in units of SAMPLING_SD
SHAPES = ("normal", "bimodal")


@dataclass(frozen=True)
class World:
    """The distribution of the simulated scores.

    seed_sd: sd of the seed effects, in units of SAMPLING_SD. shape "bimodal": one seed in three ends lower, by ten sds of a
    mode, as a collapse does. interaction: sd of the method × problem effects. correlation: between the effects that one seed
    number has on two methods.
    """

    num_seeds: int
    seed_sd: float
    shape: str = "normal"
    interaction: float = 0.0
    correlation: float = 0.0

    def methods(self, num_methods: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(scores [M, S, P], true means of the methods on these problems [M]). On new problems all methods have mean 0."""
        effects_P = PROBLEM_SD * generator.standard_normal(len(STRATA_P))
        effects_MP = effects_P + self.interaction * generator.standard_normal((num_methods, len(STRATA_P)))
        common_S = self.seed_effects((1, self.num_seeds), generator)
        seeds_MS = self.correlation**0.5 * common_S + (1 - self.correlation) ** 0.5 * self.seed_effects(
            (num_methods, self.num_seeds), generator
        )
        noise = SAMPLING_SD_OF_PROBLEM * generator.standard_normal((num_methods, self.num_seeds, len(STRATA_P)))
        return effects_MP[:, None] + seeds_MS[..., None] + noise, effects_MP.mean(1)

    def seed_effects(self, shape: tuple, generator: np.random.Generator) -> np.ndarray:
        """Seed effects with mean 0 and sd seed_sd · SAMPLING_SD."""
        unit = generator.standard_normal(shape)
        if self.shape == "bimodal":
            low = generator.random(shape) < 1 / 3
            unit = (np.where(low, -2.0, 1.0) + 0.3 * unit) / (2 + 0.3**2) ** 0.5
        return self.seed_sd * SAMPLING_SD * unit


def covers(result: Interval | Difference, truth: float) -> bool:
    return result.low <= truth <= result.high


def contrast(world: World, scores: np.ndarray) -> Difference:
    """The difference of the first two methods, computed as the analysis does."""
    seeds = list(range(world.num_seeds))
    return difference(scores[0], scores[1], (seeds, seeds), STRATA_P)


def intervals(world: World, generator: np.random.Generator) -> dict[str, bool]:
    """Simulate one sweep of two equal methods. For each interval: does it contain the true value? Is A falsely called better?"""
    scores, truth_M = world.methods(2, generator)
    gap = contrast(world, scores)
    return {
        "mean, these problems": covers(interval([scores[0]], STRATA_P), truth_M[0]),
        "mean, new problems": covers(interval([scores[0]], STRATA_P, "crossed"), 0.0),
        "difference": covers(gap, 0.0),
        "false “A is better”": gap.p_value < ALPHA and gap.estimate > 0,
    }


def plain_bootstrap(world: World, generator: np.random.Generator) -> dict[str, bool]:
    """The same for the plain bootstrap, which is too narrow and only a reference: percentiles over seeds, problems and samples
    of a mean and of a difference, and of a mean over seeds alone."""
    scores, truth_M = world.methods(2, generator)
    counts_SP = np.full(scores[0].shape, NUM_SAMPLES)
    draw = lambda i: hierarchical_bootstrap(0.3 + scores[i], counts_SP, STRATA_P, seed=1, method=i, resamples=400)
    means = [draw(0), draw(1)]
    (low, high), (gap_low, gap_high) = percentile_interval(means[0] - 0.3), percentile_interval(means[0] - means[1])
    seeds_only = np.random.default_rng(1).integers(world.num_seeds, size=(400, world.num_seeds))
    seed_low, seed_high = percentile_interval(scores[0].mean(1)[seeds_only].mean(1))
    return {
        "mean, seeds only, these problems": seed_low <= truth_M[0] <= seed_high,
        "mean, new problems": low <= 0.0 <= high,
        "difference": gap_low <= 0.0 <= gap_high,
    }


def family(num_methods: int) -> Callable:
    """A check for `simulate`: is any pair of `num_methods` equal methods told apart?"""

    def check(world: World, generator: np.random.Generator) -> dict[str, bool]:
        scores, _ = world.methods(num_methods, generator)
        gaps = [contrast(world, scores[list(pair)]) for pair in combinations(range(num_methods), 2)]
        together = [replace(gap, num_means=num_methods).p_value for gap in gaps]
        adjusted = holm([gap.p_value for gap in gaps])
        return {"told apart (all pairs together)": min(together) < ALPHA, "Holm": min(adjusted) < ALPHA}

    return check


def power(shift: float) -> Callable:
    """A check for `simulate`: is a true difference of `shift` sds of a run found?"""

    def check(world: World, generator: np.random.Generator) -> dict[str, bool]:
        scores, _ = world.methods(2, generator)
        scores[0] += shift * SAMPLING_SD * (1 + world.seed_sd**2) ** 0.5
        gap = contrast(world, scores)
        return {
            "Welch at 5 %": gap.welch.p_value < ALPHA,
            "paired at 5 %": gap.paired.p_value < ALPHA,
            "the narrower, at 3 % each": gap.p_value < ALPHA,
        }

    return check


def simulate(world: World, check: Callable, replicates: int, seed: int) -> dict[str, float]:
    """Percent of replicates in which each entry of `check` held."""
    key = [world.num_seeds, *(round(1000 * x) for x in (world.seed_sd, world.interaction, world.correlation))]
    generator = np.random.default_rng([seed, *key, SHAPES.index(world.shape)])
    results = [check(world, generator) for _ in range(replicates)]
    return {name: 100 * float(np.mean([result[name] for result in results])) for name in results[0]}


def table(title: str, cases: list[tuple[World, Callable, str]], replicates: int, seed: int) -> Iterator[str]:
    """The lines of a Markdown table, each yielded as soon as it is computed."""
    yield f"\n**{title}** (percent of {replicates:,} simulated sweeps)\n"
    for i, (world, check, text) in enumerate(cases):
        shares = simulate(world, check, replicates, seed)
        if i == 0:
            yield "| seed effects | seeds | seed sd / sampling sd | | " + " | ".join(shares) + " |"
            yield "|---" * (4 + len(shares)) + "|"
        cells = [world.shape, world.num_seeds, f"{world.seed_sd:g}", text, *(f"{share:.1f}" for share in shares.values())]
        yield f"| {' | '.join(map(str, cells))} |"


def tables(replicates: int, seed: int) -> Iterator[str]:
    some = replicates // 2
    everywhere = [(World(n, sd, shape), intervals, "") for shape in SHAPES for n in SEEDS for sd in SEED_SD]
    yield from table("Intervals at 95 %", everywhere, replicates, seed)
    interacting = [(World(n, 1.0, interaction=0.1), intervals, "method × problem sd 0.1") for n in SEEDS]
    correlated = [(World(n, 3.0, correlation=0.5), intervals, "seed correlation 0.5") for n in SEEDS]
    yield from table("Methods that differ by problem; seeds that two methods share", interacting + correlated, replicates, seed)
    yield from table("Plain bootstrap, for reference", [(World(n, 3.0), plain_bootstrap, "") for n in SEEDS], some, seed)
    families = [(World(n, 1.0), family(m), f"{m} equal methods") for m in (2, 3, 7) for n in SEEDS]
    families += [(World(n, 3.0), family(m), f"{m} equal methods") for m in (3, 7, 11) for n in (2, *SEEDS)]
    families += [(World(n, 3.0, "bimodal"), family(7), "7 equal methods") for n in SEEDS]
    yield from table("Any false claim in a sweep of equal methods", families, some, seed)
    powers = [(World(n, 3.0, correlation=c), power(2.0), f"correlation {c:g}") for n in SEEDS for c in (0.0, 0.5, 0.9)]
    yield from table("Power at a difference of 2 sds of a run", powers, some, seed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for line in tables(options.replicates, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
