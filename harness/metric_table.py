"""Defines every stored metric: key, unit, meaning and reduction. docs/metrics.md is generated from this table.

Names follow verl's where verl has one (actor/, response_length/, prompt_length/), so that existing dashboards work.
A key with <…> stands for a family. A metric means the same for every method; a method's own metrics are under method/<name>/.
The loss is not comparable between methods and is stored for health checks only.

    python -m harness.metric_table > docs/metrics.md
"""

# ruff: noqa: E501 (one metric, one line)
from __future__ import annotations

from dataclasses import dataclass

POSITION_BUCKETS = 10  # by relative position (t − 1)/T in the response: bucket 0 is its first tenth


@dataclass(frozen=True)
class Metric:
    key: str
    unit: str
    meaning: str
    reduction: str


TOKENS = "over the step's learned response tokens"
RESPONSES = "over the step's responses"
COMPARED = "mean over compared tokens"
UPDATES = "mean over the step's updates"

METRICS = [
    Metric("reward/mean", "share", "mean reward of the step's rollouts", RESPONSES),
    Metric("reward/informative_groups", "share", "groups whose rewards differ: only these carry a gradient", "over the step's groups"),
    Metric("response_length/mean", "tokens", "mean response length, end token included", RESPONSES),
    Metric("response_length/max", "tokens", "longest response", RESPONSES),
    Metric("response_length/min", "tokens", "shortest response", RESPONSES),
    Metric("response_length/clip_ratio", "share", "responses cut at rollout.max_response_length", RESPONSES),
    Metric("prompt_length/mean", "tokens", "mean prompt length", "over the step's prompts"),
    Metric("actor/entropy", "nat", "entropy of the learner's next-token distribution, before the update", TOKENS),
    Metric("actor/grad_norm", "", "norm of the gradient before clipping", UPDATES),
    Metric("actor/lr", "", "learning rate of the last update", "last"),
    Metric("actor/pg_loss", "", "surrogate loss −Σ A·weight·keep·log π / denominator; not comparable between methods", UPDATES),
    Metric("trust/mask_frac", "share", "gradient-carrying tokens (A ≠ 0) with keep = 0 (1 − keep for soft gates)", TOKENS),
    Metric("trust/mask_frac_token", "share", "the rest of trust/mask_frac: dropped by a token's own score, or with the whole response", TOKENS),
    Metric("trust/mask_frac_budget", "share", "the part of trust/mask_frac that only the prefix budget drops", TOKENS),
    Metric("trust/seq_rejected_frac", "share", "learned responses without any kept token", "over learned responses"),
    Metric("trust/weight_mean", "", "mean weight of kept tokens", TOKENS),
    Metric("trust/delta_b_eff", "", "effective prefix budget δ_b of rules that have one", "mean over learned responses"),
    Metric("trust/div_mean", "", "train.divergence between rollout policy and learner at use (train.anchor=old: between the learner at the step's start and at use)", "mean " + TOKENS),
    Metric("trust/div_p90", "", "divergence as in trust/div_mean", "0.9 quantile " + TOKENS),
    Metric("trust/div_max", "", "divergence as in trust/div_mean", "maximum " + TOKENS),
    Metric("trust/div_by_pos/<bucket>", "", "divergence as in trust/div_mean, by relative position in the response", "mean in the bucket"),
    Metric("trust/div_top10_by_pos/<bucket>", "", "the same, of the tokens with the highest divergence", "mean of the bucket's highest tenth"),
    Metric("trust/mask_by_pos/<bucket>", "share", "trust/mask_frac by relative position", "mean in the bucket"),
    Metric("prefix/drift", "", "S_T, train.divergence summed over a learned response of 2 tokens or more", "mean over responses, then over updates with 8 such responses or more whose weights have moved since sampling"),
    Metric("prefix/suffix_spread", "nat/√token", "z, the summed log ρ of a response's second half, divided by the root of its length (harness/telemetry/prefix.py)", "standard deviation over responses, mean over updates"),
    Metric("prefix/suffix_spread_kept", "nat/√token", "z, summed over the tokens that the rule keeps", "as prefix/suffix_spread"),
    Metric("prefix/suffix_spread_calm", "nat/√token", "z of the calm half of the responses: those whose first half diverged less (per token)", "as prefix/suffix_spread"),
    Metric("prefix/suffix_spread_drifted", "nat/√token", "z of the drifted half of the responses: those whose first half diverged more (per token)", "as prefix/suffix_spread"),
    Metric("prefix/rank_correlation", "", "Spearman's correlation of the first half's divergence per token and |z|", "over an update's responses, mean over updates"),
    Metric("staleness/k1", "nat", "k1 = −log ρ between rollout policy and learner at use, so lag and earlier updates are included (train.anchor=old: as in trust/div_mean)", "mean " + TOKENS),
    Metric("staleness/k3", "nat", "k3 = ρ − 1 − log ρ, of the same policies", "mean " + TOKENS),
    Metric("staleness/ratio_max", "", "largest ρ, of the same policies", "maximum " + TOKENS),
    Metric("staleness/ratio_min", "", "smallest ρ, of the same policies", "minimum " + TOKENS),
    Metric("staleness/versions", "updates", "number of updates between the weights that sampled and the weights at use", "mean over updates"),
    Metric("mismatch/k1", "nat", "k1 = −l between engine and learner at equal weights, on fresh responses (docs/rollouts.md); l = log ρ = log π − log μ", COMPARED),
    Metric("mismatch/k3", "nat", "k3 = e^l − 1 − l, with l as in mismatch/k1; gated by mismatch.kl", COMPARED),
    Metric("mismatch/abs_error", "nat", "|l|: absolute error of the log-prob", COMPARED),
    Metric("mismatch/max_error", "nat", "largest |l|", "maximum over compared tokens"),
    Metric("mismatch/rel_error", "share", "|1 − ρ|: relative error of the probability", COMPARED),
    Metric("mismatch/logprob_rel_error", "share", "Σ|l| / Σ|log π|: relative error of the log-prob", "ratio of sums over compared tokens"),
    Metric("mismatch/token_error", "", "e^|l| ≥ 1: multiplicative error of the probability; gated by mismatch.token_error", COMPARED),
    Metric("mismatch/pearson", "", "correlation of the sampled tokens' probabilities, engine against learner", "over compared tokens"),
    Metric("mismatch/ratio_<quantile>", "", "ρ at equal weights: min, p01, p50, p99, max", "quantile over compared tokens"),
    Metric("mismatch/k3_by_pos/<bucket>", "nat", "mismatch/k3 by relative position in the response", "mean in the bucket"),
    Metric("mismatch/abs_error_by_pos/<bucket>", "nat", "mismatch/abs_error by relative position in the response", "mean in the bucket"),
    Metric("mismatch/routing", "share", "mixtures of experts: tokens whose set of experts differs between engine and learner at equal weights; first 64 tokens of each compared response", "over compared tokens × layers"),
    Metric("health/updates_skipped", "updates", "updates skipped because their loss or gradient was not finite", "sum over updates"),
    Metric("health/grader_timeouts", "responses", "responses that the grader gave no verdict on in time: their reward is 0", "sum"),
    Metric("health/nonfinite_rollout", "responses", "responses left out because a rollout log-prob was not finite", "sum"),
    Metric("cost/response_tokens", "tokens", "response tokens of the batch that the step learned from", "sum"),
    Metric("cost/sampled_tokens", "tokens", "response tokens sampled during the step, for this batch or later ones", "sum"),
    Metric("cost/learned_tokens", "tokens", "response tokens that passed through the learner", "sum"),
    Metric("cost/learned_positions", "tokens", "positions that the learner computed: prompts, responses and padding", "sum"),
    Metric("time/<stage>", "s", "wall time: rollout, canary, reward, old_logprobs, minibatch_pass, forward_backward, rule, optimizer, record, push, evaluation, checkpoint, step", "sum"),
    Metric("time/tokens_per_s_rollout", "tokens/s", "response tokens sampled per second of time/rollout", "over the step"),
    Metric("time/tokens_per_s_learner", "tokens/s", "learned response tokens per second of minibatch_pass + forward_backward + rule + optimizer", "over the step"),
    Metric("method/<name>/<key>", "", "a rule's own diagnostics (its Decision.aux)", "mean " + TOKENS + "; of a value per response: over learned responses"),
]


INTRODUCTION = """# Metrics

The numbers in a run's `metrics.jsonl` (one row per step), for whoever reads or plots them. A metric means the same for every
method; a method's own are under `method/<name>/`. `<…>` stands for a family of keys, `<bucket>` for tenths of the response by
relative position. The last column says which of the step's values give the stored number, and how (where it does not say: their
mean, or the share of them). ρ = π/μ is the ratio of the learner's to the rollout policy's probability, A the advantage.

This page is generated: `python -m harness.metric_table > docs/metrics.md`.
"""


def markdown() -> str:
    lines = [INTRODUCTION, "| key | unit | meaning | reduction |", "|---|---|---|---|"]
    lines += [f"| `{m.key}` | {m.unit} | {m.meaning.replace('|', chr(92) + '|')} | {m.reduction} |" for m in METRICS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
