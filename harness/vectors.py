"""Runs vector files (cases of inputs and expected numbers) through the registered rules in float64.

A case is {name, group, method, params, inputs, expected}. `method` is a key of ALIASES or PSEUDO_METHODS, or the name of a
registered or plug-in rule whose fields are then the params. Per-token numbers are compared on valid tokens only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from harness.learning.advantage import advantages_of
from harness.learning.divergence import PolicyPair, divergence, kl_direction
from harness.learning.loss import AGGREGATIONS, Totals, surrogate_loss, token_scale
from methods import Rule, TokenBatch, all_methods

TOLERANCE = 1e-9  # of |found − expected| / (1 + |expected|)


@dataclass
class Alias:
    """Translates a file's names into those of a registered rule: first the names of settings, then their values."""

    rule: str | Callable[[dict], str]  # registered name, or a function that finds it from the params
    names: dict[str, str] = field(default_factory=dict)  # the file's name of a setting → ours
    values: dict[tuple[str, object], object] = field(default_factory=dict)  # (our setting, the file's value) → our value
    absent: dict[str, object] = field(default_factory=dict)  # the value of a setting that a case leaves out


def trm_variant(params: dict) -> str:
    given = [bound for bound in ("delta_max", "delta_avg") if params.get(bound) is not None]
    if not given:
        raise ValueError("trm needs delta_max, delta_avg or both in its params")
    return "trm" if len(given) == 2 else given[0].replace("delta", "trm")


ALIASES = {
    "ppo_clip": Alias("grpo"),
    "trm": Alias(trm_variant),
    "cppo": Alias(
        "cppo",
        names={"q": "quantile", "weights": "position_weights", "budget": "prefix_budget"},
        values={("position_weights", "permuted"): "shuffled"},
        absent={
            "position_weights": "linear", "prefix_budget": True, "adaptive": False, "soft": False, "length": "response",
            "w_min": 0.8, "delta_b": None, "delta_b_min": 0.02, "delta_b_ceiling": 2.0, "quantile": 0.9,
        },
    ),
}  # fmt: skip
# The value of a setting that a case leaves out, for any rule that has the setting.
ABSENT = {
    "dual_clip": None, "ratio_cap": None, "topk_set": "union", "rejected": "counted",
    "cut": "dropped", "inner_low": None, "inner_high": None,
}  # fmt: skip


@dataclass
class Outcome:
    """The result of a case: its worst error |found − expected| / (1 + |expected|), or why it failed."""

    name: str
    group: str
    error: float = 0.0
    failure: str | None = None


def load_cases(path: str | Path) -> list[dict]:
    """The cases of a vector file. ValueError if it does not exist or holds no cases."""
    try:
        cases = json.loads(Path(path).read_text(encoding="utf-8"))["cases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no cases: give a file like tests/vectors.json") from error
    return cases


def check_case(case: dict) -> Outcome:
    """Run a case and compare. A case that can't be run is a failed case, with the reason."""
    outcome = Outcome(case.get("name", "unnamed"), case.get("group", case.get("method", "ungrouped")))
    try:
        outcome.error = worst_error(case, compute(case))
    except Exception as error:  # whatever a case does, the others still run and this one is reported
        outcome.failure = f"{type(error).__name__}: {error}"
    return outcome


def compute(case: dict) -> dict[str, object]:
    """Every quantity that the case's `expected` may name."""
    return PSEUDO_METHODS.get(case["method"], rule_quantities)(case)


def worst_error(case: dict, found: dict[str, object]) -> float:
    """Largest deviation over the expected keys; ValueError for a key that is unknown or off by more than the tolerance."""
    unknown = case["expected"].keys() - found.keys()
    if unknown or not case["expected"]:
        raise ValueError(f"nothing to compare with expected keys {sorted(unknown)}; known here: {' '.join(sorted(found))}")
    errors = {key: deviation(found[key], value, case["inputs"]) for key, value in case["expected"].items()}
    misses = [f"{key} is off by {error:.3g}" for key, error in errors.items() if not error <= TOLERANCE]
    if misses:
        raise ValueError("; ".join(misses))
    return max(errors.values())


def deviation(found: object, expected: object, inputs: dict) -> float:
    """max |found − expected| / (1 + |expected|) on valid tokens; lists of ids must be equal there."""
    if isinstance(found, list):
        rows = zip(inputs["response_mask"], found, expected, strict=True)
        same = all(not valid or ours == theirs for row in rows for valid, ours, theirs in zip(*row, strict=True))
        return 0.0 if same else torch.inf
    expected = torch.as_tensor(expected, dtype=torch.float64)
    if found.shape != expected.shape:
        raise ValueError(f"shape {tuple(found.shape)} where {tuple(expected.shape)} is expected")
    error = (found.double() - expected).abs() / (1 + expected.abs())
    error[found == expected] = 0.0  # also where both are infinite
    if expected.dim() == 2:
        error = error[torch.tensor(inputs["response_mask"], dtype=torch.bool)]
    return float(error.max()) if error.numel() else 0.0


def rule_quantities(case: dict) -> dict[str, Tensor]:
    """Weight, keep, the rule's own diagnostics, the divergence D and the token-mean loss."""
    rule = build_rule(case["method"], case["params"])
    batch = token_batch(case["inputs"], rule)
    decision = rule(batch)
    mask = batch.mask
    scale = token_scale(mask, "token-mean", Totals.of(mask), mask.shape[-1], torch.float64)
    loss = surrogate_loss(batch.logprobs, batch.advantages, decision, mask, scale)
    found = {"weight": decision.weight, "keep": decision.keep, "loss_token_mean": loss, **decision.aux}
    return found if batch.divergence is None else found | {"D": batch.divergence}


def build_rule(method: str, params: dict) -> Rule:
    """The registered rule with the settings that a file's method and params mean."""
    alias = ALIASES.get(method, Alias(method))
    name = alias.rule if isinstance(alias.rule, str) else alias.rule(params)
    if name not in all_methods():
        raise ValueError(f"unknown method {method!r}: choose from {' '.join([*ALIASES, *PSEUDO_METHODS, *all_methods()])}")
    rule_class = all_methods()[name]
    known = [f.name for f in fields(rule_class)]
    settings = {key: value for key, value in (ABSENT | alias.absent).items() if key in known}
    for key, value in params.items():
        setting = alias.names.get(key, key)
        if setting in ("delta_max", "delta_avg") and value is None:
            continue
        if setting in ("delta_max", "delta_avg") and setting not in known:
            setting = "delta"
        if setting not in known:
            raise ValueError(f"unknown parameter {key!r} of {name}: choose from {' '.join(known)}")
        settings[setting] = alias.values.get((setting, value), value)
    return rule_class(**settings)


def token_batch(inputs: dict, rule: Rule) -> TokenBatch:
    """The case's inputs as a TokenBatch, with the score that the rule needs."""
    values = {key: torch.tensor(inputs[key], dtype=torch.float64) for key in ("logprobs", "rollout_logprobs", "advantages")}
    values["mask"] = torch.tensor(inputs["response_mask"], dtype=torch.bool)
    if "weight_perm" in inputs:
        values["weight_perm"] = padded(inputs["weight_perm"], values["mask"].shape[-1])
    for key, dtype in (("response_key", torch.long), ("kl_direction", torch.float64)):
        if key in inputs:
            values[key] = torch.tensor(inputs[key], dtype=dtype)
    if rule.divergence == "given":
        if "divergence" not in inputs:
            raise ValueError("divergence: given needs the score in inputs.divergence")
        values["divergence"] = torch.tensor(inputs["divergence"], dtype=torch.float64)
    elif rule.divergence is not None and rule.divergence.startswith(("topk_", "full_")):
        raise ValueError(f"{rule.divergence} needs distributions: use divergence: given, with the score in inputs.divergence")
    elif rule.divergence is not None:
        values["divergence"] = divergence(rule.divergence, sampled_pair(values), rule.topk_set)
    return TokenBatch(**values)


def padded(rows: list[list[int]], width: int) -> Tensor:
    """[B, width] rows of unequal length, padded with zeros."""
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long)


def sampled_pair(values: dict[str, Tensor]) -> PolicyPair:
    """A PolicyPair without top-k ids: enough for the binary scores and the sample estimators."""
    names = ("logprobs", "rollout_logprobs", "mask")
    nothing = torch.empty(*values["mask"].shape, 0, dtype=torch.float64)
    tokens = torch.zeros_like(values["mask"], dtype=torch.long)
    rest = {"topk_ids": nothing.long(), "topk_logprobs": nothing, "rollout_topk_logprobs": nothing}
    return PolicyPair(tokens=tokens, vocab_size=1, **rest, **{name: values[name] for name in names})


def topk_pair(inputs: dict, k: int) -> PolicyPair:
    """Full distributions [B, T, V] reduced to the rollout policy's top k, lower id first on ties."""
    rollout = torch.tensor(inputs["rollout_dist_logprobs"], dtype=torch.float64)
    learner = torch.tensor(inputs["dist_logprobs"], dtype=torch.float64)
    mask = torch.tensor(inputs["response_mask"], dtype=torch.bool)
    tokens = torch.tensor(inputs["tokens"]).masked_fill(~mask, 0)  # padding may hold anything
    ids = rollout.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return PolicyPair(
        tokens=tokens,
        logprobs=learner.gather(-1, tokens[..., None]).squeeze(-1),
        rollout_logprobs=rollout.gather(-1, tokens[..., None]).squeeze(-1),
        topk_ids=ids,
        topk_logprobs=learner.gather(-1, ids),
        rollout_topk_logprobs=rollout.gather(-1, ids),
        mask=mask,
        vocab_size=rollout.shape[-1],
    )


def topk_quantities(case: dict) -> dict[str, object]:
    """Scores, the explicit set and the other bucket, from full distributions."""
    only(case["params"], {"K", "mode"})
    mode = case["params"].get("mode", ABSENT["topk_set"])
    pair = topk_pair(case["inputs"], case["params"]["K"])
    whole = topk_pair(case["inputs"], pair.vocab_size)
    other = pair.other(mode)
    sampled = {name: divergence(name, pair) for name in ("binary_tv", "binary_kl", "k1", "k2", "k3", "abs_log_ratio")}
    return sampled | {
        "tv": divergence("topk_tv", pair, mode),
        "kl": divergence("topk_kl", pair, mode),
        "full_tv": divergence("full_tv", whole),
        "full_kl": divergence("full_kl", whole),
        "kl_direction": kl_direction(pair, mode),
        "mu_other": other.mu,
        "pi_other": other.pi,
        "set_ids": explicit_ids(pair, mode),
    }


def explicit_ids(pair: PolicyPair, mode: str) -> list[list[list[int]]]:
    """[B][T] sorted ids of E."""
    ids = []
    for listed_row, token_row, unlisted_row in zip(pair.topk_ids, pair.tokens, pair.unlisted, strict=True):
        row = []
        for listed, token, unlisted in zip(listed_row.tolist(), token_row.tolist(), unlisted_row.tolist(), strict=True):
            if unlisted:
                listed = (listed[:-1] if mode == "replace" else listed) + [token]
            row.append(sorted(listed))
        ids.append(row)
    return ids


def aggregate_quantities(case: dict) -> dict[str, Tensor]:
    """Each aggregation of `values`; `name(scale=n)` divides by the constant n in place of the padded width."""
    only(case["params"], set())
    mask = torch.tensor(case["inputs"]["response_mask"], dtype=torch.bool)
    values = torch.tensor(case["inputs"]["values"], dtype=torch.float64).masked_fill(~mask, 0.0)
    found = {}
    for key in case["expected"]:
        name, _, constant = key.removesuffix(")").partition("(scale=")
        if name in AGGREGATIONS:
            horizon = float(constant) if constant else mask.shape[-1]
            found[key] = (values * token_scale(mask, name, Totals.of(mask), horizon, torch.float64)).sum()
    return found


def advantage_quantities(case: dict) -> dict[str, Tensor]:
    only(case["params"], set())
    rewards = torch.tensor(case["inputs"]["rewards"], dtype=torch.float64)
    groups = torch.tensor(case["inputs"]["groups"])
    return {name: advantages_of(rewards, groups, name)[0] for name in ("none", "std")}


def only(params: dict, known: set[str]) -> None:
    if params.keys() - known:
        raise ValueError(f"unknown parameters {sorted(params.keys() - known)}; known here: {sorted(known)}")


PSEUDO_METHODS = {
    "divergence_topk": topk_quantities,
    "aggregate": aggregate_quantities,
    "group_advantages": advantage_quantities,
}
