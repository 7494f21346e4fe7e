# ruff: noqa: E501 (a table: one mutation, one line)
"""Deliberate bugs: each one must be caught by the shipped cases. A list of what the cases are worth.

A mutation replaces text of one module; the packages are imported afresh with it, and the cases of the named method run until
one fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import contextmanager

import pytest

MUTATIONS = [
    # name, module, original text, mutated text, method of the cases that must catch it
    ("inclusive prefix sum", "methods.base", "pad(values.cumsum(-1)[..., :-1], (1, 0))", "pad(values.cumsum(-1), (0, 0))", "cppo"),
    ("padding in a prefix sum", "methods.cppo", "batch.masked(self.position_weight(batch, score.dtype))", "self.position_weight(batch, score.dtype)", "cppo"),
    ("missing ratio clamp", "methods.base", "clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)\n\n    @cached", "clone()\n\n    @cached", "pg_is"),
    ("ratio turned over", "methods.base", "self.logprobs - self.rollout_logprobs", "self.rollout_logprobs - self.logprobs", "pg_is"),
    ("outward sign flipped", "methods.base", "(self.ratio - 1) > 0", "(self.ratio - 1) < 0", "dppo"),
    ("positions count padding", "methods.base", "self.mask.long().cumsum(-1)", "self.mask.long().fill_(1).cumsum(-1)", "cppo"),
    ("padded length", "methods.base", "self.mask.long().sum(-1, keepdim=True)", "self.mask.long().fill_(1).sum(-1, keepdim=True)", "cppo"),
    ("mean over padded length", "methods.base", "self.lengths.clamp(min=1)", "self.mask.shape[-1]", "trm"),
    ("clip ignores the sign of A", "methods.base", "(batch.advantages > 0) & (ratio > high)", "(ratio > high)", "ppo_clip"),
    ("clip strict at A = 0", "methods.base", "(batch.advantages < 0) & (ratio < low)", "(batch.advantages <= 0) & (ratio < low)", "ppo_clip"),
    ("clip bounds swapped", "methods.grpo", "1 - self.eps_low, 1 + self.eps_high", "1 - self.eps_high, 1 + self.eps_low", "ppo_clip"),
    ("dual clip for A > 0", "methods.grpo", "(batch.advantages < 0)", "(batch.advantages > 0)", "ppo_clip"),
    ("CISPO drops instead of clipping", "methods.cispo", "return Decision(weight, batch.mask)", "return Decision(weight, weight == batch.ratio)", "cispo"),
    ("CISPO without floor", "methods.cispo", "clamp(1 - self.eps_low, 1 + self.eps_high)", "clamp(max=1 + self.eps_high)", "cispo"),
    ("inclusive prefix minimum", "methods.minpro", ".roll(1, -1)", ".clone()", "minpro"),
    ("prefix minimum capped at 1", "methods.minpro", "shifted[:, 0] = torch.inf", "shifted[:, 0] = 1.0", "minpro"),
    ("MinPRO clips before it multiplies", "methods.minpro", "(prefix_min * batch.ratio).clamp(1 - self.eps_low, 1 + self.eps_high)", "prefix_min * batch.ratio.clamp(1 - self.eps_low, 1 + self.eps_high)", "minpro"),
    ("TRM strict maximum", "methods.trm", "seq_max <= delta_max", "seq_max < delta_max", "trm"),
    ("TRM strict mean", "methods.trm", "seq_mean <= delta_avg", "seq_mean < delta_avg", "trm"),
    ("TRM either criterion", "methods.trm", "seq_keep & (seq_mean <= delta_avg)", "seq_keep | (seq_mean <= delta_avg)", "trm"),
    ("TRM drops tokens, not responses", "methods.trm", "batch.mask & seq_keep", "batch.mask & (score <= (delta_max or delta_avg))", "trm"),
    ("DPPO strict threshold", "methods.dppo", "self.score(batch) <= self.delta", "self.score(batch) < self.delta", "dppo"),
    ("DPPO drops inward tokens", "methods.dppo", "~batch.outward | (self", "(self", "dppo"),
    ("cap forgotten", "methods.base", "if cap is None", "if True", "dppo"),
    ("CPPO strict threshold", "methods.cppo", "aux[\"c\"] >= Z", "aux[\"c\"] > Z", "cppo"),
    ("budget floored at 0", "methods.cppo", "(total - aux[\"S_prev\"]).clamp(max=self.delta)", "(total - aux[\"S_prev\"]).clamp(0, self.delta)", "cppo"),
    ("budget without the token cap", "methods.cppo", "(total - aux[\"S_prev\"]).clamp(max=self.delta)", "(total - aux[\"S_prev\"])", "cppo"),
    ("budget sums only outward tokens", "methods.cppo", "Z = w * score", "Z = w * score * batch.outward", "cppo"),
    ("budget counts tokens, not weights", "methods.cppo", "\"W_prev\": batch.exclusive_cumsum(w)", "\"W_prev\": batch.exclusive_cumsum(torch.ones_like(w))", "cppo"),
    ("unweighted score against the cap", "methods.cppo", "Z = w * score", "Z = score", "cppo"),
    ("weights rise instead of fall", "methods.cppo", "lambda batch: batch.positions - 1", "lambda batch: batch.lengths - batch.positions", "cppo"),
    ("weights over T", "methods.cppo", "(batch.lengths - 1).clamp(min=1).to(dtype)", "batch.lengths.clamp(min=1).to(dtype)", "cppo"),
    ("quantile without interpolation", "methods.cppo", "torch.lerp(low, high, place - below)", "low", "cppo"),
    ("quantile over padding", "methods.cppo", "batch.masked(values, torch.inf).sort", "values.sort", "cppo"),
    ("quantile of the weighted score", "methods.cppo", "row_quantile(batch, batch.divergence, self.quantile)", "row_quantile(batch, batch.divergence * batch.masked(self.position_weight(batch, batch.divergence.dtype)), self.quantile)", "cppo"),
    ("adaptive budget without ceiling", "methods.cppo", "clamp(self.delta_b_min, self.delta_b_ceiling * self.delta_b_min)", "clamp(min=self.delta_b_min)", "cppo"),
    ("soft gate on the exclusive sum", "methods.cppo", "(aux[\"S_prev\"] + aux[\"Z\"]) / total", "aux[\"S_prev\"] / total", "cppo"),
    ("soft gate on inward tokens", "methods.cppo", "torch.where(batch.outward, 1 / x.clamp(min=1), 1.0)", "1 / x.clamp(min=1)", "cppo"),
    ("permutation inverted", "methods.cppo", "permutation.gather(-1", "permutation.argsort(-1).gather(-1", "cppo"),
    ("padded schedule counts from 0", "methods.cppo", "torch.arange(1, batch.mask.shape[-1] + 1", "torch.arange(0, batch.mask.shape[-1]", "cppo"),
    ("GSPO sums log-ratios", "methods.base", "batch.row_mean(batch.raw_log_ratio)", "batch.row_sum(batch.raw_log_ratio)", "gspo"),
    ("GMPO clips inward too", "methods.gmpo", "torch.where(keep, log_ratio, log_ratio.clamp(-self.eps_low, self.eps_high))", "log_ratio.clamp(-self.eps_low, self.eps_high)", "gmpo"),
    ("SAPO one temperature", "methods.sapo", "self.tau_pos, self.tau_neg", "self.tau_pos, self.tau_pos", "sapo"),
    ("M2PO mean over all tokens", "methods.m2po", "batch.outward & batch.mask", "batch.mask", "m2po"),
    ("M2PO clamped as dropped", "methods.m2po", 'if cut == "dropped":', "if True:", "m2po"),
    ("DRPO sign flipped", "methods.drpo", "1 - batch.advantages.sign()", "1 + batch.advantages.sign()", "drpo"),
    ("CE-GPPO constants swapped", "methods.ce_gppo", "self.beta_high * high, self.beta_low * low", "self.beta_low * low, self.beta_high * high", "ce_gppo"),
    ("VESPO of the mean", "methods.vespo", "batch.row_sum(batch.log_ratio)", "batch.row_mean(batch.log_ratio)", "vespo"),
    ("IcePop keeps one side", "methods.icepop", "(batch.ratio >= self.low) & ", "", "icepop"),
    ("CTPO bound grows with t", "methods.ctpo", ".sqrt()", "", "ctpo"),
    ("OPSM drops good responses", "methods.opsm", "(batch.advantages < 0) & (drift", "(batch.advantages > 0) & (drift", "opsm"),
    ("ASPO turns negatives over", "methods.aspo", "batch.advantages > 0, inverse_ratio", "batch.advantages < 0, inverse_ratio", "aspo"),
    ("PDM decided by the ratio", "methods.pdm", "batch.kl_direction <= 0", "(batch.ratio - 1) <= 0", "pdm"),
    ("KL of π from μ", "harness.learning.divergence", "self.mu * (self.log_mu - self.log_pi)", "self.pi * (self.log_pi - self.log_mu)", "divergence_topk"),
    ("total variation without ½", "harness.learning.divergence", "0.5 * pair", "pair", "divergence_topk"),
    ("no other bucket", "harness.learning.divergence", "listed if self.complete else", "listed if True else", "divergence_topk"),
    ("sampled token left out of E", "harness.learning.divergence", "torch.where(self.unlisted, sampled, 0.0)", "0.0", "divergence_topk"),
    ("replace keeps the K-th", "harness.learning.divergence", "if topk_set == \"replace\":", "if False:", "divergence_topk"),
    ("k3 without its linear term", "harness.learning.divergence", "log_ratio.expm1() - log_ratio", "log_ratio.expm1()", "trm"),
    ("token mean over rows", "harness.learning.loss", "1 / max(totals.num_tokens, 1)", "1 / max(totals.num_responses, 1)", "aggregate"),
    ("empty rows counted", "harness.learning.loss", "int((lengths > 0).sum())", "len(lengths)", "aggregate"),
    ("kept tokens as denominator", "harness.learning.loss", "(advantages * decision.weight * decision.keep * scale)", "(advantages * decision.weight * decision.keep * scale) / decision.keep.mean()", "ppo_clip"),
    ("keep forgotten in the loss", "harness.learning.loss", "decision.weight * decision.keep", "decision.weight", "ppo_clip"),
    ("population standard deviation", "harness.learning.advantage", "(size - 1).clamp(min=1)", "size", "group_advantages"),
    ("noise of equal rewards blown up", "harness.learning.advantage", "centred = torch.where(informative, centred, 0.0)", "pass", "group_advantages"),
    ("lone response loses its reward", "harness.learning.advantage", "torch.where(alone, 0.0, total(rewards) / size)", "(total(rewards) / size)", "group_advantages"),
]  # fmt: skip


def test_there_are_many():
    assert len({name for name, *_ in MUTATIONS}) == len(MUTATIONS) >= 30


@pytest.mark.parametrize("module, original, mutated, method", [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_the_shipped_cases_catch(module, original, mutated, method, reference):
    source = importlib.util.find_spec(module).loader.get_source(module)
    assert source.count(original) >= 1, f"{module} no longer reads {original!r}: renew this mutation"
    with imported_with(module, source.replace(original, mutated)) as vectors:
        cases = [case for case in vectors.load_cases(reference.PATH) if case["method"] == method]
        assert any(vectors.check_case(case).failure for case in cases)


def test_without_a_mutation_nothing_is_caught(reference):
    source = importlib.util.find_spec("methods.base").loader.get_source("methods.base")
    with imported_with("methods.base", source) as vectors:
        assert not any(vectors.check_case(case).failure for case in vectors.load_cases(reference.PATH))


@contextmanager
def imported_with(module: str, source: str):
    """harness.vectors, imported afresh from the packages with one module's source replaced."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ("methods", "harness")}
    finder = Mutant(module, source)
    sys.meta_path.insert(0, finder)
    try:
        yield importlib.import_module("harness.vectors")
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in ("methods", "harness")]:
            del sys.modules[name]
        sys.modules.update(ours)


class Mutant:
    """Finder and loader of one module from a string."""

    def __init__(self, name: str, source: str):
        self.name, self.source = name, source

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(self.source, self.name, "exec"), module.__dict__)
