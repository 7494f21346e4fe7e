"""Cumulative Prefix-divergence Policy Optimization, arXiv 2606.10968, Eqs. 8–11: a token cap and a prefix budget.

    w_t = 1 − (1 − w_min)(t − 1)/(T − 1),  Z_t = w_t D_t,  S_{t−1} = Σ_{j<t} Z_j,  W_{t−1} = Σ_{j<t} w_j
    c_t = min(δ, δ + δ_b W_{t−1} − S_{t−1})
    J = E[M_t min(ρ, C) A],  M_t = 1[A(ρ − 1) ≤ 0 ∨ Z_t ≤ c_t]

The sums include every valid token: kept, dropped, inward and A = 0 alike. c_t may be negative; then no outward token is kept.
δ_b is fixed, or set per response to the 0.9 quantile of D_1 … D_T clamped to [δ_b_min, 2 δ_b_min] (`adaptive`).
The soft gate (appendix C) replaces M_t on outward tokens by min(1, 1/x_t), x_t = max(Z_t/δ, S_t/(δ + δ_b W_{t−1})).

`length`: T is the response's own length (`response`, the paper and the default), or the width that responses are padded
to (`padded`, verl's contribution: w_i = w_min + (1 − w_min)(L − i)/(L − 1) at column i), which leaves w_min nearly inactive
for answers much shorter than L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import MISSING, Decision, DivergenceRule, TokenBatch, capped_ratio, check_ratio_cap

UNBOUNDED = "for no budget set prefix_budget=false"


@dataclass
class CPPO(DivergenceRule):
    """Cumulative Prefix-divergence PO: weight min(ρ, C), outward tokens dropped over the token cap or the prefix budget."""

    scope = "response"

    delta: float = MISSING  # δ > 0, bounds a token's Z
    prefix_budget: bool = MISSING  # False: c_t = δ
    adaptive: bool = MISSING  # True: δ_b from each response's own divergences; False: delta_b
    delta_b: float | None = MISSING  # δ_b ≥ 0 per unit of position weight, when fixed
    delta_b_min: float | None = MISSING  # floor of the adaptive δ_b
    delta_b_ceiling: float = MISSING  # ceiling of the adaptive δ_b, in units of delta_b_min: 2 in the paper, 5 in its unit tests
    quantile: float = MISSING  # in [0, 1]; the adaptive δ_b is this quantile of the response's D_t, clamped
    w_min: float = MISSING  # in [0, 1], position weight of the last token
    position_weights: str = MISSING  # linear | ones | reversed | shuffled (a permutation per response)
    length: str = MISSING  # response | padded
    soft: bool = MISSING
    ratio_cap: float | None = MISSING  # C ≥ 1, or null: no cap

    def validate(self) -> None:
        super().validate()
        self.check(self.delta > 0, "delta", "choose a bound above 0")
        self.check(0 <= self.w_min <= 1, "w_min", "choose a weight in [0, 1]")
        self.check(self.position_weights in POSITION_WEIGHTS, "position_weights", f"choose from {' '.join(POSITION_WEIGHTS)}")
        self.check(self.length in ("response", "padded"), "length", "choose response (paper) or padded (verl)")
        length_fits = self.length == "response" or self.position_weights in ("linear", "ones")
        self.check(length_fits, "length", f"position_weights={self.position_weights} needs length=response")
        check_ratio_cap(self)
        self.validate_budget()

    def validate_budget(self) -> None:
        if self.adaptive:
            floor_valid = self.delta_b_min is not None and 0 <= self.delta_b_min < math.inf
            self.check(floor_valid, "delta_b_min", f"choose a floor of at least 0; {UNBOUNDED}")
            ceiling_valid = 1 <= self.delta_b_ceiling < math.inf
            self.check(ceiling_valid, "delta_b_ceiling", f"the ceiling is a multiple of the floor: at least 1; {UNBOUNDED}")
            self.check(0 <= self.quantile <= 1, "quantile", "choose a quantile in [0, 1]")
        elif self.prefix_budget:
            valid = self.delta_b is not None and 0 <= self.delta_b < math.inf
            self.check(valid, "delta_b", f"choose at least 0, or set adaptive=true; {UNBOUNDED}")

    def __call__(self, batch: TokenBatch) -> Decision:
        score = self.score(batch)
        w = batch.masked(self.position_weight(batch, score.dtype))
        Z = w * score
        aux = {"w": w, "Z": Z, "S_prev": batch.exclusive_cumsum(Z), "W_prev": batch.exclusive_cumsum(w)}
        total = self.allowance(batch, aux)
        aux["c"] = (total - aux["S_prev"]).clamp(max=self.delta) if self.prefix_budget else torch.full_like(Z, self.delta)
        if self.soft:
            keep = self.gate(batch, aux, total)
        else:
            keep = ~batch.outward | (aux["c"] >= Z)
            aux["budget_only"] = ~keep & (self.delta >= Z)  # the token cap alone would have kept these
        return Decision(capped_ratio(batch, self.ratio_cap), keep, aux)

    def allowance(self, batch: TokenBatch, aux: dict[str, Tensor]) -> Tensor | None:
        """[B, T] δ + δ_b W_{t−1}, the divergence that a response may have spent by the end of token t; None without a budget."""
        delta_b = self.budget_rate(batch)
        aux["delta_b"] = delta_b.squeeze(-1)
        return self.delta + delta_b * aux["W_prev"] if self.prefix_budget else None

    def budget_rate(self, batch: TokenBatch) -> Tensor:
        """[B, 1] δ_b; the floor for an empty response."""
        if not self.adaptive:
            return torch.full_like(batch.divergence[:, :1], self.delta_b or 0.0)  # delta_b may be None only without a budget
        quantile = row_quantile(batch, batch.divergence, self.quantile)
        return quantile.clamp(self.delta_b_min, self.delta_b_ceiling * self.delta_b_min)

    def gate(self, batch: TokenBatch, aux: dict[str, Tensor], total: Tensor | None) -> Tensor:
        """[B, T] the soft gate's keep, in (0, 1]. Its prefix sum S_t includes the token's own Z_t."""
        x = aux["Z"] / self.delta
        if total is not None:
            x = torch.maximum(x, (aux["S_prev"] + aux["Z"]) / total)
        aux["x"] = x
        return torch.where(batch.outward, 1 / x.clamp(min=1), 1.0)

    def position_weight(self, batch: TokenBatch, dtype: torch.dtype) -> Tensor:
        """[B, T] w_t; meaningless where masked."""
        order = POSITION_WEIGHTS[self.position_weights](batch)
        if order is None:
            return torch.ones_like(batch.ratio, dtype=dtype)
        if self.length == "padded":
            return padded_weight(batch, self.w_min).to(dtype)
        return 1 - (1 - self.w_min) * (order / (batch.lengths - 1).clamp(min=1).to(dtype))


def padded_weight(batch: TokenBatch, w_min: float) -> Tensor:
    """[1, T] w_i over columns i = 1 … L: 1 at the first of L columns, w_min at the last; w_min if L = 1."""
    width = batch.horizon or batch.mask.shape[-1]
    column = torch.arange(1, batch.mask.shape[-1] + 1, device=batch.mask.device, dtype=torch.float64)
    return (w_min + (1 - w_min) * (width - column) / max(width - 1, 1))[None]


def row_quantile(batch: TokenBatch, values: Tensor, q: float) -> Tensor:
    """[B, 1] linearly interpolated quantile over the valid tokens of each row; 0 for an empty row."""
    ordered = batch.masked(values, torch.inf).sort(-1).values
    place = q * (batch.lengths - 1).clamp(min=0).to(values.dtype)
    below, above = place.floor().long(), place.ceil().long()
    low, high = ordered.gather(-1, below), ordered.gather(-1, above)
    value = torch.where(low == high, low, torch.lerp(low, high, place - below))  # between two infinities lerp is NaN
    return torch.where(batch.lengths > 0, value, 0.0)


def shuffled_order(batch: TokenBatch) -> Tensor:
    """[B, T] a permutation of 0 … T−1 over each response's valid tokens: `weight_perm`, or one seeded by the response alone."""
    permutation = batch.weight_perm
    if permutation is None:
        permutation = seeded_permutations(batch)
    return permutation.gather(-1, (batch.positions - 1).clamp(min=0))


def seeded_permutations(batch: TokenBatch) -> Tensor:
    if batch.response_key is None:
        raise ValueError("method.position_weights=shuffled needs TokenBatch.response_key, or the permutation as weight_perm")
    permutations = torch.zeros(batch.mask.shape, dtype=torch.long)
    for row, (key, length) in enumerate(zip(batch.response_key.tolist(), batch.lengths.squeeze(-1).tolist(), strict=True)):
        permutations[row, :length] = torch.randperm(length, generator=torch.Generator().manual_seed(key))
    return permutations.to(batch.mask.device)


# Each function gives every token's 0-based place in the linear schedule; None means that every weight is 1.
POSITION_WEIGHTS = {
    "linear": lambda batch: batch.positions - 1,
    "ones": lambda batch: None,
    "reversed": lambda batch: batch.lengths - batch.positions,
    "shuffled": shuffled_order,
}
