"""Writes run folders with chosen scores, as the harness would leave them, for tests and timings of the analysis."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from harness.store import content_hash

BENCHMARKS = {"chain4": 8, "chain6": 8, "chain8": 8}
VARIANT_SETTINGS = {
    "cppo_no_position_weight": {"position_weights": "ones"},
    "cppo_no_prefix_budget": {"prefix_budget": False},
    "cppo_reversed": {"position_weights": "reversed"},
    "cppo_shuffled": {"position_weights": "shuffled", "prefix_budget": False},
    "cppo_wmin06": {"w_min": 0.6},
    "cppo_wmin06_bmin01": {"w_min": 0.6, "delta_b_min": 0.01},
    "cppo_fixed_budget": {"adaptive": False, "delta_b": 0.03},
    "cppo_kl": {"divergence": "topk_kl", "delta": 0.1, "adaptive": False, "delta_b": 0.002},
    "cppo_binary": {"divergence": "binary_tv"},
}
CPPO = {
    "divergence": "topk_tv", "delta": 0.15, "delta_b": 0.015, "delta_b_min": 0.02, "w_min": 0.8, "adaptive": True,
    "prefix_budget": True, "position_weights": "linear",
}  # fmt: skip


def write_run(
    root: Path, method: str, seed: int, curve, *, model="chain", experiment="default", benchmarks=None, n=4, every=7, steps=28,
    state="completed", collapse_step=None, step=None, lr=2e-4, num_metrics=12, noise=None,
    rule=None, delta=0.15, reward=None, stress="", changed=None,
) -> Path:  # fmt: skip
    """One run whose summary at evaluation i is curve[i] exactly (rounded to samples), or with binomial noise from `noise`.

    `step`: last step reached, for a run that is not complete; rows after it are not written. `reward`: that of every step.
    `changed`: shared settings of the stress point, such as {"rollout.lag": 8}.
    """
    benchmarks = benchmarks or BENCHMARKS
    rule = rule or ("cppo" if method in VARIANT_SETTINGS else method)
    changed = changed or {}
    run_id = f"{experiment}/{model}/{method}/seed={seed}-{abs(hash_of(method, seed, lr, stress)):08x}"
    folder = root / run_id
    folder.mkdir(parents=True)
    last = steps if step is None else step
    settings = {
        "method": {"rule": rule} | ((CPPO | VARIANT_SETTINGS.get(method, {})) if rule == "cppo" else {"delta": delta}),
        "train": {"steps": steps, "lr": lr, "updates_per_step": 4, "divergence": "topk_tv"},
        "rollout": {"lag": 4, "precision": "float32"},
        "eval": {"n": n, "every": every, "benchmarks": list(benchmarks), "temperature": 1.0, "top_p": 1.0},
        "data": {"name": "chain"},
        "model": {"path": "weights-hash"},
        "seed": seed,
    }
    for key, value in changed.items():
        settings[key.split(".")[0]][key.split(".")[1]] = value
    fingerprint = content_hash({key: value for key, value in settings.items() if key not in ("method", "seed")})
    identity = {"preset": method, "rule": rule, "experiment": experiment, "model": model, "seed": seed, "run_id": run_id}
    identity |= {"stress": stress}
    config = identity | {
        "config_hash": content_hash(settings),
        "settings_fingerprint": fingerprint,
        "settings": settings,
    }
    config |= {"data_fingerprints": {"train": "t0"}, "operational": {"runs_dir": "runs"}}
    status = {
        "state": state, "step": last, "reason": None, "attempts": 1, "run_id": run_id, "method": rule, "preset": method,
        "model": model, "experiment": experiment, "seed": seed, "settings_fingerprint": fingerprint, "git_sha": "0" * 40,
        "git_dirty": False, "versions": {}, "seconds": 36.0, "device_hours": 0.01, "collapse_step": collapse_step,
        "config_hash": config["config_hash"], "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:36+00:00",
        "updated": "2026-01-01T00:00:36+00:00",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "status.json").write_text(json.dumps(status))
    constant = {} if reward is None else {"reward/mean": reward}
    write_lines(folder / "metrics.jsonl", (row | constant for row in metric_rows(last, num_metrics, seed)))
    write_lines(folder / "evals.jsonl", eval_rows(curve, last, every, benchmarks, n, noise))
    return folder


def hash_of(*parts) -> int:
    value = 7
    for character in repr(parts):
        value = (value * 31 + ord(character)) % 2**32
    return value


def write_lines(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def eval_rows(curve, last: int, every: int, benchmarks: dict[str, int], n: int, noise: np.random.Generator | None):
    """The share of correct samples is curve[i] on each benchmark: spread over problems, easy ones first."""
    for i, share in enumerate(curve):
        if i * every > last:
            return
        for benchmark, size in benchmarks.items():
            total = round(share * n * size)
            for p in range(size):
                correct = min(n, max(0, total - n * p)) if noise is None else int(noise.binomial(n, share))
                yield {
                    "step": i * every, "benchmark": benchmark, "problem_id": f"{p:03d}", "n": n, "num_correct": correct,
                    "num_no_answer": 0, "num_truncated": 0, "grader": "chain/1",
                }  # fmt: skip


def metric_rows(last: int, num_metrics: int, seed: int):
    buckets = range(10)
    for step in range(1, last + 1):
        row = {
            "step": step, "reward/mean": 0.3 + 0.01 * step + 0.001 * seed, "response_length/mean": 58.0,
            "response_length/clip_ratio": 0.0, "actor/entropy": 0.07, "actor/grad_norm": 0.5, "trust/mask_frac": 0.012,
            "trust/mask_frac_token": 0.008, "trust/mask_frac_budget": 0.004, "trust/seq_rejected_frac": 0.0,
            "trust/delta_b_eff": 0.02 + 0.0001 * step, "trust/div_mean": 0.006, "trust/div_p90": 0.01, "trust/div_max": 0.3,
            "mismatch/k3": 1e-7, "mismatch/rel_error": 1e-6, "cost/response_tokens": 11000, "cost/learned_tokens": 9000,
            "time/step": 0.8, "time/rollout": 0.3, "time/tokens_per_s_rollout": 36000.0, "time/tokens_per_s_learner": 25000.0,
        }  # fmt: skip
        row |= {f"trust/div_by_pos/{b}": 0.004 + 0.0005 * b for b in buckets}
        row |= {f"trust/div_top10_by_pos/{b}": 0.04 + 0.005 * b for b in buckets}
        row |= {f"trust/mask_by_pos/{b}": 0.01 + 0.001 * b for b in buckets}
        row |= {f"extra/{i}": 0.5 for i in range(num_metrics - 12)}
        yield row
