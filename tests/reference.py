"""The formulas once more, as scalar loops in plain Python floats: written from the papers' formulas, not from the rules' code.

`python tests/reference.py` writes tests/vectors.json, the cases that `python -m harness.check tests/vectors.json` runs.
A response is the list of its valid tokens; padding and holes never reach a formula.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace as Token

PATH = Path(__file__).with_name("vectors.json")
GARBAGE = [0.0, 7.0, -77.0, 1e30, 123.0]


# ---- one response at a time: [(weight, keep)], diagnostics -----------------------------------------------------------


def clamp20(x):
    return max(-20.0, min(20.0, x))


def rho(t):
    return math.exp(clamp20(t.pi - t.mu))


def ppo_keeps(a, ratio, low, high):
    if a > 0:
        return ratio <= high
    if a < 0:
        return ratio >= low
    return True


def mean(values):
    return sum(values) / len(values) if values else 0.0


def ppo_clip(tokens, eps_low, eps_high, dual_clip=None):
    out = []
    for t in tokens:
        keep = ppo_keeps(t.a, rho(t), 1 - eps_low, 1 + eps_high)
        if dual_clip is not None and t.a < 0 and rho(t) > dual_clip:
            keep = False
        out.append((rho(t), keep))
    return out, {}


def cispo(tokens, eps_low, eps_high):
    return [(min(max(rho(t), 1 - eps_low), 1 + eps_high), 1) for t in tokens], {}


def minpro(tokens, eps_low, eps_high):
    out, minima = [], []
    for i, t in enumerate(tokens):
        m = 1.0 if i == 0 else min(rho(u) for u in tokens[:i])
        minima.append(m)
        out.append((min(max(m * rho(t), 1 - eps_low), 1 + eps_high), 1))
    return out, {"prefix_min": minima}


def trm(tokens, divergence, delta_max=None, delta_avg=None):
    largest = max((t.d for t in tokens), default=0.0)
    average = mean([t.d for t in tokens])
    keep = (delta_max is None or largest <= delta_max) and (delta_avg is None or average <= delta_avg)
    return [(rho(t), keep) for t in tokens], {"seq_max": largest, "seq_mean": average, "seq_keep": float(keep)}


def capped(t, ratio_cap):
    return rho(t) if ratio_cap is None else min(rho(t), ratio_cap)


def dppo(tokens, divergence, delta, ratio_cap=None):
    return [(capped(t, ratio_cap), t.a * (rho(t) - 1) <= 0 or t.d <= delta) for t in tokens], {}


def pdm(tokens, divergence, delta, ratio_cap=None):
    return [(capped(t, ratio_cap), t.a * t.direction <= 0 or t.d <= delta) for t in tokens], {}


def percentile(values, q):
    if not values:
        return 0.0
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def position_weights(tokens, w_min, weights, length, width):
    n = len(tokens)
    if weights == "ones":
        return [1.0] * n
    if length == "padded":
        return [w_min + (1 - w_min) * (width - t.column) / max(width - 1, 1) for t in tokens]
    linear = [1.0 if n == 1 else 1 - (1 - w_min) * i / (n - 1) for i in range(n)]
    if weights == "reversed":
        return linear[::-1]
    if weights == "permuted":
        return [linear[t.place] for t in tokens]
    return linear


def cppo(tokens, divergence, delta, w_min=1.0, delta_b=None, ratio_cap=None, adaptive=False, delta_b_min=None, q=0.9,
         weights="linear", budget=True, soft=False, length="response", width=None):  # fmt: skip
    w = position_weights(tokens, w_min, weights, length, width)
    rate = delta_b
    if adaptive:
        rate = min(max(percentile([t.d for t in tokens], q), delta_b_min), 2 * delta_b_min)
    out, seen = [], {"w": w, "Z": [], "S_prev": [], "W_prev": [], "c": []}
    spent = allowed = 0.0
    if soft:
        seen["x"] = []
    for t, w_t in zip(tokens, w, strict=True):
        z = w_t * t.d
        c = min(delta, delta + rate * allowed - spent) if budget else delta
        keep = t.a * (rho(t) - 1) <= 0 or z <= c
        if soft:
            x = z / delta
            if budget:
                x = max(x, (spent + z) / (delta + rate * allowed))
            keep = 1.0 if t.a * (rho(t) - 1) <= 0 or x <= 1 else 1 / x
            seen["x"].append(x)
        out.append((capped(t, ratio_cap), keep))
        for key, value in (("Z", z), ("S_prev", spent), ("W_prev", allowed), ("c", c)):
            seen[key].append(value)
        spent += z
        allowed += w_t
    return out, seen | {"delta_b": rate}


def pg(tokens):
    return [(1.0, 1) for _ in tokens], {}


def pg_is(tokens):
    return [(rho(t), 1) for t in tokens], {}


def tis(tokens, cap):
    return [(min(rho(t), cap), 1) for t in tokens], {}


def icepop(tokens, low, high):
    return [(rho(t), low <= rho(t) <= high) for t in tokens], {}


def geometric(tokens):
    return math.exp(clamp20(mean([t.pi - t.mu for t in tokens])))


def gspo(tokens, eps_low, eps_high):
    s = geometric(tokens)
    return [(s, ppo_keeps(t.a, s, 1 - eps_low, 1 + eps_high)) for t in tokens], {"seq_ratio": s}


def gmpo(tokens, eps_low, eps_high):
    logs, out = [], []
    for t in tokens:
        log_ratio = t.pi - t.mu
        if t.a > 0:
            logs.append(min(log_ratio, eps_high))
        elif t.a < 0:
            logs.append(max(log_ratio, -eps_low))
        else:
            logs.append(log_ratio)
    r = math.exp(clamp20(mean(logs))) if tokens else 0.0
    for t, log_used in zip(tokens, logs, strict=True):
        out.append((r, log_used == t.pi - t.mu))
    return out, {"seq_ratio": r}


def sapo(tokens, tau_pos, tau_neg):
    out = []
    for t in tokens:
        s = 1 / (1 + math.exp(-(tau_pos if t.a > 0 else tau_neg) * (min(rho(t), 500.0) - 1)))
        out.append((4 * s * (1 - s) * rho(t), 1))
    return out, {}


def drpo(tokens, eps):
    sign = lambda a: (a > 0) - (a < 0)
    return [(rho(t) * (1 - sign(t.a) * math.exp(t.mu) * (rho(t) - 1) / eps), 1) for t in tokens], {}


def ce_gppo(tokens, eps_low, eps_high, beta_low, beta_high):
    out = []
    for t in tokens:
        if t.a > 0 and rho(t) > 1 + eps_high:
            out.append((beta_high * (1 + eps_high), 1))
        elif t.a < 0 and rho(t) < 1 - eps_low:
            out.append((beta_low * (1 - eps_low), 1))
        else:
            out.append((rho(t), 1))
    return out, {}


def vespo(tokens, k_pos, lam_pos, k_neg, lam_neg):
    log_w = sum(clamp20(t.pi - t.mu) for t in tokens)
    out = []
    for t in tokens:
        k, lam = (k_pos, lam_pos) if t.a >= 0 else (k_neg, lam_neg)
        exponent = lam + k * log_w - lam * math.exp(min(log_w, 300.0))
        out.append((math.exp(exponent) if exponent > -700 else 0.0, 1))
    return out, {"W": math.exp(log_w)}


def ctpo(tokens, eps_low, eps_high, eps_dual, growing):
    out, total = [], 0.0
    for i, t in enumerate(tokens, start=1):
        total += clamp20(t.pi - t.mu)
        log_c, root = clamp20(total), math.sqrt(i) if growing else 1.0
        keep = ppo_keeps(t.a, log_c, -eps_low * root, eps_high * root)
        if eps_dual is not None and t.a < 0 and log_c > eps_dual * root:
            keep = False
        out.append((math.exp(log_c), keep))
    return out, {}


def opsm(tokens, delta, eps_low, eps_high, dual_clip=None):
    drift = mean([t.mu - t.pi for t in tokens])
    clipped, _ = ppo_clip(tokens, eps_low, eps_high, dual_clip)
    return [(w, k and not (t.a < 0 and drift > delta)) for (w, k), t in zip(clipped, tokens, strict=True)], {"seq_drift": drift}


def aspo(tokens, eps_low, eps_high, cap):
    weight = lambda t: min(math.exp(-clamp20(t.pi - t.mu)), cap) if t.a > 0 else rho(t)
    return [(weight(t), ppo_keeps(t.a, rho(t), 1 - eps_low, 1 + eps_high)) for t in tokens], {}


def geo_mask(tokens, low, high, weighted):
    s = geometric(tokens)
    return [(rho(t) if weighted else 1.0, low <= s <= high) for t in tokens], {"seq_ratio": s}


def mis_po(tokens, low, high, seq_low, seq_high):
    s = geometric(tokens)
    return [(1.0, low <= rho(t) <= high and seq_low <= s <= seq_high) for t in tokens], {"seq_ratio": s}


def m2po_batch(responses, budget, cut="dropped", inner_low=None, inner_high=None):
    """The one rule that looks at the whole batch: drop the largest (log ρ)² of outward tokens until their mean fits."""
    square = lambda t: clamp20(t.pi - t.mu) ** 2
    left = sorted((square(t) for tokens in responses for t in tokens if t.a * (rho(t) - 1) > 0), reverse=True)
    dropped, n = set(), len(left)
    while left and over_budget(left, n, budget, cut):
        dropped.add(left.pop(0))
    inner = lambda t: inner_low is not None and inner_low < rho(t) < inner_high
    drop = lambda t: t.a * (rho(t) - 1) > 0 and square(t) in dropped and not inner(t)
    return [([(rho(t), not drop(t)) for t in tokens], {}) for tokens in responses]


def over_budget(left, n, budget, cut):
    """`clamped`: the n − len(left) dropped ones count as the largest that is left."""
    if cut == "clamped":
        return sum(left) + (n - len(left)) * left[0] > budget * n
    return sum(left) / len(left) > budget


RULES = {rule.__name__: rule for rule in (
    ppo_clip, cispo, minpro, trm, dppo, pdm, cppo, pg, pg_is, tis, icepop, gspo, gmpo, sapo, drpo, ce_gppo, vespo, ctpo, opsm,
    aspo, geo_mask, mis_po)}  # fmt: skip

SCORES = {
    "binary_tv": lambda t: abs(math.exp(t.mu) - math.exp(t.pi)),
    "binary_kl": lambda t: math.exp(t.mu) * (t.mu - t.pi)
    + (1 - math.exp(t.mu)) * math.log((1 - math.exp(t.mu) + 1e-8) / (1 - math.exp(t.pi) + 1e-8)),
    "k1": lambda t: t.mu - t.pi,
    "k2": lambda t: (t.pi - t.mu) ** 2 / 2,
    "k3": lambda t: rho(t) - 1 - clamp20(t.pi - t.mu),
    "abs_log_ratio": lambda t: abs(t.pi - t.mu),
}


# ---- a whole case ----------------------------------------------------------------------------------------------------


def responses_of(inputs, params):
    """The valid tokens of each row."""
    rows = []
    for b, mask in enumerate(inputs["response_mask"]):
        tokens = []
        for i, valid in enumerate(mask):
            if valid:
                pi, mu = inputs["logprobs"][b][i], inputs["rollout_logprobs"][b][i]
                t = Token(pi=pi, mu=mu, a=inputs["advantages"][b][i], column=i + 1)
                if "divergence" in params:
                    given = params["divergence"] == "given"
                    t.d = inputs["divergence"][b][i] if given else SCORES[params["divergence"]](t)
                if "kl_direction" in inputs:
                    t.direction = inputs["kl_direction"][b][i]
                if "weight_perm" in inputs:
                    t.place = inputs["weight_perm"][b][len(tokens)]
                tokens.append(t)
        rows.append(tokens)
    return rows


def expected_of(method, params, inputs):
    rows = responses_of(inputs, params)
    extra = {"width": len(inputs["response_mask"][0])} if method == "cppo" else {}
    results = m2po_batch(rows, **params) if method == "m2po" else [RULES[method](tokens, **params, **extra) for tokens in rows]
    spread = lambda values, mask: [float(next(it)) if valid else 0.0 for it in [iter(values)] for valid in mask]
    masks = inputs["response_mask"]
    expected = {
        "weight": [spread([w for w, _ in out], mask) for (out, _), mask in zip(results, masks, strict=True)],
        "keep": [spread([k for _, k in out], mask) for (out, _), mask in zip(results, masks, strict=True)],
    }
    for key, first in results[0][1].items():
        values = [seen[key] for _, seen in results]
        expected[key] = [spread(v, m) for v, m in zip(values, masks, strict=True)] if isinstance(first, list) else values
    if "divergence" in params:
        expected["D"] = [spread([t.d for t in tokens], mask) for tokens, mask in zip(rows, masks, strict=True)]
    decided = [(t, *pair) for tokens, (out, _) in zip(rows, results, strict=True) for t, pair in zip(tokens, out, strict=True)]
    return expected | {"loss_token_mean": mean([-t.a * w * k * t.pi for t, w, k in decided])}


def make_mask(rng, kind, b, width):
    if kind == "all_masked":
        return [[0] * width for _ in range(b)]
    masks = []
    for row in range(b):
        n = 1 if kind == "one_token" else rng.randint(1, width)
        mask = [1] * n + [0] * (width - n)
        if kind == "left_pad":
            mask = mask[::-1]
        if kind == "holes":
            mask = [rng.randint(0, 1) for _ in range(width)]
        if kind == "empty_row" and row == 0:
            mask = [0] * width
        masks.append(mask)
    return masks


def make_inputs(rng, kind, method, params):
    b, width = rng.randint(1, 3), rng.randint(3, 9) if kind != "long" else 13
    masks = make_mask(rng, kind, b, width)
    fill = lambda make: [[round(make(), 4) if valid else rng.choice(GARBAGE) for valid in mask] for mask in masks]
    spread = {"extreme": 25.0}.get(kind, 0.35)
    inputs = {"response_mask": masks, "rollout_logprobs": fill(lambda: -0.01 - rng.expovariate(0.7))}
    drifted = fill(lambda: rng.gauss(0, spread))
    inputs["logprobs"] = [
        [round(min(mu + drift, -0.001), 4) for mu, drift in zip(*rows, strict=True)]
        for rows in zip(inputs["rollout_logprobs"], drifted, strict=True)
    ]
    whole = {row: rng.gauss(0, 1) for row in range(b)}
    inputs["advantages"] = fill(lambda: rng.choice([0.0, 1.0]) * rng.gauss(0, 1) if kind == "zero_adv" else rng.gauss(0, 1))
    if method in ("gspo", "gmpo", "opsm", "vespo", "trm"):
        inputs["advantages"] = [[round(whole[row], 4) if v else 9.0 for v in mask] for row, mask in enumerate(masks)]
    if params.get("divergence") == "given":
        scale = next((params[key] for key in ("delta", "delta_max", "delta_avg") if params.get(key)), 0.15)
        inputs["divergence"] = fill(lambda: rng.expovariate(1.3 / scale))
    if params.get("weights") == "permuted":
        inputs["weight_perm"] = [rng.sample(range(sum(mask)), sum(mask)) for mask in masks]
    if method == "pdm":
        inputs["kl_direction"] = fill(lambda: rng.gauss(0, 0.2))
    return inputs


KINDS = ["random", "left_pad", "holes", "empty_row", "extreme", "one_token", "zero_adv", "long"]
FIXED = {"divergence": "given", "delta": 0.15, "delta_b": 0.02, "w_min": 0.8, "ratio_cap": 1.5}
ADAPTIVE = {"divergence": "given", "delta": 0.15, "adaptive": True, "delta_b_min": 0.05, "w_min": 0.6, "ratio_cap": 20.0}
GROUPS = {
    "ppo": ("ppo_clip", {"eps_low": 0.2, "eps_high": 0.2}),
    "grpo": ("ppo_clip", {"eps_low": 0.2, "eps_high": 0.28}),
    "dual_clip": ("ppo_clip", {"eps_low": 0.2, "eps_high": 0.28, "dual_clip": 1.4}),
    "cispo": ("cispo", {"eps_low": 0.25, "eps_high": 0.28}),
    "cispo_no_floor": ("cispo", {"eps_low": 1.0, "eps_high": 0.28}),
    "minpro": ("minpro", {"eps_low": 1.0, "eps_high": 0.28}),
    "minpro_floor": ("minpro", {"eps_low": 0.4, "eps_high": 2.0}),
    "trm_max": ("trm", {"divergence": "given", "delta_max": 0.15}),
    "trm_avg": ("trm", {"divergence": "given", "delta_avg": 0.1}),
    "trm": ("trm", {"divergence": "given", "delta_max": 0.4, "delta_avg": 0.2}),
    "trm_k2": ("trm", {"divergence": "k2", "delta_max": 0.1}),
    "trm_k3": ("trm", {"divergence": "k3", "delta_avg": 0.05}),
    "dppo": ("dppo", {"divergence": "given", "delta": 0.15, "ratio_cap": 1.5}),
    "dppo_binary_tv": ("dppo", {"divergence": "binary_tv", "delta": 0.05, "ratio_cap": None}),
    "dppo_binary_kl": ("dppo", {"divergence": "binary_kl", "delta": 0.01}),
    "dppo_k1": ("dppo", {"divergence": "k1", "delta": 0.1}),
    "dppo_abs": ("dppo", {"divergence": "abs_log_ratio", "delta": 0.2}),
    "pdm": ("pdm", {"divergence": "given", "delta": 0.15, "ratio_cap": 1.5}),
    "cppo_fixed": ("cppo", FIXED),
    "cppo_tight": ("cppo", FIXED | {"delta": 0.3, "delta_b": 0.001}),
    "cppo_adaptive": ("cppo", ADAPTIVE),
    "cppo_median": ("cppo", ADAPTIVE | {"q": 0.5}),
    "cppo_ones": ("cppo", FIXED | {"weights": "ones"}),
    "cppo_reversed": ("cppo", FIXED | {"weights": "reversed", "w_min": 0.5}),
    "cppo_permuted": ("cppo", FIXED | {"weights": "permuted", "w_min": 0.5}),
    "cppo_no_budget": ("cppo", FIXED | {"budget": False, "w_min": 0.5}),
    "cppo_soft": ("cppo", FIXED | {"soft": True}),
    "cppo_soft_no_budget": ("cppo", FIXED | {"soft": True, "budget": False}),
    "cppo_padded": ("cppo", FIXED | {"length": "padded", "w_min": 0.5}),
    "pg": ("pg", {}),
    "pg_is": ("pg_is", {}),
    "tis": ("tis", {"cap": 1.3}),
    "icepop": ("icepop", {"low": 0.7, "high": 1.4}),
    "gspo": ("gspo", {"eps_low": 0.03, "eps_high": 0.04}),
    "gmpo": ("gmpo", {"eps_low": 0.3, "eps_high": 0.4}),
    "sapo": ("sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
    "m2po": ("m2po", {"budget": 0.04}),
    "m2po_code": ("m2po", {"budget": 0.04, "cut": "clamped", "inner_low": 0.9, "inner_high": 1.1}),
    "drpo": ("drpo", {"eps": 2.5}),
    "ce_gppo": ("ce_gppo", {"eps_low": 0.2, "eps_high": 0.28, "beta_low": 0.5, "beta_high": 0.9}),
    "vespo": ("vespo", {"k_pos": 2.0, "lam_pos": 3.0, "k_neg": 3.0, "lam_neg": 2.0}),
    "ctpo": ("ctpo", {"eps_low": 0.1, "eps_high": 0.2, "eps_dual": 0.25, "growing": True}),
    "ctpo_constant": ("ctpo", {"eps_low": 0.1, "eps_high": 0.2, "eps_dual": None, "growing": False}),
    "opsm": ("opsm", {"delta": 0.02, "eps_low": 0.2, "eps_high": 0.28}),
    "aspo": ("aspo", {"eps_low": 0.2, "eps_high": 0.28, "cap": 1.5}),
    "geo_mask": ("geo_mask", {"low": 0.9, "high": 1.1, "weighted": True}),
    "geo_mask_one": ("geo_mask", {"low": 0.9, "high": 1.1, "weighted": False}),
    "mis_po": ("mis_po", {"low": 0.7, "high": 1.5, "seq_low": 0.85, "seq_high": 1.15}),
}


def rule_cases():
    for group, (method, params) in GROUPS.items():
        for kind in KINDS:
            inputs = make_inputs(random.Random(f"{group}/{kind}"), kind, method, params)
            yield case(f"{group}-{kind}", group, method, params, inputs, expected_of(method, params, inputs))


def case(name, group, method, params, inputs, expected):
    return {"name": name, "group": group, "method": method, "params": params, "inputs": inputs, "expected": expected}


def tie_cases():
    """Dyadic numbers, so that a score that equals its threshold does so exactly."""
    cappo = {"divergence": "given", "delta": 0.25, "w_min": 0.5, "ratio_cap": 20.0}
    rows = {
        "dppo-equal": ("dppo", {"divergence": "given", "delta": 0.25}, [0.25, 0.2500001, 0.125]),
        "trm-max-equal": ("trm", {"divergence": "given", "delta_max": 0.25}, [0.25, 0.0, 0.125]),
        "trm-avg-equal": ("trm", {"divergence": "given", "delta_avg": 0.125}, [0.25, 0.0, 0.125]),
        "cppo-cap-equal": ("cppo", cappo | {"delta_b": 0.125}, [0.25, 0.0, 0.0]),
        "cppo-cap-above": ("cppo", cappo | {"delta_b": 0.125}, [0.2500001, 0.0, 0.0]),
        "cppo-budget-equal": ("cppo", cappo | {"delta_b": 0.125, "weights": "ones"}, [0.25, 0.125, 0.125, 0.125]),
        "cppo-budget-negative": ("cppo", cappo | {"delta_b": 0.03125, "weights": "ones"}, [0.5, 0.5, 0.0, 0.0625]),
    }
    for name, (method, params, scores) in rows.items():
        n = len(scores)
        inputs = {"response_mask": [[1] * n], "rollout_logprobs": [[-1.0] * n], "logprobs": [[-0.5] * n],
                  "advantages": [[1.0] * n], "divergence": [scores]}  # fmt: skip
        yield case(f"tie-{name}", "ties", method, params, inputs, expected_of(method, params, inputs))


def m2po_cut_case():
    """(log ρ)² = 0.04, 0.09, 0.25: means of the first k 0.04, 0.065, 0.127, with the rest clamped 0.04, 0.073, 0.127."""
    params = {"budget": 0.07, "cut": "clamped"}
    inputs = {"response_mask": [[1, 1, 1]], "rollout_logprobs": [[-1.0] * 3], "logprobs": [[-0.8, -0.7, -0.5]],
              "advantages": [[1.0] * 3]}  # fmt: skip
    yield case("m2po-cut", "m2po_code", "m2po", params, inputs, expected_of("m2po", params, inputs))


def distribution(rng, v, base=None):
    logits = [rng.gauss(0, 1.5) if base is None else base[i] + rng.gauss(0, 0.4) for i in range(v)]
    top = math.log(sum(math.exp(x) for x in logits))
    return [x - top for x in logits]


def topk_position(mu, pi, y, k, mode):
    ids = sorted(range(len(mu)), key=lambda i: (-mu[i], i))[:k]
    if y not in ids:
        ids = (ids[:-1] if mode == "replace" else ids) + [y]
    p, q = [math.exp(x) for x in mu], [math.exp(x) for x in pi]
    tv = sum(abs(p[i] - q[i]) for i in ids) / 2
    kl = sum(p[i] * (mu[i] - pi[i]) for i in ids)
    if k < len(mu):
        p_o, q_o = max(1 - sum(p[i] for i in ids), 1e-12), max(1 - sum(q[i] for i in ids), 1e-12)
        tv, kl = tv + abs(p_o - q_o) / 2, kl + p_o * math.log(p_o / q_o)
    t = Token(mu=mu[y], pi=pi[y])
    scores = {name: score(t) for name, score in SCORES.items()}
    return scores | {
        "set_ids": sorted(ids), "tv": tv, "kl": kl,
        "full_tv": sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
        "full_kl": sum(a * (x - z) for a, x, z in zip(p, mu, pi, strict=True)),
        "kl_direction": q[y] - p[y] + sum(q[i] * (p[i] - q[i]) for i in ids),
    }  # fmt: skip


def topk_cases():
    for v, k in ((6, 1), (9, 3), (12, 8), (6, 20), (9, 9)):
        for mode in ("union", "replace"):
            rng = random.Random(f"topk/{v}/{k}/{mode}")
            mu = [distribution(rng, v) for _ in range(3)]
            pi = [distribution(rng, v, row) for row in mu]
            tokens = [rng.randrange(v) for _ in mu]
            found = [topk_position(*row, k, mode) for row in zip(mu, pi, tokens, strict=True)]
            inputs = {"rollout_dist_logprobs": [mu], "dist_logprobs": [pi], "tokens": [tokens], "response_mask": [[1, 1, 1]]}
            expected = {key: [[position[key] for position in found]] for key in found[0]}
            yield case(f"topk-V{v}-K{k}-{mode}", "divergence_topk", "divergence_topk", {"K": k, "mode": mode}, inputs, expected)


def aggregate_cases():
    for seed in range(4):
        rng = random.Random(f"aggregate/{seed}")
        width = rng.randint(2, 6)
        masks = make_mask(rng, ["random", "holes", "empty_row", "all_masked"][seed], 3, width)
        values = [[round(rng.gauss(0, 1), 4) if v else 1e30 for v in mask] for mask in masks]
        sums = [sum(x for x, v in zip(row, mask, strict=True) if v) for row, mask in zip(values, masks, strict=True)]
        sizes = [sum(mask) for mask in masks]
        n = max(sum(size > 0 for size in sizes), 1)
        expected = {
            "token-mean": sum(sums) / max(sum(sizes), 1),
            "seq-mean-token-sum": sum(sums) / n,
            "seq-mean-token-mean": sum(s / size for s, size in zip(sums, sizes, strict=True) if size) / n,
            "seq-mean-token-sum-norm": sum(sums) / n / width,
            "seq-mean-token-sum-norm(scale=50)": sum(sums) / n / 50,
        }
        yield case(f"aggregate-{seed}", "aggregate", "aggregate", {}, {"values": values, "response_mask": masks}, expected)


def advantage_cases():
    for seed, groups in enumerate(([0, 0, 0, 0], [3, 1, 3, 1, 1], [5, 2], [0] * 7)):
        rng = random.Random(f"advantage/{seed}")
        rewards = [1e6 + 0.1] * 7 if seed == 3 else [rng.choice([0.0, 0.5, 1.0]) for _ in groups]
        expected = {"none": [], "std": []}
        for r, g in zip(rewards, groups, strict=True):
            mine = [x for x, h in zip(rewards, groups, strict=True) if h == g]
            centre = 0.0 if len(mine) == 1 else mean(mine)
            sd = 1.0 if len(mine) == 1 else math.sqrt(sum((x - centre) ** 2 for x in mine) / (len(mine) - 1))
            equal = len(mine) > 1 and len(set(mine)) == 1
            expected["none"].append(0.0 if equal else r - centre)
            expected["std"].append(0.0 if equal else (r - centre) / (sd + 1e-6))
        inputs = {"rewards": rewards, "groups": groups}
        yield case(f"advantage-{seed}", "group_advantages", "group_advantages", {}, inputs, expected)


def shorten(value):
    """Eleven significant digits: a hundredth of the tolerance, in half the bytes."""
    if isinstance(value, dict):
        return {key: shorten(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shorten(item) for item in value]
    return float(f"{value:.11g}") if isinstance(value, float) else value


def all_cases():
    cases = [*rule_cases(), *tie_cases(), *m2po_cut_case(), *topk_cases(), *aggregate_cases(), *advantage_cases()]
    for one in cases:
        one["expected"] = shorten(one["expected"])
    return cases


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in all_cases())
    PATH.write_text('{"version":1,"cases":[\n' + lines + "\n]}\n", encoding="utf-8")
