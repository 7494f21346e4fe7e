"""Figures by their data: which series, which numbers, which runs; and what is missing says so."""

import json

import numpy as np
import pytest
from made_up import VARIANT_SETTINGS, write_lines, write_run

from analysis.figures import FIGURES
from analysis.figures.curves import at_common_windows, band, windowed
from analysis.figures.draw import draw, legend_columns
from analysis.figures.plot import Matrix, Missing, Plot, sidecar
from analysis.load import load
from analysis.results import analyse

NEVER_HERE = {"fig3", "fig5", "fig6", "fig_agreement"}  # need traces, variants, recorded batches


def by_label(panel) -> dict:
    return {series.label: series for series in panel.series}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_or_names_what_is_missing(results, name):
    figure = FIGURES[name](results)
    assert isinstance(figure, Missing) == (name in NEVER_HERE)
    if isinstance(figure, Missing):
        assert figure.what and figure.command.startswith("python -m harness")
    else:
        assert all(panel_ids(panel) for panel in figure.panels)
    drawn = draw(figure)
    drawn.canvas.draw()
    ticks = [tick for ax in drawn.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_ticklabels(which="both")]
    assert not any("$" in tick.get_text() for tick in ticks)  # a formula, shown as it is written
    width, height = drawn.get_size_inches()
    assert width in (3.4, 7.0) and height > 1
    assert sidecar(figure)["title"]


def panel_ids(panel) -> list[str]:
    return panel.run_ids if isinstance(panel, Matrix) else [run_id for series in panel.series for run_id in series.run_ids]


def test_score_curves(results):
    (panel,) = FIGURES["fig4"](results).panels
    curves = by_label(panel)
    assert list(curves) == ["GRPO", "CISPO", "DPPO", "CPPO"]
    np.testing.assert_allclose(curves["CPPO"].x, [0, 7, 14, 21, 28])
    np.testing.assert_allclose(curves["CPPO"].mean, [25, 50, 62.5, 75, 75])
    half = 4.302653 * 6.25 / 3**0.5
    np.testing.assert_allclose(curves["CPPO"].high[-1], 75 + half, rtol=1e-6)
    assert len(curves["DPPO"].lines) == 2


def test_collapse_stands_on_the_run(results):
    (panel,) = FIGURES["fig4"](results).panels
    line = by_label(panel)["CISPO"].lines[0]  # collapsed at step 11; evaluations 50 at 7 and 12.5 at 14
    assert line.collapse == pytest.approx((11, 50 - 37.5 * 4 / 7))
    assert all(line.collapse is None for line in by_label(panel)["CPPO"].lines)


def test_tokens_and_hours_axes(results):
    (panel,) = FIGURES["fig4_tokens"](results).panels
    np.testing.assert_allclose(by_label(panel)["GRPO"].x, np.array([0, 7, 14, 21, 28]) * 11000 / 1e6)
    (panel,) = FIGURES["fig4_device_hours"](results).panels
    np.testing.assert_allclose(by_label(panel)["GRPO"].x, np.array([0, 7, 14, 21, 28]) * 0.8 / 60)


def test_divergence_by_position_and_its_threshold(results):
    mean, top = FIGURES["fig2"](results).panels
    np.testing.assert_allclose(by_label(mean)["GRPO"].mean, 0.004 + 0.0005 * np.arange(10))
    np.testing.assert_allclose(by_label(top)["GRPO"].mean, 0.04 + 0.005 * np.arange(10))
    cap = by_label(mean)["δ / w_t"]
    np.testing.assert_allclose(cap.mean[0], 0.15 / (1 - 0.2 * 0.05))


def test_budget_figure(results):
    budget, share = FIGURES["fig7"](results).panels
    np.testing.assert_allclose(by_label(budget)["CPPO"].mean[:2], [0.0201, 0.0202])
    np.testing.assert_allclose(by_label(share)["CPPO"].mean, 100 * 0.004 / 0.012)


def test_ablation_panels_go_by_settings_not_by_names(tmp_path):
    for method in ("cppo", "dppo", *(VARIANT_SETTINGS.keys() - {"cppo_wmin06_bmin01"})):
        write_run(tmp_path, method, 1, [0.5] * 5)
    results = analyse(load([tmp_path]))
    panels = {panel.title: list(by_label(panel)) for panel in FIGURES["fig5"](results).panels}
    assert panels == {
        "chain: position weight": ["CPPO", "DPPO", "CPPO, no position weight", "CPPO, reversed weights"],
        "chain: prefix budget": ["CPPO", "DPPO", "CPPO, no prefix budget", "CPPO, fixed δ_b = 0.03"],
        "chain: shuffled weights": ["CPPO", "DPPO", "CPPO, shuffled weights"],
    }
    figure = FIGURES["fig6"](results)
    assert [panel.title for panel in figure.panels] == ["chain: w_min", "chain: prefix budget δ_b", "chain: divergence score"]
    assert "Missing panels: TRM Max ∧ Avg as control, w_min × δ_b,min; made by: python -m harness" in figure.notes[-1]


def test_grid_of_two_settings(tmp_path):
    for method, share in (("cppo", 0.5), ("cppo_wmin06", 0.25), ("cppo_wmin06_bmin01", 0.75)):
        write_run(tmp_path, method, 1, [share] * 5)
    grid = FIGURES["fig6"](analyse(load([tmp_path]))).panels[-1]
    assert (grid.rows, grid.columns) == (["w_min 0.6", "w_min 0.8"], ["δ_b,min 0.01", "δ_b,min 0.02"])
    np.testing.assert_allclose(grid.values, [[75, 25], [np.nan, 50]])


def test_one_colour_per_method_in_every_figure(results):
    colours = {}
    for make in FIGURES.values():
        figure = make(results)
        for panel in figure.panels if isinstance(figure, Plot) else []:
            for series in getattr(panel, "series", []):
                colours.setdefault(series.label, set()).add(series.colour)
    assert all(len(used) == 1 for used in colours.values())
    assert len({next(iter(colours[name])) for name in ("GRPO", "CISPO", "DPPO", "CPPO")}) == 4


def test_running_runs_are_dotted_and_outside_the_mean(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "cppo", 2, [0.25] * 5, state="running", step=14)
    (panel,) = FIGURES["fig4"](analyse(load([tmp_path]))).panels
    (series,) = panel.series
    assert [line.finished for line in series.lines] == [True, False]
    np.testing.assert_allclose(series.mean, [50] * 5)
    np.testing.assert_allclose(series.lines[1].x, [0, 7, 14])


def test_nothing_finished_still_draws_what_there_is(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 2, state="running", step=9)
    results = analyse(load([tmp_path]))
    for make in FIGURES.values():
        draw(make(results))
    assert len(FIGURES["fig4"](results).panels[0].series[0].x) == 0


def test_pairwise_matrix(results):
    (panel,) = FIGURES["fig_pairwise"](results).panels
    i, j = panel.rows.index("CPPO"), panel.rows.index("CISPO")
    assert panel.values[i, j] == pytest.approx(100 * (0.7083333 - 0.0694444), abs=1e-4)
    assert panel.texts[i][j] == "+63.9*" and panel.texts[j][i] == "−63.9*"
    assert np.isnan(panel.values[i, i])


def test_profiles_start_at_everything_and_fall(results):
    (panel,) = FIGURES["fig_profiles"](results).panels
    for series in panel.series:
        assert series.mean[0] == pytest.approx(100) and (np.diff(series.mean) <= 1e-9).all()


def test_power_curve(results):
    (panel,) = FIGURES["fig_power"](results).panels
    assert panel.marks == [(2.0, "now: 2")]  # DPPO has two seeds
    assert by_label(panel)["10 points"].mean[1] > by_label(panel)["2 points"].mean[1]
    assert by_label(panel)["5 points"].x[1] == 3


def test_position_map(results):
    panel = next(panel for panel in FIGURES["fig_position_masking"](results).panels if panel.title == "CPPO")
    assert panel.values.shape == (10, 28)
    np.testing.assert_allclose(panel.values[:, 5], 0.01 + 0.001 * np.arange(10))


@pytest.mark.filterwarnings("error")
def test_a_position_map_of_one_step_has_a_column_for_it(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5, 0.5], steps=1, every=1)
    drawn = draw(FIGURES["fig_position_masking"](analyse(load([tmp_path]))))
    assert drawn.axes[0].get_xlim() == (0.5, 1.5)


def traced(drift: float) -> dict:
    """Three tokens: w is a list, c and Z are one number for all."""
    aux = {"w": [1.0, 0.8, 0.5], "c": 0.1, "S_prev": [0.0, 0.1, drift], "Z": 0.25}
    return {"token_ids": [1, 2, 3], "divergence": [0.0, None, 0.2], "rules": {"own": {"aux": aux}}}


def test_threshold_of_the_calmest_and_the_most_drifting_response(tmp_path):
    folder = write_run(tmp_path, "cppo", 1, [0.5] * 5)
    (folder / "traces").mkdir()
    for step, drifts in ((7, [9.0]), (14, [0.5, 0.2, 0.75])):  # only the last step counts
        trace = {"step": step, "responses": [traced(drift) for drift in drifts]}
        (folder / "traces" / f"step={step}.json").write_text(json.dumps(trace))
    (panel,) = FIGURES["fig3"](analyse(load([tmp_path]))).panels
    curves = by_label(panel)
    assert list(curves) == [
        "threshold, calm (S = 0.45)", "divergence, calm", "threshold, drifting (S = 1.00)", "divergence, drifting",
    ]  # fmt: skip
    np.testing.assert_allclose(panel.series[0].mean, [0.1, 0.125, 0.2])
    np.testing.assert_allclose(panel.series[1].mean, [0, np.nan, 0.2])


def test_agreement_averages_over_steps_then_runs(tmp_path):
    for seed, values in ((1, [0.2, 0.4, None]), (2, [0.9])):
        folder = write_run(tmp_path, "cppo", seed, [0.5] * 5)
        rows = [{"step": i, "rule": rule, "jaccard": v} for i, v in enumerate(values) for rule in ("grpo", "own", "gspo")]
        write_lines(folder / "shadow.jsonl", rows)
    (panel,) = FIGURES["fig_agreement"](analyse(load([tmp_path]))).panels
    assert (panel.rows, panel.columns) == (["CPPO"], ["GRPO"])  # further rules and the rule's own entry are not drawn
    np.testing.assert_allclose(panel.values, [[(0.3 + 0.9) / 2]])


def test_windows_and_bands():
    x, y = windowed(np.arange(1, 6), np.array([1.0, 3.0, 5.0, 7.0, 9.0]), 2)
    np.testing.assert_allclose(x, [1.5, 3.5, 5])
    np.testing.assert_allclose(y, [2, 6, 9])
    mean, low, _ = band(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1, 2] and np.isnan(low).all()


def test_a_mean_curve_is_of_the_same_steps_of_all_runs():
    every, late = np.arange(1, 9), np.array([3, 4, 6, 7, 8])  # steps with a value
    curves = [windowed(steps, steps.astype(float), 2) for steps in (every, late)]
    x, values_SX = at_common_windows(curves, 2)
    assert x.tolist() == [3.5, 5.5, 7.5] and values_SX.tolist() == [[3.5, 5.5, 7.5], [3.5, 6, 7.5]]
    nothing = windowed(every[:0], np.array([]), 2)
    assert [part.size for part in at_common_windows([curves[0], nothing], 2)] == [0, 0]
    assert at_common_windows([], 2)[1].shape == (0, 0)


LONG = "dppo,delta=0.15,layers=[1,2],a_setting_with_a_long_name=0.123456789"


@pytest.mark.parametrize("names", [("cppo_no_position_weight", "cppo_reversed"), ("cppo", LONG), (LONG, LONG + "0")])
def test_long_names_leave_room_and_stay_on_the_page(tmp_path, names):
    for method in names:
        for seed in (1, 2):
            write_run(tmp_path, method, seed, [0.5] * 4 + [0.5 + seed / 32], rule="dppo" if "," in method else None)
    results = analyse(load([tmp_path]))
    for name in ("fig4", "fig8", "fig_pairwise", "fig_problems", "fig_position_divergence"):
        drawn = draw(FIGURES[name](results))
        drawn.canvas.draw()
        texts = [text for legend in drawn.legends for text in legend.get_texts()]
        texts += [label for ax in drawn.axes for label in ax.get_yticklabels()]
        ends = [end for text in texts for end in (text.get_window_extent().x0, text.get_window_extent().x1)]
        assert min(ends) >= 0 and max(ends) <= drawn.bbox.width, name


def test_legend_fits_the_page(results):
    figure = FIGURES["fig4"](results)
    entries = {series.label: series for series in figure.panels[0].series}
    assert legend_columns(entries, 3.4) * (max(map(len, entries)) * 0.062 + 0.5) <= 3.4
