"""The stress map on made-up runs whose every number is known, through packs and back."""

import json
from pathlib import Path

import pytest
import yaml
from made_up import write_run
from test_study import FLAT, text

from analysis.__main__ import main
from analysis.load import load
from analysis.packs import pack
from analysis.results import analyse
from analysis.runs import InputError
from analysis.study.protocol import COMMAND
from analysis.study.stress import AXES, StressMap, hashable, place_of, stress_map, table_stress, unmatched
from analysis.study.stress_verdict import loses_most, stress_texts
from evals.chain import TRAIN_OPERATIONS

# Late rewards of seeds 1 and 2; a cross after a run that collapsed. pg_is has no run at lag 0, grpo's seed 2 none at lag 8.
DEFAULT = {"grpo_tuned": (0.50, 0.52), "cppo_tuned": (0.60, 0.62), "pg_is": (0.40, 0.44)}
LAG0 = {"grpo_tuned": (0.55, 0.57), "cppo_tuned": (0.70, 0.70)}
LAG8 = {"grpo_tuned": (0.30,), "cppo_tuned": (0.50, 0.56), "pg_is": (0.10, 0.04)}
SHORT = {"grpo_tuned": (0.48, 0.50), "cppo_tuned": (0.20, 0.10), "pg_is": (0.43, 0.47)}
COLLAPSED = {("lag8", "pg_is", 1), ("lag8", "pg_is", 2), ("short", "cppo_tuned", 1)}
POINTS = [
    ("", DEFAULT, {}), ("lag0", LAG0, {"rollout.lag": 0}), ("lag8", LAG8, {"rollout.lag": 8}),
    ("short", SHORT, {"data.operations": [2, 5]}),
]  # fmt: skip
SWEEP = yaml.safe_load(Path("conf/experiment/stress.yaml").read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
NAMES = [name for name in SWEEP["stress"].split(",") if name != "none"]


def write_stress(root, points=POINTS) -> None:
    for stress, cells, changed in points:
        for preset, rewards in cells.items():
            for seed, reward in enumerate(rewards, start=1):
                step = 20 if (stress, preset, seed) in COLLAPSED else None
                write_run(
                    root, preset, seed, [*FLAT, 0.5 + seed / 32], experiment="stress", rule=preset.removesuffix("_tuned"),
                    reward=reward, collapse_step=step, stress=stress, changed=changed,
                )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("stress")
    write_stress(root / "runs")
    return root / "runs"


@pytest.fixture(scope="module")
def results(runs):
    return analyse(load([runs]))


@pytest.fixture(scope="module")
def stress(results):
    return stress_map(results)


def test_axes_are_those_of_the_shipped_points_with_their_defaults():
    read = lambda path: yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    defaults = {"train": read("conf/train/matched.yaml"), "rollout": read("conf/rollout/transformers.yaml"), "data": {}}
    for axis in AXES:
        group, key = axis.key.split(".")
        shipped = [read(f"conf/stress/{name}.yaml") for name in NAMES]
        away = {hashable(point[group][key]) for point in shipped if key in point.get(group, {})}
        assert away == set(axis.levels) - {axis.default} and len(axis.levels) == 3, axis
        assert defaults[group].get(key) == axis.default, axis
    assert (TRAIN_OPERATIONS[0], TRAIN_OPERATIONS[-1]) == (4, 8) and AXES[-1].default_place == ("operations", "4–8")


def test_cells_stand_at_their_level_and_the_defaults_in_each_axis(stress):
    assert len(stress.cells) == 15 and len(stress.away) == 10
    assert all(stress.cells[axis.default_place] is stress.default for axis in AXES)
    assert {place for place, cells in stress.away.items() if cells} == {("lag", "0"), ("lag", "8"), ("operations", "2–5 (short)")}
    assert stress.presets == ["grpo_tuned", "pg_is", "cppo_tuned"] and stress.seeds == [1, 2]
    assert list(stress.texts.values()) == ["GRPO", "PG-IS", "CPPO"]


def test_changes_are_by_seed_and_a_rule_breaks_only_where_both_runs_collapse(stress):
    assert stress.changes(("lag", "8"), "cppo_tuned") == pytest.approx([-0.10, -0.06])
    assert stress.changes(("lag", "8"), "grpo_tuned") == pytest.approx([-0.20])
    assert len(stress.changes(("lag", "0"), "pg_is")) == 0
    broken = [(place, preset) for place in stress.away for preset in stress.presets if stress.breaks(place, preset)]
    assert broken == [(("lag", "8"), "pg_is")]
    fragile = StressMap({place: stress.cells["lag", "8"] for place in stress.cells})  # collapsed at the default too
    assert not fragile.breaks(("lag", "8"), "pg_is")
    assert "Every run of PG-IS collapsed at the default already." in stress_texts(fragile)[2]
    half = StressMap({place: stress.cells["operations", "2–5 (short)"] for place in stress.cells})  # one run of CPPO's two
    assert "collapsed at the default already" not in stress_texts(half)[2]


def test_the_rule_that_loses_most_does_so_in_every_seed():
    assert loses_most({"a": [-0.3, -0.1], "b": [-0.2, 0.0]}, 2) == "a"
    assert loses_most({"a": [-0.3, -0.1], "b": [-0.2, -0.2]}, 2) is None
    assert loses_most({"a": [0.1, 0.1], "b": [0.2, 0.2]}, 2) is None  # nothing is lost
    assert loses_most({"a": [-0.3], "b": [-0.2, 0.0], "c": [-0.1, 0.1]}, 2) is None  # b gains nothing, but loses nothing either
    assert loses_most({"a": [-0.3], "b": [-0.2]}, 1) is None


def test_points_off_the_map_are_refused_and_other_differences_are_red(results, tmp_path):
    assert unmatched(results) == "" and unmatched(None) == ""
    write_stress(tmp_path / "two", [("both", {"pg_is": (0.5,)}, {"rollout.lag": 8, "rollout.precision": "float16"})])
    write_stress(tmp_path / "third", [("lag6", {"pg_is": (0.5,)}, {"rollout.lag": 6})])
    write_stress(tmp_path / "longer", [("", DEFAULT, {}), ("lag8", LAG8, {"rollout.lag": 8, "data.name": "other"})])
    for name in ("two", "third"):
        with pytest.raises(InputError, match="is no point of the stress map"):
            place_of(analyse(load([tmp_path / name])).groups[0])
    warning = unmatched(analyse(load([tmp_path / "longer"])))
    assert warning.startswith("MIXED SETTINGS in the stress map: data.name = ") and "lag" not in warning


@pytest.fixture(scope="module")
def out(runs):
    list(pack([runs], runs.parent / "packs"))
    main(["--study", str(runs.parent / "packs"), "--out", str(runs.parent / "out"), "--format", "md,csv,svg"])
    return runs.parent / "out"


def test_table(out):
    table = text(out, "table_stress.md")
    assert "| setting | GRPO | PG-IS | CPPO |" in table
    assert "| lag: 4 | 51.0 / 54.7, 0/2 | 42.0 / 54.7, 0/2 | 61.0 / 54.7, 0/2 |" in table  # held-out: 17/32 and 18/32
    assert "| lag: 8 | 30.0 / 53.1, 0/1 | **7.0 / 54.7, 2/2** | 53.0 / 54.7, 0/2 |" in table
    assert "| lag: 0 | 56.0 / 54.7, 0/2 | missing | 70.0 / 54.7, 0/2 |" in table
    assert "| learning rate: 4e-4 | missing | missing | missing |" in table


def test_figure(out):
    panels = json.loads(text(out, "fig_stress.json"))["panels"]
    assert [panel["title"] for panel in panels] == [*(axis.name for axis in AXES), "collapsed runs"]
    assert [len(series["run_ids"]) for series in panels[2]["series"]] == [5, 4, 6]  # lag: GRPO 2+2+1, PG-IS 0+2+2, CPPO 2+2+2
    assert panels[-1]["rows"] == ["GRPO", "PG-IS", "CPPO"] and len(panels[-1]["run_ids"]) == 21


def test_words(out):
    words = text(out, "study_verdict.md")
    assert "Breaks (both runs collapse there, none at the default): PG-IS at lag 8; no other rule." in words
    assert "At the default 0/6 (0 to 46 %)." in words
    assert "all points together: GRPO 0/5 (0 to 52 %), PG-IS 2/4 (7 to 93 %) and CPPO 1/6 (0 to 64 %)." in words
    assert "some rule would still lose most in every seed at one level in 3." in words  # three rules, two seeds
    lag8 = (
        "- 8: PG-IS −35.0 (−30.0 and −40.0), GRPO −20.0 (−20.0) and CPPO −8.0 (−10.0 and −6.0). PG-IS loses most in every seed."
    )
    assert f"{lag8} Collapsed 2/5 (5 to 85 %): PG-IS 2/2." in words
    assert "- 0: GRPO +5.0 (+5.0 and +5.0) and CPPO +9.0 (+10.0 and +8.0). Collapsed 0/4 (0 to 60 %)." in words
    assert "- 4e-4: missing." in words
    assert "Missing runs: updates per batch 2 (6 of 6)" in words and "lag 0 (2 of 6), lag 8 (1 of 6)" in words


def marked_for_mismatch(folder: Path) -> None:
    status = json.loads((folder / "status.json").read_text())
    status |= {"collapse_step": 12, "collapse_reason": "mismatch KL over 10 times its start"}
    (folder / "status.json").write_text(json.dumps(status))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"mismatch/k3": 0.0 if row["step"] < 12 else 1e-3} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_run_marked_for_its_mismatch_collapsed_only_if_it_fails_otherwise(tmp_path):
    thresholds = yaml.safe_load(Path("conf/train/matched.yaml").read_text(encoding="utf-8"))["collapse"]
    changed = {"rollout.precision": "float16", "train.collapse": thresholds}
    for seed, curve in enumerate(([0.25, 0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.2, 0.2, 0.2]), start=1):
        options = {"experiment": "stress", "rule": "grpo", "reward": 0.4, "stress": "float16"}
        marked_for_mismatch(write_run(tmp_path, "grpo_tuned", seed, curve, **options, changed=changed))
    stress = stress_map(analyse(load([tmp_path])))
    (cell,) = stress.cells["precision", "float16"].values()
    assert [run_id.split("/")[-1][:6] for run_id in cell.collapsed] == ["seed=2"] and len(cell.mismatched) == 2
    shown = dict(table_stress(stress).rows)["precision: float16"][0].text
    assert shown.endswith(", 1/2 (2 m)")


def test_an_absent_map_is_said_with_its_command():
    assert stress_texts(StressMap()) == [f"missing: no finished runs of the stress map. Made by: {COMMAND.format('stress')}"]


def test_groups_are_named_by_their_points_the_default_first(results):
    assert results.group_labels == ["default", "lag0", "lag8", "short"]
