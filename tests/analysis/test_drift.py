"""The drift testbed's tables and answers on made-up runs, through packs and back; coefficients against scipy's."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from made_up import write_run
from test_study import FLAT, text

from analysis.__main__ import main
from analysis.load import load
from analysis.packs import pack
from analysis.results import analyse
from analysis.study import mechanism as m
from analysis.study import selection
from analysis.study.cells import study_cells
from analysis.study.drift import drift_families, drift_pairs, table_drift, table_mechanism
from analysis.study.drift_verdict import drift_texts
from analysis.study.protocol import COMMAND

LATE = {"grpo": 0.50, "cppo": 0.60, "cppo_no_prefix_budget": 0.40, "cppo_reversed": 0.55}
SEEDS = (1, 2, 3)


def rewrite(folder, change) -> None:
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | change(row["step"])) + "\n" for row in rows))


def prefix(preset: str, seed: int, step: int) -> dict[str, float]:
    """Drift grows by step and seed; half of it with the budget."""
    drift = (1.0 if preset == "cppo" else 2.0) + 0.01 * step + 0.1 * seed
    calm = 0.5 + 0.01 * seed
    spreads = {"prefix/suffix_spread_calm": calm, "prefix/suffix_spread_drifted": 1.5 * calm}
    kept = {"prefix/suffix_spread_kept": drift / 4, "prefix/rank_correlation": 0.2 + 0.02 * seed, "prefix/suffix_spread": calm}
    masked = {"trust/mask_frac": 0.1, "trust/mask_frac_budget": 0.08 if preset == "cppo" else 0.0}
    return {"prefix/drift": drift} | spreads | kept | masked


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("drift") / "runs"
    for preset, late in LATE.items():
        for seed in SEEDS:
            folder = write_run(root, preset, seed, [*FLAT, 0.5 + seed / 32], experiment="drift", reward=late + 0.01 * seed)
            rewrite(folder, lambda step, preset=preset, seed=seed: prefix(preset, seed, step))
    return root


@pytest.fixture(scope="module")
def results(runs):
    return analyse(load([runs]))


@pytest.fixture(scope="module")
def answers(results):
    return m.mechanism(results)


def course(reward, drift, seed=1):
    run = SimpleNamespace(run_id=f"r{seed}", seed=seed)
    return m.Course(run, np.array(reward), np.array(drift), float(np.mean(reward[-8:])), {})


def test_ranks_and_correlations_are_scipys():
    generator = np.random.default_rng(1)
    x, y, z = generator.integers(0, 6, 40), generator.normal(size=40), generator.normal(size=40)
    assert m.ranks(x) + 1 == pytest.approx(scipy.stats.rankdata(x))
    assert m.correlation(m.ranks(x), m.ranks(y)) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    xy, xz, yz = (scipy.stats.spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z)))
    textbook = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert m.partial_correlation(*map(m.ranks, (x, y, z))) == pytest.approx(textbook)
    assert np.isnan(m.correlation(np.ones(4), np.arange(4)))


def test_within_a_run_the_change_of_reward_after_a_step_is_met_with_the_drift_at_it():
    generator = np.random.default_rng(2)
    reward, drift = generator.random(28), generator.random(28)
    columns = []
    for t in range(4, 22):  # step t, from 1: reward of t−3 … t and of t+1 … t+7
        before, after = np.mean(reward[t - 4 : t]), np.mean(reward[t : t + 7])
        columns.append([drift[t - 1], after - before, t, before])
    expected = m.partial_correlation(*map(m.ranks, np.array(columns).T))
    assert course(reward, drift).within == pytest.approx(expected)
    drift[10] = np.nan  # a step without a learned response
    expected = m.partial_correlation(*map(m.ranks, np.delete(np.array(columns), 7, 0).T))
    assert course(reward, drift).within == pytest.approx(expected)
    assert np.isnan(course(reward[:18], drift[:18]).within)  # too few steps


def test_drift_that_precedes_every_loss_counts_as_support_and_its_opposite_does_not():
    """Reward wanders, drift tells where it goes: coefficients near −1, and near +1 with the sign turned."""
    found = {}
    for sign in (-1, 1):
        runs = []
        for seed in range(6):
            reward = np.cumsum(np.random.default_rng(seed).normal(size=40))
            ahead = np.array([reward[t : t + 7].mean() - reward[max(0, t - 4) : t].mean() for t in range(1, 34)])
            runs.append(course(reward, [*(sign * ahead), *[0.0] * 7], seed))
        found[sign] = m.within_runs({"grpo": runs[:3], "cppo": runs[3:]})
    assert found[-1].below and not found[-1].above and found[-1].value < -0.8
    assert found[1].above and not found[1].below and len(found[1].run_ids) == 6


def test_across_runs_ranks_are_taken_inside_each_rule():
    """Inside both rules drift goes with loss; between them the rule that drifts more gains more."""

    def runs(level, gains):
        return [
            course([*[0.3] * 14, *[0.3 + level + gain] * 14], [level + 0.1 * i] * 28, seed=i) for i, gain in enumerate(gains)
        ]

    found = {"grpo": runs(1, [0.3, 0.2, 0.1]), "cppo": runs(5, [0.3, 0.2, 0.1])}
    inside, whole = m.across_runs(found), m.across_runs(found, within_rules=False)
    assert inside.value == pytest.approx(-1) and inside.below
    assert whole.value == pytest.approx(scipy.stats.spearmanr([1, 1.1, 1.2, 5, 5.1, 5.2], [1.3, 1.2, 1.1, 5.3, 5.2, 5.1])[0])
    assert np.isnan(m.across_runs({}).value)


def test_intervals_are_those_of_resampled_runs():
    generator = np.random.default_rng(3)
    values = generator.normal(size=30)
    found = {"cppo": [course([0.1] * 28, [0.0] * 28, seed=i) for i in range(30)]}
    estimate = m.mean_of(lambda one: values[one.run.seed], found)
    reference = scipy.stats.bootstrap((values,), np.mean, method="percentile", random_state=4).confidence_interval
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx(tuple(reference), abs=0.03)


def test_the_budget_is_compared_by_seed(answers):
    effects = answers.budget
    assert effects["S"].estimate == pytest.approx(-1) and effects["S"].high < 0
    assert effects["suffix spread, kept tokens"].estimate == pytest.approx(-0.25)
    assert effects["late reward"].estimate == pytest.approx(0.2) and answers.supports["budget"]
    assert m.budget_effects({name: runs[:1] for name, runs in answers.courses.items()}) == {}


def test_suffix_numbers_are_means_over_settled_steps_and_runs(answers):
    assert answers.suffix.value == pytest.approx(0.24) and answers.supports["suffix"]
    assert answers.ratio.value == pytest.approx(1.5)
    assert answers.courses["cppo"][0].settled("drift") == pytest.approx(1 + 0.1 + 0.01 * np.mean(range(8, 29)))
    assert answers.courses["cppo"][0].early_drift == pytest.approx(1 + 0.1 + 0.01 * 11)


@pytest.mark.parametrize(
    ("within", "across", "suffix", "budget", "verdict"),
    [
        (True, False, True, True, "supported"),
        (False, True, True, True, "supported"),
        (True, True, True, False, "supported in part"),
        (True, False, False, True, "supported in part"),
        (False, False, True, True, "not supported"),
    ],
)
def test_what_counts_as_support(monkeypatch, within, across, suffix, budget, verdict):
    holds = {"within runs": within, "across runs": across, "suffix": suffix, "budget": budget}
    monkeypatch.setattr(m.Mechanism, "supports", holds)
    assert m.Mechanism({}).verdict == verdict


def test_a_cost_that_is_lower_without_a_reward_that_is_higher_is_no_support(results):
    found = m.courses(results)
    swapped = {m.WITH: found["cppo"], m.WITHOUT: found["cppo"]}
    assert not m.Mechanism(swapped).supports["budget"]
    assert not m.Mechanism({}).supports["budget"]


def test_runs_without_the_key_use_mean_divergence_times_length(runs, tmp_path):
    write_run(tmp_path, "cppo", 1, [*FLAT, 0.5], experiment="study", reward=0.4, num_metrics=12)
    (only,) = m.courses(analyse(load([tmp_path])))["cppo"]
    rows = [json.loads(line) for line in next(tmp_path.rglob("metrics.jsonl")).read_text().splitlines()]
    assert only.drift == pytest.approx([row["trust/div_mean"] * row["response_length/mean"] for row in rows])
    assert np.isnan(only.settled("correlation"))


def test_families_and_pairs(results):
    cells = study_cells(results)
    rules, variants = drift_families(cells)
    assert list(rules.cells) == ["grpo", "cppo"]
    assert list(variants.cells) == ["cppo", "cppo_no_prefix_budget", "cppo_reversed"]
    found = [(pair.one, pair.other, pair.among) for pair in drift_pairs([rules, variants]) if pair.metric == "late"]
    assert found == [("grpo", "cppo", 1), ("cppo_no_prefix_budget", "cppo", 2), ("cppo_reversed", "cppo", 2)]


@pytest.fixture(scope="module")
def out(runs):
    list(pack([runs], runs.parent / "packs"))
    main(["--study", str(runs.parent / "packs"), "--out", str(runs.parent / "out"), "--format", "md,svg"])
    return runs.parent / "out"


def test_tables(out):
    cells = text(out, "table_drift.md")
    assert "| CPPO | 3 | 62.0 ± 2.5 | 56.2 ± 7.8 | 0/3 (0 to 71 %) | 10.0 ± 0.0 | 8.0 ± 0.0 | 1.38 |" in cells
    pairs = text(out, "table_drift_pairs.md")
    assert "| ablations on it, late reward: CPPO, no prefix budget − CPPO | −20.0 |" in pairs
    answers = text(out, "table_mechanism.md")
    assert "| question | drift testbed |" in answers
    assert re.search(r"first half's divergence .* 0\.24 \(0\.2\d to 0\.2\d\), 6 runs \|", answers)
    assert "| budget, with less without: S_T | −1.000 ± 0.000 |" in answers


def test_figures(out):
    panels = json.loads(text(out, "fig_mechanism.json"))["panels"]
    assert [panel["title"] for panel in panels][2:] == ["across runs", "within runs", "suffix ratios"]
    assert len(json.loads(text(out, "fig_drift_dots.json"))["panels"]) == 2


def test_words(out):
    words = text(out, "study_verdict.md")
    assert "# The testbed where prefixes drift" in words
    assert "CPPO, no prefix budget 42.0 ± 2.5 (−20.0, from" in words
    assert "**On the drift testbed: not supported** (within runs: no, across runs: no, suffix: yes, budget: yes)." in words


def test_an_absent_testbed_is_said_with_its_command():
    command = COMMAND.format("drift")
    assert command in drift_texts(drift_families({}), {"drift testbed": m.mechanism(None)})[0]
    assert command in table_drift({}, m.mechanism(None)).notes[0]
    assert command in table_mechanism({"drift testbed": m.mechanism(None)}).notes[0]


def test_a_testbed_is_selected_without_rules_or_their_scores(runs, capsys):
    selection.main([str(runs)])
    printed = capsys.readouterr().out
    assert not any(name in printed for name in ("cppo", "CPPO", "grpo", "GRPO"))
    (line,) = [line for line in printed.splitlines() if line.startswith("| runs |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # base 25, best evaluation 0.5 + 3/32; late reward varies by 0.01 a seed; all four presets have a δ_b
    assert cells[1] == "58" and cells[4] == "2.0%" and cells[6:9] == ["25.0", "34.4", "1.0"]


def test_seed_noise_is_pooled_inside_rules():
    assert selection.pooled_sd([np.array([0.1, 0.3]), np.array([0.7, 0.7]), np.array([0.5])]) == pytest.approx(0.1)
    assert np.isnan(selection.pooled_sd([np.array([0.5])]))
