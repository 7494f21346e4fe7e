"""Checks the theory behind the prefix budget exactly, on MDPs that are small enough to enumerate.

`python -m benchmarks.theory --out theory.png` plots the exact residual against its bound.
There are V^T responses of T tokens from V ids. μ and π are random tables of next-token distributions, R is a random reward in
[−ξ, ξ]. Arithmetic is float64 and every expectation is a sum over all responses. From arXiv 2606.10968:

    J(π) − J(μ) = L'(π) − Δ(μ, π)                                                    (Eq. 1)
    L' = E_μ[R Σ_t (ρ_t − 1)],   Δ = E_μ[R Σ_t (ρ_t − 1)(1 − Π_{j>t} ρ_j)]
    |Δ| ≤ 4ξ Σ_{t<T} E_μ[D_t] Σ_{j>t} max D_j                                        (Proposition 4)
    |Δ| ≤ 2ξ T(T − 1) δ δ_b / w_min                                                  (Theorem 1)

with δ = max w_t D_t and δ_b = max over prefixes of Σ w_j D_j / Σ w_j, D the total variation, w the position weights.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.learning.divergence import PolicyPair, divergence


@dataclass
class Table:
    """Every response of an enumerable MDP: B = V^T rows."""

    pair: PolicyPair  # [B, T], all V ids listed
    rewards: Tensor  # [B] in [−ξ, ξ]

    @property
    def ratio(self) -> Tensor:
        """[B, T] ρ_t."""
        return (self.pair.logprobs - self.pair.rollout_logprobs).exp()

    @property
    def rollout_probability(self) -> Tensor:
        """[B] μ(y)."""
        return self.pair.rollout_logprobs.sum(-1).exp()

    def expectation(self, values: Tensor) -> Tensor:
        """E_{y~μ} of values [B]."""
        return (self.rollout_probability * values).sum()


def random_table(seed: int, num_ids: int = 3, horizon: int = 4, drift: float = 0.3) -> Table:
    """`drift` is the standard deviation of the difference of logits between π and μ."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    tokens = torch.cartesian_prod(*[torch.arange(num_ids)] * horizon)
    rollout, learner = [], []
    for t in range(horizon):
        logits = normal(num_ids**t, num_ids)
        state = (tokens[:, :t] * num_ids ** torch.arange(t - 1, -1, -1)).sum(-1)
        rollout.append(logits.log_softmax(-1)[state])
        learner.append((logits + drift * normal(num_ids**t, num_ids)).log_softmax(-1)[state])
    log_mu, log_pi = torch.stack(rollout, 1), torch.stack(learner, 1)
    at = lambda logs: logs.gather(-1, tokens[..., None]).squeeze(-1)
    ids = torch.arange(num_ids).expand(*tokens.shape, num_ids)
    pair = PolicyPair(tokens, at(log_pi), at(log_mu), ids, log_pi, log_mu, torch.ones_like(tokens).bool(), num_ids)
    return Table(pair, 2 * torch.rand(len(tokens), generator=generator, dtype=torch.float64) - 1)


def improvement(table: Table) -> Tensor:
    """J(π) − J(μ)."""
    return table.expectation(table.rewards * (table.ratio.prod(-1) - 1))


def surrogate(table: Table) -> Tensor:
    """L'(π)."""
    return table.expectation(table.rewards * (table.ratio - 1).sum(-1))


def residual(table: Table) -> Tensor:
    """Δ(μ, π)."""
    ratio = table.ratio
    suffix = ratio.flip(-1).cumprod(-1).flip(-1) / ratio
    return table.expectation(table.rewards * ((ratio - 1) * (1 - suffix)).sum(-1))


def prefix_corrected(table: Table) -> Tensor:
    """E_μ[R Σ_t (ρ_t − 1) Π_{j<t} ρ_j]: the same difference, corrected by prefixes."""
    ratio = table.ratio
    prefix = ratio.cumprod(-1) / ratio
    return table.expectation(table.rewards * ((ratio - 1) * prefix).sum(-1))


def pointwise_bound(table: Table) -> Tensor:
    """Proposition 4 with l_j = max D_j, ξ = 1."""
    score = divergence("full_tv", table.pair)
    expected = torch.stack([table.expectation(score[:, t]) for t in range(score.shape[1])])
    limit = score.amax(0)
    later = limit.flip(0).cumsum(0).flip(0) - limit
    return 4 * (expected * later)[:-1].sum()


def prefix_bound(table: Table, w_min: float) -> Tensor:
    """Theorem 1 with the smallest δ and δ_b that hold along every response, ξ = 1."""
    score = divergence("full_tv", table.pair)
    horizon = score.shape[1]
    weights = torch.linspace(1, w_min, horizon, dtype=score.dtype)
    spent = (weights * score).cumsum(-1)[:, :-1]
    delta, delta_b = (weights * score).max(), (spent / weights.cumsum(-1)[:-1]).max()
    return 2 * horizon * (horizon - 1) * delta * delta_b / w_min


def draw(path: str, num_tables: int, w_min: float) -> None:
    """Plot the exact |Δ| against its bound, a point per random table; a point above the diagonal would be a violation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tables = [random_table(seed, drift=10 ** (-2 + 2.5 * seed / num_tables)) for seed in range(num_tables)]
    bounds = torch.stack([prefix_bound(table, w_min) for table in tables])
    truth = torch.stack([residual(table).abs() for table in tables])
    figure, axes = plt.subplots(figsize=(4, 3.4), layout="constrained")
    axes.loglog(bounds, truth, ".", markersize=3, alpha=0.6)
    axes.loglog([bounds.min(), bounds.max()], [bounds.min(), bounds.max()], color="black", linewidth=0.8)
    axes.set(xlabel="bound of Theorem 1", ylabel="|Δ(μ, π)|, exact", title=f"{num_tables} random tables, V = 3, T = 4")
    figure.savefig(path, dpi=150)
    looseness = float((bounds / truth).median())
    print(f"held in {int((truth <= bounds).sum())} of {num_tables}; looser by {looseness:.0f}× in the median")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.theory", description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="theory.png")
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--w-min", type=float, default=0.8)
    options = parser.parse_args()
    draw(options.out, options.tables, options.w_min)
