"""How often the intervals hold what they promise, by simulation: the table of docs/analysis.md.

    python -m analysis.coverage                     # the published table, some minutes
    python -m analysis.coverage --replicates 200

A run's score on a problem is problem + method × problem + seed + sampling noise. Sampling is that of 3 × 30 problems with 16
samples each at 30 % correct, so the sampling sd of a run's summary is about 1.2 points. The seed sd is a multiple of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analysis.stats import LEVEL, Interval, difference, hierarchical_bootstrap, holm, interval, percentile_interval

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
    """Where the simulated scores come from. Bimodal: one seed in three ends three sds lower, as a collapse does.

    interaction: sd of method × problem effects; correlation: of two methods' effects of one seed number.
    """

    num_seeds: int
    seed_sd: float
    shape: str = "normal"
    interaction: float = 0.0
    correlation: float = 0.0

    def methods(self, num_methods: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(scores [M, S, P], true means of the methods on these problems [M]); all methods are alike on new problems."""
        effects_P = PROBLEM_SD * generator.standard_normal(len(STRATA_P))
        effects_MP = effects_P + self.interaction * generator.standard_normal((num_methods, len(STRATA_P)))
        common_S = self.seed_effects((1, self.num_seeds), generator)
        seeds_MS = self.correlation**0.5 * common_S + (1 - self.correlation) ** 0.5 * self.seed_effects(
            (num_methods, self.num_seeds), generator
        )
        noise = SAMPLING_SD_OF_PROBLEM * generator.standard_normal((num_methods, self.num_seeds, len(STRATA_P)))
        return effects_MP[:, None] + seeds_MS[..., None] + noise, effects_MP.mean(1)

    def seed_effects(self, shape: tuple, generator: np.random.Generator) -> np.ndarray:
        """Mean 0, sd seed_sd."""
        unit = generator.standard_normal(shape)
        if self.shape == "bimodal":
            low = generator.random(shape) < 1 / 3
            unit = (np.where(low, -2.0, 1.0) + 0.3 * unit) / (2 + 0.3**2) ** 0.5
        return self.seed_sd * SAMPLING_SD * unit


def covers(result: Interval, truth: float) -> bool:
    return Interval(result.estimate - truth, result.se, result.df, result.level).p_value >= 1 - LEVEL


def bootstrap_covers(scores_SP: np.ndarray, truth: float, seed: int) -> bool:
    means = hierarchical_bootstrap(np.clip(scores_SP, 0, 1), np.full(scores_SP.shape, NUM_SAMPLES), STRATA_P, seed, 200)
    low, high = percentile_interval(means)
    return low <= truth <= high


def one_replicate(world: World, generator: np.random.Generator) -> dict[str, float]:
    """Each entry is 1 or 0: did this hold in one simulated sweep of two equal methods?"""
    scores, truth_M = world.methods(2, generator)
    seeds = list(range(world.num_seeds))
    contrast, _ = difference(*scores, (seeds, seeds), STRATA_P)
    told = contrast.p_value < 1 - LEVEL
    return {
        "mean, these problems": covers(interval([scores[0]], STRATA_P), truth_M[0]),
        "mean, new problems": covers(interval([scores[0]], STRATA_P, "crossed"), 0.0),
        "difference": covers(contrast, 0.0),
        "false “A is better”": told and contrast.estimate > 0,
        "false, either way": told,
    }


def family_error(world: World, num_methods: int, generator: np.random.Generator) -> bool:
    """Is any pair of equal methods told apart?"""
    scores, _ = world.methods(num_methods, generator)
    seeds = list(range(world.num_seeds))
    pairs = [(i, j) for i in range(num_methods) for j in range(i)]
    return min(holm([difference(scores[i], scores[j], (seeds, seeds), STRATA_P)[0].p_value for i, j in pairs])) < 1 - LEVEL


def simulate(world: World, replicates: int, seed: int) -> dict[str, float]:
    """Shares over replicates."""
    generator = np.random.default_rng([seed, world.num_seeds, round(1000 * world.seed_sd), SHAPES.index(world.shape)])
    results = [one_replicate(world, generator) for _ in range(replicates)]
    return {key: float(np.mean([result[key] for result in results])) for key in results[0]}


def bootstrap_coverage(world: World, replicates: int, seed: int) -> float:
    generator = np.random.default_rng([seed, 7, world.num_seeds])
    hits = []
    for i in range(replicates):
        scores, truth_M = world.methods(1, generator)
        hits.append(bootstrap_covers(scores[0] + 0.3, truth_M[0] + 0.3, i))
    return float(np.mean(hits))


def worlds() -> Iterator[World]:
    for shape in SHAPES:
        for num_seeds in SEEDS:
            for seed_sd in SEED_SD:
                yield World(num_seeds, seed_sd, shape)


def coverage_table(replicates: int, seed: int) -> Iterator[str]:
    keys = None
    for world in worlds():
        shares = simulate(world, replicates, seed)
        if keys is None:
            keys = list(shares)
            yield "| seed effects | seeds | seed sd / sampling sd | " + " | ".join(keys) + " |"
            yield "|---" * (3 + len(keys)) + "|"
        yield (
            f"| {world.shape} | {world.num_seeds} | {world.seed_sd:g} | "
            + " | ".join(f"{100 * shares[key]:.1f}" for key in keys)
            + " |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for line in coverage_table(options.replicates, options.seed):
        print(line, flush=True)


if __name__ == "__main__":
    main()
