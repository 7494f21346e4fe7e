"""The commands, end to end."""

import json
import subprocess
import sys

import pytest
from made_up import write_run

from analysis import diff, power
from analysis.__main__ import main
from analysis.figures import FIGURES
from analysis.load import load
from analysis.results import analyse
from analysis.tables import TABLES
from analysis.verdict import verdict


@pytest.fixture(scope="module")
def twice(sweep_folder, tmp_path_factory):
    """Everything from one command, in two folders; a third of the formats is enough for the figures."""
    outs = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for out in outs:
        main([str(sweep_folder), "--out", str(out), "--format", "svg,md,csv,tex"])
    return outs


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_one_command_gives_every_table_and_figure(twice):
    names = files(twice[0]).keys()
    assert {f"{name}.{ending}" for name in TABLES for ending in ("md", "tex", "csv", "json")} <= names
    assert {f"{name}.{ending}" for name in FIGURES for ending in ("svg", "json")} <= names
    assert {"verdict.md", "index.md"} <= names


def test_the_same_runs_give_the_same_bytes(twice):
    one, two = map(files, twice)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


@pytest.mark.parametrize("ending", ["pdf", "png"])
def test_pdf_and_png_are_the_same_bytes_too(sweep_folder, tmp_path, ending):
    for name in ("one", "two"):
        main([str(sweep_folder), "--out", str(tmp_path / name), "--only", "fig4,fig_pairwise,fig3", "--format", ending])
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert f"fig4.{ending}" in one and one == two


def test_sidecars_name_the_runs(twice):
    table = json.loads((twice[0] / "table1.json").read_text())
    (cell,) = [cell for cell in table["cells"] if cell["row"] == "DPPO"]
    assert [run_id.rsplit("/", 1)[1].split("-")[0] for run_id in cell["run_ids"]] == ["seed=1", "seed=2"]
    figure = json.loads((twice[0] / "fig4.json").read_text())
    assert sum(len(series["run_ids"]) for series in figure["panels"][0]["series"]) == 11


def test_missing_figures_are_listed_with_their_command(twice):
    index = (twice[0] / "index.md").read_text()
    assert "## fig5 (missing)" in index and "cppo_no_prefix_budget" in index
    assert "## fig4\n" in index


def test_only_and_format_limit_what_is_written(sweep_folder, tmp_path):
    main([str(sweep_folder), "--out", str(tmp_path), "--only", "table1", "--format", "csv"])
    assert files(tmp_path).keys() == {"table1.csv", "table1.json", "verdict.md", "index.md"}


def test_unknown_names_are_refused_with_the_choices(sweep_folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(sweep_folder), "--out", str(tmp_path), "--only", "fig99"])
    assert "choose from table1" in capsys.readouterr().err


def test_mixed_settings_are_red_in_every_output(tmp_path):
    write_run(tmp_path / "runs", "cppo", 1, [0.5] * 5)
    write_run(tmp_path / "runs", "grpo", 1, [0.5] * 5, lr=1e-4)
    main(
        [
            str(tmp_path / "runs"),
            "--out",
            str(tmp_path / "out"),
            "--allow-mixed",
            "--only",
            "table1,fig4",
            "--format",
            "md,tex,csv,svg",
        ]
    )
    for name in ("table1.md", "table1.tex", "table1.csv", "table1.json", "fig4.json", "verdict.md", "index.md"):
        assert "MIXED SETTINGS" in (tmp_path / "out" / name).read_text(), name
    assert "textcolor{red}" in (tmp_path / "out" / "table1.tex").read_text()
    assert "#ff0000" in (tmp_path / "out" / "fig4.svg").read_text()


def test_verdict_in_words(results):
    text = verdict(results)
    assert "CPPO has the highest mean, 70.8 ± 10.4 points over 3 seeds." in text
    assert "It cannot be told apart from DPPO (−2.1" in text and "and GRPO (−18.8" in text
    assert "It is higher than CISPO (−63.9" in text
    assert "CISPO: collapse 3/3 @ 11–13." in text
    assert "Not complete: DPPO has 2/3 seeds: 1 missing." in text


def test_the_page_alone_leaves_the_rest_as_it_is(sweep_folder, tmp_path, capsys):
    (tmp_path / "index.md").write_text("as it was")
    main([str(sweep_folder), "--out", str(tmp_path), "--only", "report"])
    assert capsys.readouterr().out.endswith(f"\nverdict.md, report.html in {tmp_path}\n")
    assert sorted(path.name for path in tmp_path.glob("*.*") if path.is_file()) == ["index.md", "report.html", "verdict.md"]
    assert (tmp_path / "index.md").read_text() == "as it was"


def test_verdict_of_one_seed_claims_nothing(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.75] * 5)
    write_run(tmp_path, "grpo", 1, [0.25] * 5)
    text = verdict(analyse(load([tmp_path])))
    assert "cannot be told apart from GRPO (−50.0, no interval from one seed)" in text
    assert "One seed says nothing about the noise" in text and "higher than" not in text


def test_verdict_without_finished_runs(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.75] * 2, state="running", step=9)
    assert "nothing can be said yet" in verdict(analyse(load([tmp_path])))


def test_runs_that_broke_or_only_just_began(tmp_path):
    """No rows at all, a non-finite metric, and a run that failed before its first evaluation: listed, and nothing breaks."""
    for name in ("metrics.jsonl", "evals.jsonl"):
        (write_run(tmp_path / "runs", "cppo", 1 + len(name), [0.5], state="running", step=0) / name).unlink()
    write_run(tmp_path / "runs", "grpo", 1, [], state="failed", step=3)
    finished = write_run(tmp_path / "runs", "dppo", 1, [0.5] * 5)
    with open(finished / "metrics.jsonl", "a") as file:
        file.write('{"step": 28, "reward/mean": NaN, "actor/grad_norm": Infinity}\n')
    main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--format", "md,svg"])
    assert "failed | 3/28" in (tmp_path / "out" / "table_runs.md").read_text()
    assert "missing (0/" in (tmp_path / "out" / "table1.md").read_text()


def test_power_command(sweep_folder, capsys):
    power.main([str(sweep_folder), "--differences", "2"])
    text = capsys.readouterr().out
    assert "pooled over grpo, dppo, cppo" in text and "| 2 points |" in text  # the collapsing rule does not count
    power.main([])
    assert "sd of one run 1.8 points" in capsys.readouterr().out


def test_diff_of_a_sweep_with_itself_is_zero(sweep_folder, capsys):
    diff.main([str(sweep_folder), str(sweep_folder)])
    text = capsys.readouterr().out
    assert "All settings are the same." in text
    assert "| CPPO | 70.8 ± 10.4 | 70.8 ± 10.4 | +0.0 |" in text


def test_diff_shows_settings_and_results(tmp_path, capsys):
    for seed in (1, 2, 3):
        write_run(tmp_path / "a", "cppo", seed, [0.5 + seed / 16] * 5)
        write_run(tmp_path / "b", "cppo", seed, [0.25 + seed / 16] * 5, lr=1e-4)
    write_run(tmp_path / "b", "grpo", 1, [0.5] * 5, lr=1e-4)
    diff.main([str(tmp_path / "a"), str(tmp_path / "b")])
    text = capsys.readouterr().out
    assert "| train.lr | 0.0002 | 0.0001 |" in text
    assert "| CPPO | 62.5 ± 15.5 | 37.5 ± 15.5 | −25.0 |" in text and "| GRPO | missing | 50.0 |" in text


def test_user_errors_are_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    run = subprocess.run([sys.executable, "-m", "analysis", str(tmp_path / "empty")], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr.startswith("analysis: no runs under") and run.stderr.count("\n") == 1


def test_no_heavy_imports():
    heavy = "'torch', 'vllm', 'transformers', 'hydra', 'scipy'"
    code = f"import sys, analysis.__main__, analysis.coverage; print([m for m in ({heavy}) if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
