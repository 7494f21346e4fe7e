"""The study's tables on a made-up study whose every number is known, through packs and back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from made_up import write_run

from analysis.__main__ import main
from analysis.load import load
from analysis.packs import decode, encode, pack, pack_files, to_columns, to_rows
from analysis.results import analyse
from analysis.runs import Group, InputError, read_run
from analysis.study.cells import families, study_cells
from analysis.study.contrasts import collapse_pairs, pairs, seeds_needed, tuned_gaps
from analysis.study.fresh import hits, predict, predictions, signs
from analysis.study.protocol import grid, incomplete, rows, swept
from analysis.study.tuning import first_near_best, tuning_rows
from analysis.study.verdict import answer
from harness.files import write_atomic
from harness.store import RunFolder

# Rewards of each preset by seed. Its delta is its setting; PPO's tuning keeps 0.2, GRPO's moves to 0.1.
TUNING = {
    "ppo": (0.2, [0.70, 0.70]), "ppo_eps01": (0.1, [0.700, 0.708]), "ppo_eps03": (0.3, [0.69, 0.69]),
    "ppo_eps05": (0.5, [0.6, 0.6]), "grpo": (0.2, [0.5, 0.5]), "grpo_eps01": (0.1, [0.5, 0.7]),
    "grpo_eps03": (0.3, [0.55, 0.55]), "grpo_eps04": (0.4, [0.4, 0.4]), "dppo": (0.15, [0.5, 0.5]),
}  # fmt: skip
STUDY = {
    "ppo": (0.2, [0.70, 0.72, 0.74]),
    "grpo": (0.2, [0.50, 0.52, 0.54]),
    "grpo_tuned": (0.1, [0.60, 0.63, 0.66]),
    "pg": (0.0, [0.71, 0.40, 0.09]),
}
FRESH = {"ppo": (0.2, [0.79, 0.79, 0.79]), "grpo": (0.2, [0.55, 0.55, 0.55]), "grpo_tuned": (0.1, [0.7, 0.72, 0.74])}
FLAT = [0.25, 0.5, 0.5, 0.5]  # the last evaluation follows: 1/32 apart by seed


def write_part(root, experiment: str, presets: dict, first_seed: int) -> None:
    for preset, (delta, rewards) in presets.items():
        for i, reward in enumerate(rewards):
            write_run(
                root, preset, first_seed + i, [*FLAT, 0.5 + i / 32], experiment=experiment, rule=preset.split("_")[0],
                delta=delta, reward=reward, collapse_step=20 if preset == "pg" else None,
            )  # fmt: skip


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    for experiment, presets, first in [("tuning", TUNING, 101), ("study", STUDY, 1), ("study_fresh", FRESH, 11)]:
        write_part(root / "runs", experiment, presets, first)
    list(pack([root / "runs"], root / "packs"))
    return root / "packs"


@pytest.fixture(scope="module")
def parts(packs):
    """(tuning rows, families, fresh cells)"""
    results = {name: analyse(load([packs.parent / "runs" / name])) for name in ("tuning", "study", "study_fresh")}
    found = tuning_rows(results["tuning"])
    chosen = {row.rule: row.chosen_settings for row in found}
    return found, families(study_cells(results["study"]), chosen), study_cells(results["study_fresh"])


def test_grid_is_that_of_the_experiment_with_the_published_preset_first():
    assert len(grid().presets) == 9 and all(len(presets) == 4 for presets in grid().presets.values())
    assert all(presets[0] == rule for rule, presets in grid().presets.items())
    assert grid().seeds == [101, 102]
    assert swept("study_fresh") == swept("study") | {"seed": ["11", "12", "13", "14", "15"]}
    assert rows(["trm_max", "trm_max_x", "trm", "trm_y"]) == {"trm_max": ["trm_max", "trm_max_x"], "trm": ["trm", "trm_y"]}


def test_a_setting_near_the_best_that_stands_further_left_is_chosen():
    assert first_near_best({"a": 0.69, "b": 0.7, "c": 0.704, "d": 0.6}) == "b"
    assert first_near_best({"a": 0.6, "b": 0.7, "c": 0.706}) == "c"


def test_tuning_chooses_by_the_rule_and_not_before_all_runs_are_there(parts):
    winners = {row.rule: row.winner for row in parts[0]}
    assert winners == dict.fromkeys(grid().presets) | {"ppo": "ppo", "grpo": "grpo_eps01"}


def test_families_share_the_runs_of_settings_that_tuning_kept(parts):
    published, tuned = parts[1]
    assert list(published.cells) == ["grpo", "ppo", "pg"]
    assert {rule: cell.preset for rule, cell in tuned.cells.items()} == {"ppo": "ppo", "grpo": "grpo_tuned", "pg": "pg"}
    assert "tuning chose the published setting" in tuned.cells["ppo"].note
    assert "nothing to tune" in tuned.cells["pg"].note and tuned.cells["grpo"].note == ""
    assert "DPPO has no finished runs at its tuned setting" in tuned.absent


def test_a_tuned_preset_that_is_not_the_winner_is_marked(parts):
    cells = {cell.preset: cell for family in parts[1] for cell in family.cells.values()}
    _, tuned = families(cells, {"grpo": {"rule": "grpo", "delta": 0.3}, "ppo": {}})
    assert tuned.cells["grpo"].note == "NOT the setting that tuning chose"
    assert "PPO has no finished runs at its tuned setting" in tuned.absent


def test_values_of_a_cell(parts):
    cell = parts[1][0].cells["ppo"]
    assert cell.values["late"] == pytest.approx([0.70, 0.72, 0.74])
    assert cell.values["final"] == pytest.approx([0.5, 0.53125, 0.5625])
    assert cell.mean("late").half_width == pytest.approx(scipy.stats.t.ppf(0.975, 2) * 0.02 / 3**0.5)
    assert cell.mean("late", without=1).estimate == pytest.approx(0.73)
    assert parts[1][0].cells["pg"].num_collapsed == 3


def test_pairs_by_welch_and_bonferroni(parts):
    found = {(pair.one, pair.other): pair for pair in pairs(parts[1][0], "late")}
    pair = found["grpo", "ppo"]
    half = scipy.stats.t.ppf(1 - 0.05 / 3 / 2, 4) * 0.02 * (2 / 3) ** 0.5  # three pairs; equal spreads: 2 + 2 degrees of freedom
    assert (pair.low, pair.high) == pytest.approx((-0.2 - half, -0.2 + half))
    assert pair.verdict == "lower" and pair.told_apart
    assert found["ppo", "pg"].verdict == "cannot be told apart"
    assert all(pair.verdict == "cannot be told apart" for pair in pairs(parts[1][0], "final"))


def test_seeds_needed_are_the_fewest():
    one, other = np.array([0.5, 0.6, 0.7]), np.array([0.45, 0.5, 0.55])
    df = lambda n: (n - 1) * (0.01 + 0.0025) ** 2 / (0.01**2 + 0.0025**2)
    bound = lambda n: scipy.stats.t.ppf(1 - 0.01 / 2, df(n)) + scipy.stats.t.ppf(0.8, df(n))
    enough = lambda n: bound(n) * (0.0125 / n) ** 0.5 <= 0.1
    needed = seeds_needed(one, other, 0.01)
    assert enough(needed) and not enough(needed - 1)
    assert seeds_needed(one, one, 0.05) is None and seeds_needed(one[:1], other, 0.05) is None
    assert seeds_needed(np.full(3, 0.5), np.full(3, 0.6), 0.05) == 2


def test_tuned_minus_published_is_paired_by_seed(parts):
    (one,) = tuned_gaps(*parts[1], "late").values()  # of GRPO alone: +0.10, +0.11, +0.12
    assert one.gap.estimate == pytest.approx(0.11)
    assert one.gap.half_width == pytest.approx(scipy.stats.t.ppf(0.975, 2) * 0.01 / 3**0.5)
    assert one.p_holm == pytest.approx(scipy.stats.ttest_1samp([0.10, 0.11, 0.12], 0).pvalue)


def test_collapsed_shares_by_fisher_and_holm(parts):
    found = {(c.one, c.other): c for c in collapse_pairs(parts[1][0])}
    assert found["ppo", "pg"].p == pytest.approx(2 / 20)  # 0 of 3 against 3 of 3: two of the 20 tables
    assert found["ppo", "pg"].p_holm == pytest.approx(3 * 2 / 20)


def test_predictions(parts):
    _, found, fresh = parts
    half = scipy.stats.t.ppf(0.975, 2) * 0.02 * (1 / 3 + 1 / 3) ** 0.5
    one = predict(found[0].cells["ppo"], fresh["ppo"], "late")
    assert (one.low, one.high) == pytest.approx((0.72 - half, 0.72 + half))
    assert (one.fresh.estimate, one.inside) == (pytest.approx(0.79), True)  # half is 0.0703
    made = predictions(found, fresh)  # PPO once, though it stands in both families; PG has no fresh runs
    assert list(made["late"]) == ["grpo", "ppo", "grpo_tuned"]
    total = hits(list(made["late"].values()))
    assert (total.inside, total.total, total.p) == (3, 3, 1.0)


def test_signs_of_what_the_study_tells_apart(parts):
    _, found, fresh = parts
    of = {(one.pair.family.name, one.pair.one, one.pair.other): one for one in signs(found, fresh)}
    assert of["published", "grpo", "ppo"].kept and of["published", "grpo", "ppo"].fresh.estimate == pytest.approx(-0.24)
    assert all(one.fresh is None for key, one in of.items() if "pg" in key)


def test_answer_by_what_the_protocol_counts(parts):
    _, found, fresh = parts
    swapped = fresh | {"ppo": fresh["grpo"], "grpo": fresh["ppo"]}
    assert answer(found[0], found, fresh).startswith("**The harness tells rules apart**: 1 pair of published cells differs")
    assert answer(found[0], found, swapped).startswith("**The harness does not tell rules apart**: 1 pair")
    assert answer(found[0], found, {}).startswith("**Not decided yet**: 1 pair")
    alone = [replace(family, cells={"ppo": family.cells["ppo"]}) for family in found]
    assert answer(alone[0], alone, fresh) == (
        "**The harness does not tell rules apart**: no pair of published cells differs in late reward."
    )


@pytest.fixture(scope="module")
def out(packs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    main(["--study", str(packs), "--out", str(folder), "--format", "md,csv,svg"])
    return folder


def text(folder, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def test_each_experiment_gets_its_tables_and_the_study_its_own(out):
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["study", "study_fresh", "tuning"]
    assert (out / "study" / "table1.md").exists() and (out / "tuning" / "fig_position_divergence.svg").exists()
    assert "| PPO | delta = 0.2 | **0.7000** | 0.7000 | 0.7000 | 51.6 | 0/2 | yes |" in text(out, "table_tuning.md")
    assert "| tuned: GRPO | 3 | 63.0 ± 7.5 | 53.1 ± 7.8 | 0/3 (0 to 71 %) |" in text(out, "table_study.md")
    assert "| published, late reward: GRPO − PPO | −20.0 |" in text(out, "table_study_pairs.md")
    assert "| GRPO | delta: 0.2 → 0.1 | 3 | +11.0 | +8.5 to +13.5 |" in text(out, "table_tuned.md")
    assert "| both: PPO | 72.0 ± 5.0 | 65.0 to 79.0 | 79.0 | yes |" in text(out, "table_fresh.md")
    assert "| published: GRPO, PG | 0/3 | 3/3 | 0.1 | 0.3 |" in text(out, "table_study_collapse.md")
    assert "No fresh runs yet: both: PG." in text(out, "table_fresh.md")


def test_verdict_in_words(out):
    words = text(out, "study_verdict.md")
    assert "**The harness tells rules apart**: 1 pair of published cells differs in late reward, and 1 of 1 keep" in words
    assert "- **PPO** 72.0 ± 5.0: higher than GRPO (+20.0, from +13.5 to +26.5); cannot be told apart from PG (+32.0" in words
    assert "PG 3/3 (29 to 100 %); none of the others. No two shares can be told apart (smallest p: 0.1, Holm's 0.3)." in words
    assert "GRPO +11.0 (from +8.5 to +13.5" in words and "The same setting in both: PPO and PG." in words
    assert "Tuning left the published setting of PPO. It chose another setting for GRPO (grpo_eps01)." in words


def test_figures_name_their_runs(out):
    figure = json.loads(text(out, "fig_study_dots.json"))
    tuned = figure["panels"][0]["series"][1]
    assert tuned["label"] == "tuned" and len(tuned["run_ids"]) == 9
    curves = json.loads(text(out, "fig_study_curves.json"))
    assert [series["label"] for series in curves["panels"][1]["series"]] == ["GRPO", "PPO", "PG"]


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_packs_give_the_same_bytes_from_any_folder(packs, out, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "copy").symlink_to(packs)
    main(["--study", "../copy", "--out", "again", "--format", "md,csv,svg"])
    one, two = files(out), files(tmp_path / "elsewhere" / "again")
    assert one.keys() == two.keys() and [name for name in one if one[name] != two[name]] == []
    assert not [name for name, content in one.items() if b"/tmp" in content or str(packs.parent).encode() in content]


def test_missing_parts_are_said(tmp_path):
    write_part(tmp_path / "runs", "study", {"ppo": (0.2, [0.7, 0.8]), "pg": (0.0, [0.1])}, 1)
    list(pack([tmp_path / "runs"], tmp_path / "packs"))
    main(["--study", str(tmp_path / "packs"), "--out", str(tmp_path / "out"), "--format", "md"])
    assert "missing: no finished runs of fresh seeds" in text(tmp_path / "out", "table_fresh.md")
    assert "Runs are missing, nothing chosen yet: PPO, GRPO" in text(tmp_path / "out", "table_tuning.md")
    assert "PPO has no finished runs at its tuned setting" in text(tmp_path / "out", "table_study.md")
    assert "missing: no tuning runs" in text(tmp_path / "out", "study_verdict.md")
    assert "INCOMPLETE: 87 of 90 runs of study are missing, first ppo seed 3." in text(tmp_path / "out", "study_verdict.md")


def test_a_run_of_the_stress_map_is_missed_at_its_own_point(tmp_path):
    run, plan = read_run(RunFolder(write_run(tmp_path, "ppo", 1, FLAT, steps=21))), swept("stress")
    at = lambda stress: Group("stress", "chain", stress if stress != "none" else "")
    places = [(at(stress), method, seed) for stress in plan["stress"] for method in plan["method"] for seed in (1, 2)]
    runs = [replace(run, group=group, method=method, seed=seed) for group, method, seed in places]
    assert incomplete("stress", runs) == ""
    runs.remove(replace(run, group=at("lag8"), method="dppo_tuned", seed=2))
    assert incomplete("stress", runs) == "INCOMPLETE: 1 of 154 runs of stress are missing, first dppo_tuned seed 2 at lag8."


def test_a_faulty_pack_is_named_wherever_it_lies(packs, tmp_path):
    packed = decode(pack_files(packs)[0])
    packed["evals"] = to_columns(to_rows(packed["evals"])[:-1])
    path = tmp_path / "packs" / "deeper" / "renamed.json.gz"
    write_atomic(path, encode(packed))
    with pytest.raises(InputError) as error:
        main(["--study", str(tmp_path / "packs"), "--out", str(tmp_path / "out")])
    assert str(error.value).startswith(f"{path}/evals.jsonl: rows are missing of the evaluations at steps 28")


def test_without_the_study_itself(tmp_path):
    write_part(tmp_path / "runs", "tuning", {"ppo": (0.2, [0.7, 0.8])}, 101)
    list(pack([tmp_path / "runs"], tmp_path / "packs"))
    main(["--study", str(tmp_path / "packs"), "--out", str(tmp_path / "out"), "--format", "md,svg"])
    for name in ("table_study.md", "table_study_pairs.md", "table_tuned.md", "table_fresh.md", "study_verdict.md"):
        assert "missing: no finished runs of the study" in text(tmp_path / "out", name), name
    assert "## fig_study_dots (missing)" in text(tmp_path / "out", "index.md")


def test_parts_under_other_settings_are_red(tmp_path):
    write_part(tmp_path / "runs", "study", {"ppo": (0.2, [0.7, 0.8])}, 1)
    write_run(tmp_path / "runs", "ppo", 11, [*FLAT, 0.5], experiment="study_fresh", lr=1e-4)
    list(pack([tmp_path / "runs"], tmp_path / "packs"))
    main(["--study", str(tmp_path / "packs"), "--out", str(tmp_path / "out"), "--format", "md"])
    assert "MIXED SETTINGS between study, study_ablations and study_fresh: train.lr" in text(tmp_path / "out", "table_fresh.md")
