"""report.html: what is in it, that it is safe to open, and the same for the same runs. In a browser: tests/browser."""

import base64
import hashlib
import json
import re
import threading
import urllib.error
import urllib.request
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from made_up import write_run

from analysis.load import load
from analysis.report import report
from analysis.report.data import command_for
from analysis.report.page import fill, first_words
from analysis.report.thinning import numbers, points_per_curve, thinned
from analysis.report.tokens import by_importance, embedded_traces, halving, pooled, shortened
from analysis.results import analyse
from analysis.serve import LivePage, handler
from analysis.tables import TABLES
from analysis.verdict import paragraph

HOSTILE = '</script><script>alert(1)</script><!-- " & \u202e \u2028 \x00'


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


@pytest.fixture(scope="module")
def page(results) -> str:
    return report(results)


def test_the_page_holds_what_the_analysis_says(page, results):
    data = data_of(page)
    assert [one["text"] for one in data["verdict"]] == [paragraph(results, results.comparison(group)) for group in results.groups]
    for stored, make in zip(data["tables"], TABLES.values(), strict=True):
        table = make(results)
        assert [name for name, _ in stored["rows"]] == [name for name, _ in table.rows]
        for (_, cells), (_, expected) in zip(stored["rows"], table.rows, strict=True):
            assert [cell["text"] for cell in cells] == [cell.text for cell in expected]
            assert [[data["runs"][i]["id"] for i in cell["runs"]] for cell in cells] == [cell.run_ids for cell in expected]


def test_missing_and_collapsed_runs_stand_on_the_page(page):
    data = data_of(page)
    assert "DPPO has 2/3 seeds: 1 missing" in data["verdict"][0]["text"]
    (absent,) = data["absent"]
    assert (absent["method"], absent["seed"]) == ("dppo", 3)
    assert absent["command"] == "python -m harness method=dppo seed=3"
    assert {run["key"]: run["collapse"] for run in data["runs"]}["cispo/seed=2"] == 12
    missing = [figure for figure in data["figures"] if "missing" in figure]
    assert missing and all(figure["command"].startswith("python -m harness") for figure in missing)


def test_the_same_runs_give_the_same_page(page, sweep_folder):
    assert report(analyse(load([sweep_folder]))) == page


def test_settings_are_shared_once_and_differences_named(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "dppo", 1, [0.5] * 5, lr=1e-4)
    settings = data_of(report(analyse(load([tmp_path], allow_mixed=True))))["settings"]
    assert settings["groups"]["rows"] == [["train.lr", "0.0002 | 0.0001"]]
    assert "train.lr" not in dict(settings["shared"]) and dict(settings["shared"])["rollout.lag"] == "4"
    assert ["rule", "dppo", "cppo"] in settings["methods"]["rows"]
    assert ["w_min", "–", "0.8"] in settings["methods"]["rows"]


def test_no_text_of_a_run_can_end_the_data_element(tmp_path):
    folder = write_run(tmp_path, "cppo", 1, [0.5] * 5)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"reason": HOSTILE, "command": HOSTILE}))
    page = report(analyse(load([tmp_path])))
    assert data_of(page)["runs"][0]["warnings"] == [HOSTILE] and data_of(page)["runs"][0]["command"] == HOSTILE
    assert page.count("<script") == page.count("</script>") == 2
    data = page[page.index('id="data">') : page.index("</script>")]
    assert data.isascii() and "<" not in data


def test_the_policy_allows_this_script_alone_and_no_network(page):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy and "unsafe" not in policy
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page) == []
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script)


def test_what_is_filled_in_is_not_searched_for_places():
    template = "{{POLICY}} {{STYLE}} {{VERDICT}} {{DATA}} {{SCRIPT}}"
    parts = {"POLICY": "{{DATA}}", "STYLE": "b", "VERDICT": "", "DATA": "{{SCRIPT}}", "SCRIPT": "d"}
    assert fill(template, parts) == "{{DATA}} b  {{SCRIPT}} d"


def test_the_verdict_stands_before_the_data_as_plain_text():
    words = first_words([{"text": "**<b>x</b>\u202e** & more"}])
    assert words == '<p class="verdict">&lt;b&gt;x&lt;/b&gt;⟨U+202E⟩ &amp; more</p>'


def test_every_cell_of_a_heat_map_knows_its_runs(page):
    data = data_of(page)
    figures = {figure["name"]: figure for figure in data["figures"]}
    behind = lambda panel, i, j: [
        data["runs"][k]["key"] for k in panel["behind"]["sets"][panel["behind"]["cells"][i][j] if panel["behind"]["cells"] else 0]
    ]
    (pairs,) = figures["fig_pairwise"]["panels"]
    row, column = pairs["rows"].index("CPPO"), pairs["columns"].index("DPPO")
    assert behind(pairs, row, column) == [*(f"cppo/seed={s}" for s in (1, 2, 3)), "dppo/seed=1", "dppo/seed=2"]
    problems = figures["fig_problems"]["panels"][0]
    assert behind(problems, problems["rows"].index("GRPO"), 0) == [f"grpo/seed={s}" for s in (1, 2, 3)]
    map_ = figures["fig_position_divergence"]["panels"][0]
    assert behind(map_, 9, 3) == [f"{map_['title'].lower()}/seed={s}" for s in (1, 2, 3)]


def test_what_a_run_marked_and_every_attempt_stand_on_the_page(tmp_path):
    """As SLURM leaves it: requeued, so that the last attempt's command is its launcher's."""
    folder = write_run(tmp_path, "cppo", 1, [0.5] * 5)
    status = json.loads((folder / "status.json").read_text())
    marks = {"mismatch_step": 9, "mismatch_reason": "mismatch/k3 = 0.02 > 0.0005", "collapse_reason": None, "world_size": 8}
    status |= {"command": "python launcher.py", "slurm_job_id": "15", "reason": "stopped"} | marks
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "logs").mkdir()
    asked = "python -m harness -m method=cppo,dppo seed=1,2 train.steps=28"
    for number, command in ((1, asked), (2, "python launcher.py"), (10, "python launcher.py")):
        attempt = {"number": number, "host": f"node{number}", "command": command, "state": "preempted", "signal": "SIGTERM"}
        (folder / "logs" / f"attempt_{number}.json").write_text(json.dumps(attempt))
    write_run(tmp_path, "cppo", 2, [0.5] * 5)
    write_run(tmp_path, "dppo", 2, [0.5] * 5)
    data = data_of(report(analyse(load([tmp_path]))))
    run = data["runs"][0]
    assert run["command"] == asked
    assert run["warnings"] == ["stopped", "mismatch marked at step 9: mismatch/k3 = 0.02 > 0.0005"]
    assert dict(run["provenance"])["world_size"] == "8" and dict(run["provenance"])["slurm_job_id"] == "15"
    host = run["attempts"]["columns"].index("host")
    assert [row[host] for row in run["attempts"]["rows"]] == ["node1", "node2", "node10"]
    (absent,) = data["absent"]
    assert absent["command"] == "python -m harness method=dppo seed=1"  # of dppo no run says how it was asked for


def test_the_command_of_an_absent_run_is_a_siblings(tmp_path):
    for method, seed in (("cppo", 1), ("cppo", 2), ("dppo", 1)):
        folder = write_run(tmp_path, method, seed, [0.5] * 5)
        status = json.loads((folder / "status.json").read_text())
        command = "python -m harness -m method=cppo,dppo seed=1,2 'eval.benchmarks=[chain4]'"
        (folder / "status.json").write_text(json.dumps(status | {"command": command}))
    (absent,) = data_of(report(analyse(load([tmp_path]))))["absent"]
    assert absent["command"] == "python -m harness -m method=dppo seed=2 'eval.benchmarks=[chain4]'"


def test_the_command_of_an_absent_run_changes_the_methods_settings(tmp_path):
    for method, seed in (("dppo,delta=0.1,layers=[1,2]", 1), ("dppo,delta=0.1,layers=[1,2]", 2), ("dppo,delta=0.2", 1)):
        folder = write_run(tmp_path, method, seed, [0.5] * 5, rule="dppo")
        status = json.loads((folder / "status.json").read_text())
        told = {"command": "python -m harness -m method=dppo method.delta=0.1,0.2 seed=1,2"} if "layers" not in method else {}
        (folder / "status.json").write_text(json.dumps(status | told))
    runs = load([tmp_path]).runs
    told = "python -m harness -m method=dppo seed=2 method.delta=0.2"
    assert command_for([run for run in runs if run.method == "dppo,delta=0.2"], "dppo,delta=0.2", 2) == told
    told = "python -m harness method=dppo seed=3 method.delta=0.1 'method.layers=[1,2]'"
    assert command_for(runs[:1], "dppo,delta=0.1,layers=[1,2]", 3) == told


def test_links_name_runs_shortly_where_that_is_unambiguous(tmp_path):
    for model in ("small", "large"):
        write_run(tmp_path, "cppo", 1, [0.5] * 5, model=model)
    write_run(tmp_path, "dppo", 1, [0.5] * 5, model="small")
    keys = {run["id"].rsplit("-", 1)[0]: run["key"] for run in data_of(report(analyse(load([tmp_path]))))["runs"]}
    assert keys["default/small/dppo/seed=1"] == "dppo/seed=1"
    assert keys["default/large/cppo/seed=1"].startswith("default/large/cppo/seed=1-")


def test_thinned_curves_keep_ends_and_extremes():
    x, y = np.arange(1000), np.random.default_rng(0).standard_normal(1000)
    y[[501, 777]] = 50, -50
    few_x, few_y = thinned(x, y, 100)
    assert len(few_x) <= 102 and few_x[0] == 0 and few_x[-1] == 999
    assert 501 in few_x and 777 in few_x and np.array_equal(y[few_x], few_y)
    assert thinned(x, y, 1000)[0] is x


def test_numbers_are_json():
    assert numbers([1.0, 0.123456789, float("nan"), float("inf"), 3e20]) == [1, 0.123457, None, None, 3e20]
    assert [points_per_curve(n) for n in (0, 3000, 10**6)] == [1000, 200, 60]


# traces


def response(length: int, **changes) -> dict:
    series = [0.1 * i for i in range(length)]
    rule = {"weight": series, "keep": 1, "aux": {"seq_mean": None}}
    return {
        "problem_id": "p", "sample": 0, "prompt": "1+1:", "reward": 1.0, "advantage": 0.5, "truncated": False,
        "token_ids": list(range(length)), "tokens": ["x"] * length, "rollout_logprobs": series, "logprobs": series, "ratio": 1,
        "divergence": series, "entropy": 0.25, "rules": {"own": rule, "cppo": rule | {"keep": [0] + [1] * (length - 1)}},
    } | changes  # fmt: skip


def write_traces(folder, steps, length=5):
    (folder / "traces").mkdir()
    for step in steps:
        trace = {"format": 1, "step": step, "update": 4, "divergence": "topk_tv", "rules": {}, "responses": [response(length)]}
        (folder / "traces" / f"step={step}.json").write_text(json.dumps(trace))


def test_pooled_series_are_the_stored_ones_each_once():
    stored = response(4)
    short = pooled(stored)
    of = lambda place: short["series"][place]
    assert of(short["divergence"]) == stored["divergence"] and of(short["entropy"]) == 0.25
    assert of(short["rules"]["cppo"]["keep"]) == [0, 1, 1, 1] and of(short["rules"]["own"]["keep"]) == 1
    assert of(short["rules"]["own"]["aux"]["seq_mean"]) is None
    assert len(short["series"]) == 5  # the numbers, 1, 0.25, null, and the other rule's keep


def test_a_page_without_room_keeps_the_steps_that_matter_and_names_the_others(tmp_path):
    steps = list(range(7, 701, 7))
    write_traces(write_run(tmp_path, "cppo", 1, [0.5] * 5, steps=700, every=175, collapse_step=350), steps)
    (run,) = load([tmp_path]).runs
    size = len(json.dumps(embedded_traces([run])[run.run_id]["traces"])) // len(steps)
    some = embedded_traces([run], most_bytes=10 * size)[run.run_id]
    kept = [trace["step"] for trace in some["traces"]]
    assert {7, 350, 700} <= set(kept) and 5 < len(kept) < 15
    assert sorted(kept + some["left_out"]) == steps
    everything = embedded_traces([run])[run.run_id]
    assert [trace["step"] for trace in everything["traces"]] == steps and everything["left_out"] == []


def test_responses_too_long_for_their_share_are_left_out_and_named(tmp_path):
    for seed in (1, 2, 3):
        write_traces(write_run(tmp_path, "cppo", seed, [0.5] * 5), [7, 14], length=400)
    runs = load([tmp_path]).runs
    size = len(json.dumps(pooled(response(400)), separators=(",", ":"))) + 200
    found = embedded_traces(runs, most_bytes=2 * size)  # a third of it holds none: the first two seeds get one each
    assert [[trace["step"] for trace in found[run.run_id]["traces"]] for run in runs] == [[14], [14], []]
    assert [found[run.run_id]["left_out"] for run in runs] == [[7], [7], [7, 14]]
    assert sum(len(json.dumps(one["traces"], separators=(",", ":"))) for one in found.values()) <= 2 * size


def test_of_a_step_that_does_not_fit_the_first_responses_are_kept():
    trace = {"step": 7, "responses": [response(50), response(50), response(50)]}
    one = len(json.dumps(pooled(response(50)), separators=(",", ":")))
    some, used = shortened(trace, int(2.5 * one), None)
    assert len(some["responses"]) == 2 and some["num_responses"] == 3 and 2 * one < used <= 2.5 * one
    assert len(shortened(trace, 10 * one, 1)[0]["responses"]) == 1


def test_order_of_importance_names_every_step_once():
    assert sorted(halving([1, 2, 3, 4, 5])) == [1, 2, 3, 4, 5] and halving([1, 2, 3, 4, 5])[0] == 3
    assert by_importance([3, 6, 9, 12], 7)[:4] == [12, 3, 6, 9]
    assert by_importance([], None) == []


def test_a_broken_trace_is_left_out_and_named(tmp_path):
    folder = write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_traces(folder, [7, 14])
    (folder / "traces" / "step=14.json").write_text('{"format": 1, "resp')
    (run,) = data_of(report(analyse(load([tmp_path]))))["runs"]
    assert [trace["step"] for trace in run["traces"]] == [7] and run["left_out"] == [14]


# serve


@pytest.fixture
def server(tmp_path):
    (tmp_path / "runs").mkdir()
    page = LivePage([tmp_path / "runs"], refresh_seconds=7, allow_mixed=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(page.answers)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "runs", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def get(address: str, **headers) -> str:
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20).read().decode()


def test_the_live_page_follows_the_runs(server):
    runs, address = server
    assert "no runs under" in get(address + "/")
    folder = write_run(runs, "cppo", 1, [0.5] * 5, state="running", step=8)
    data = data_of(get(address + "/"))
    assert data["live"]["seconds"] == 7 and data["runs"][0]["step"] == 8
    assert data["live"]["state"] == get(address + "/state")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "reward/mean": 0.5}\n')
    assert get(address + "/state") != data["live"]["state"]
    assert data_of(get(address + "/"))["runs"][0]["step"] == 9


def test_the_live_page_says_what_is_wrong_with_the_runs(tmp_path):
    write_run(tmp_path, "cppo", 1, [0.5] * 5)
    write_run(tmp_path, "dppo", 1, [0.5] * 5, benchmarks={"others": 8})
    page = LivePage([tmp_path], refresh_seconds=7, allow_mixed=True)
    assert "no common problem" in page.html()


def test_the_live_page_answers_this_machine_only(server):
    _, address = server
    for path, headers, code in (("/", {"Host": "evil.example:80"}, 403), ("/../status.json", {}, 404)):
        with pytest.raises(urllib.error.HTTPError) as error:
            get(address + path, **headers)
        assert error.value.code == code
