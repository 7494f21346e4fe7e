"""report.html in headless Chromium: every view opens without a word on the console, and shows the numbers that are stored."""

import json
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

from made_up import write_run  # noqa: E402

from analysis.load import load  # noqa: E402
from analysis.report import report  # noqa: E402
from analysis.results import analyse  # noqa: E402
from analysis.serve import LOOPBACK, LivePage, handler  # noqa: E402

pytestmark = pytest.mark.browser

VIEWS = ("verdict", "settings", "tables", "curves", "stability", "runs", "compare", "tokens")
HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "\u202eabc\u202c", "\x00\x1b[31m\u2028", "&amp;")
STEPS = (7, 14, 21)
LENGTH = 6
LONG = 2000  # tokens


def trace(step: int, tokens: list[str] = [*HOSTILE, "7"]) -> dict:  # noqa: B006
    """One response whose numbers tell token and step apart; its fourth token and the last but 99 are dropped by cppo alone."""
    length = len(tokens)
    number = lambda factor: [round(factor * (i + 1) + step / 1000, 6) for i in range(length)]
    keep = [int(i not in (3, length - 100)) for i in range(length)]
    aux = {"w": number(0.1), "Z": number(0.01), "S_prev": number(0.02), "W_prev": number(0.5), "c": 0.15, "delta_b": 0.02}
    return {
        "format": 1, "step": step, "update": 4, "divergence": "topk_tv",
        "rules": {"own": {"rule": "dppo", "settings": {"delta": 0.15}}, "cppo": {"rule": "cppo", "settings": {"delta": 0.15}}},
        "responses": [{
            "problem_id": HOSTILE[0], "sample": 3, "prompt": HOSTILE[1], "reward": 1.0, "advantage": 0.625, "truncated": False,
            "token_ids": list(range(length)), "tokens": tokens, "rollout_logprobs": number(-0.3), "logprobs": number(-0.2),
            "ratio": number(0.9), "divergence": number(0.03), "entropy": None,
            "rules": {
                "own": {"weight": number(0.9), "keep": 1, "aux": {}},
                "cppo": {"weight": number(0.8), "keep": keep, "aux": aux},
            },
        }],
    }  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Six runs with traces, one of them long, one failed run, and one that is missing: grpo's seed 2."""
    root = tmp_path_factory.mktemp("browser")
    curve = [0.25, 0.5, 0.625, 0.75, 0.75]
    for method in ("cppo", "dppo", "cispo"):
        for seed in (1, 2):
            collapse = {"collapse_step": 12, "state": "collapsed"} if method == "cispo" else {}
            write_traces(write_run(root / "runs", method, seed, curve, **collapse), long=(method, seed) == ("dppo", 2))
    failed = write_run(root / "runs", "grpo", 1, [0.25], state="failed", step=3)
    status = json.loads((failed / "status.json").read_text())
    hostile = {"reason": HOSTILE[0], "command": " ".join(HOSTILE[:2]), "mismatch_step": 2, "mismatch_reason": HOSTILE[1]}
    (failed / "status.json").write_text(json.dumps(status | hostile))
    return root


def write_traces(folder: Path, long: bool) -> None:
    (folder / "traces").mkdir()
    words = [" so", " x", "=", "12", ".\n"]
    tokens = {"tokens": [words[i % len(words)] for i in range(LONG)]} if long else {}
    for step in STEPS:
        (folder / "traces" / f"step={step}.json").write_text(json.dumps(trace(step, **tokens)))


@pytest.fixture(scope="module")
def address(root) -> str:
    (root / "report.html").write_text(report(analyse(load([root / "runs"]))), encoding="utf-8")
    return f"file://{root / 'report.html'}"


@pytest.fixture(params=[(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def look(request):
    return request.param


@pytest.fixture
def open_page(chromium, address):
    """open_page(link): a page whose errors fail the test."""
    contexts, said = [], []

    def open_(link: str, width: int = 1440, scheme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
        page.goto(f"{address}#{link}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []


def test_every_view_opens_and_fits(open_page, look, screenshots):
    width, scheme = look
    page = open_page("verdict", width, scheme)
    for view in VIEWS:
        page.locator(f'nav a[href="#{view}"]').click()
        page.wait_for_function("view => document.querySelector(`nav a[href='#${view}']`).hasAttribute('aria-current')", arg=view)
        assert page.locator("h1").count() == 1 and page.locator("main").inner_text().strip()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        page.screenshot(path=screenshots / f"{view}-{width}-{scheme}.png", full_page=True)


def test_long_names_fit_the_narrowest_page(chromium, tmp_path):
    write_run(tmp_path / "runs", "a_rule_whose_name_goes_on_and_on_for_more_than_fifty_letters", 1, [0.5] * 5, rule="dppo")
    (tmp_path / "report.html").write_text(report(analyse(load([tmp_path / "runs"]))))
    page = chromium.new_page(viewport={"width": 360, "height": 900})
    for view in ("verdict", "curves", "stability"):
        page.goto(f"file://{tmp_path}/report.html#{view}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    page.close()


def link_ends(page, end: str) -> None:
    """The address follows the viewer a moment later."""
    page.wait_for_function("end => location.hash.endsWith(end)", arg=end)


def facts(page) -> dict:
    return {e.get_attribute("data-fact"): e.inner_text().replace("−", "-") for e in page.locator("[data-fact]").all()}


def test_the_viewer_shows_the_stored_numbers(open_page):
    stored, i = trace(14)["responses"][0], 3
    shown = facts(open_page(f"tokens/dppo/seed=1/step=14/rule=cppo/token={i}"))
    names = {"logprob": "logprobs", "rollout log-prob": "rollout_logprobs", "ratio": "ratio", "divergence": "divergence"}
    for name, key in names.items():
        assert float(shown[name]) == stored[key][i]
    rule = stored["rules"]["cppo"]
    assert float(shown["weight"]) == rule["weight"][i] and shown["keep"] == "0" and shown["entropy"] == "not finite"
    for name, series in rule["aux"].items():
        assert float(shown[name]) == (series[i] if isinstance(series, list) else series)
    assert float(shown["S = S_prev + Z"]) == pytest.approx(rule["aux"]["S_prev"][i] + rule["aux"]["Z"][i], rel=1e-5)
    assert float(shown["budget = δ + δ_b·W_prev"]) == pytest.approx(0.15 + 0.02 * rule["aux"]["W_prev"][i], rel=1e-5)


def test_rules_are_switched_on_the_same_tokens(open_page):
    page = open_page("tokens/dppo/seed=1/step=14")
    assert page.locator(".token.dropped").count() == 0
    page.get_by_label("Rule").select_option("cppo")
    assert page.locator(".token.dropped").count() == 1 and page.locator(".token").count() == LENGTH
    link_ends(page, "#tokens/dppo/seed=1/step=14/rule=cppo")


def test_the_viewer_by_keyboard(open_page):
    page = open_page("tokens/cispo/seed=1/step=14")
    page.locator(".token[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    link_ends(page, "step=14/rule=cppo/token=1")
    assert page.locator(".token:focus").count() == 1
    page.keyboard.press("Shift+ArrowLeft")
    link_ends(page, "step=7/rule=cppo/token=1")
    assert float(facts(page)["divergence"]) == trace(7)["responses"][0]["divergence"][1]
    page.keyboard.press("End")
    link_ends(page, f"token={LENGTH - 1}")


def test_slider_and_the_way_to_the_collapse(open_page):
    page = open_page("tokens/cispo/seed=1/step=21")
    page.get_by_role("button", name="nearest to the collapse").click()
    link_ends(page, "#tokens/cispo/seed=1/step=14")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    link_ends(page, "step=7")
    assert page.locator("output").inner_text() == "step 7"


def test_hostile_text_is_shown_and_runs_nothing(open_page):
    page = open_page("tokens/dppo/seed=1/step=14")
    tokens = [token.text_content() for token in page.locator(".token").all()]
    assert tokens[0] == HOSTILE[0].replace(" ", "␣") and tokens[1] == HOSTILE[1] and tokens[4] == HOSTILE[4]
    assert tokens[2] == "⟨U+202E⟩abc⟨U+202C⟩" and tokens[3] == "⟨U+0000⟩⟨U+001B⟩[31m⟨U+2028⟩"
    assert HOSTILE[1] in page.locator(".prompt").text_content()
    page = open_page("run/grpo/seed=1")
    assert page.locator("main img, main script").count() == 0
    reason, mismatch = page.locator("main .warning").all_text_contents()
    assert reason == HOSTILE[0] and mismatch == f"mismatch marked at step 2: {HOSTILE[1]}"
    assert "alert(2)" in page.locator("pre").text_content()


def test_a_run_that_has_no_tokens_and_one_that_is_not_there(open_page):
    assert "has no recorded tokens" in open_page("tokens/grpo/seed=1").locator("main").inner_text()
    page = open_page("tokens/grpo/seed=1")
    assert page.get_by_label("Run").input_value() == ""
    page.get_by_label("Run").select_option("cispo/seed=1")  # the first of those that have some
    link_ends(page, "#tokens/cispo/seed=1")
    assert "no run “nobody/seed=9”" in open_page("run/nobody/seed=9").locator("main").inner_text()


def test_tables_sort_and_numbers_name_their_runs(open_page):
    page = open_page("tables")
    table = page.locator("#section-table1")
    table.get_by_role("button", name="chain", exact=True).click()
    assert table.locator("th[aria-sort='descending']").count() == 1
    down = [row.inner_text() for row in table.locator("tbody th").all()]
    table.get_by_role("button", name="chain", exact=True).click()
    up = [row.inner_text() for row in table.locator("tbody th").all()]
    assert table.locator("th[aria-sort='ascending']").count() == 1
    assert down[-1] == "GRPO" or up[-1] == "GRPO"  # the method without a score stands at an end
    assert down != up and sorted(down) == sorted(up)
    table.locator("button.cell").first.press("Enter")
    dialog = page.locator("dialog[open]")
    assert dialog.locator("li a").count() >= 1 and "seed=1" in dialog.locator("pre").inner_text()
    dialog.locator("li a").first.click()
    page.wait_for_function("() => location.hash.startsWith('#run/')")
    assert page.locator("dialog[open]").count() == 0


def test_cells_sort_by_their_numbers(open_page):
    cells = [
        {"text": "< 0.001", "values": {"p": 0.0002}}, {"text": "1–3", "values": {"low": 1, "high": 3}},
        {"text": "+1.5 to +2.0", "values": {}}, {"text": "−0.5 to +2.0", "values": {}}, {"text": "1.2e−07", "values": {}},
        {"text": "missing", "values": {}},
    ]  # fmt: skip
    assert open_page("tables").evaluate("cells => cells.map(sortValue)", cells) == [0.0002, 1, 1.5, -0.5, 1.2e-7, "missing"]


def test_comparison_of_two_runs_shows_what_differs(open_page):
    page = open_page("compare/cppo/seed=1/vs/dppo/seed=2")
    rows = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()}
    assert rows["seed"] == ["1", "2"] and rows["method.rule"] == ["cppo", "dppo"] and "train.lr" not in rows
    page.locator("main select").nth(1).select_option("cispo/seed=1")
    link_ends(page, "/vs/cispo/seed=1")


def test_curves_are_read_by_arrow_keys(open_page):
    page = open_page("curves")
    figure = page.locator("#section-fig4 figure").first
    figure.locator("svg[role=img]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert figure.locator(".readout").inner_text().startswith("step 7: ") and "CPPO 50" in figure.locator(".readout").inner_text()


def test_a_point_without_neighbours_is_drawn(open_page):
    page = open_page("curves")
    draw = """([x, y]) => {
      const axis = scale([1, 9], false, 0, 80), drawn = curve("line", "2 4", x, y, axis, axis);
      MAIN.replaceChildren(s("svg", {}, s("g", { class: "series" }, ...drawn)));
      return drawn.map((path) => path.getAttribute("d"));
    }"""
    assert page.evaluate(draw, [[1], [9]]) == ["", "M0.0 80.0h0"]
    assert page.evaluate(draw, [[1, 2, 3, 4, 5], [1, 1, None, 9, None]]) == ["M0.0 0.0L10.0 0.0", "M30.0 80.0h0"]
    assert page.evaluate("getComputedStyle(document.querySelector('.dot')).strokeLinecap") == "round"


@pytest.mark.parametrize(
    "low, high, expected",
    [(2, 9, [2, 3, 5, 9]), (0.03, 0.5, [0.03, 0.08, 0.2, 0.5]), (1.2, 1.4, [1.2, 1.3, 1.4]), (1, 100, [1, 10, 100])],
)
def test_a_log_axis_has_numbers_however_short_it_is(open_page, low, high, expected):
    page = open_page("curves")
    assert page.evaluate("([low, high]) => ticks(Math.log10(low), Math.log10(high), true)", [low, high]) == expected


def test_a_heat_map_without_a_value_names_no_range(open_page):
    panel = {"title": "Divergence", "unit": "TV", "log": True, "values": [[0, None]], "rows": ["a"], "columns": ["1", "2"]}
    page = open_page("curves")
    assert page.evaluate("panel => matrix(panel).querySelector('figcaption').textContent", panel) == "Divergence (TV)"


# every number with its run ids


def copied(page, button) -> str:
    """What the button puts on the clipboard."""
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    button.click()
    return page.evaluate("window.copied")


def test_cells_of_heat_maps_are_read_and_copied_with_their_runs(open_page):
    page = open_page("curves")
    figure = page.locator("#section-fig_pairwise figure").first
    figure.locator(".scroll").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert figure.locator(".readout").inner_text().startswith("CISPO, DPPO: ")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    runs = ["cispo/seed=1", "cispo/seed=2", "dppo/seed=1", "dppo/seed=2"]
    assert [text.split("-")[0].removeprefix("default/chain/") for text in dialog.locator("li").all_inner_texts()] == runs
    text = copied(page, dialog.get_by_role("button", name="copy with run ids"))
    assert all(run in text for run in runs) and "value = " in text
    page.keyboard.press("Escape")
    lines = copied(page, figure.get_by_role("button", name="copy numbers")).split("\n")
    assert len(lines) == 1 + 3 * 3 and lines[2].startswith("CISPO\tDPPO\t") and "cispo/seed=2" in lines[2]


def test_where_the_clipboard_is_refused_the_text_is_offered(open_page):
    page = open_page("run/cppo/seed=1")
    page.evaluate("() => { navigator.clipboard.writeText = async () => { throw new Error('refused'); }; }")
    page.get_by_role("button", name="copy with run id").first.click()
    field = page.locator("dialog[open] textarea")
    field.wait_for()
    assert "cppo/seed=1-" in field.input_value() and "device-hours = 0.01" in field.input_value()
    assert page.evaluate("() => document.activeElement.selectionEnd") == len(field.input_value())


def test_a_cell_of_a_map_of_steps_names_its_step(open_page):
    page = open_page("stability")
    figure = page.locator("#section-fig_position_divergence figure").first
    figure.locator("td").nth(28 + 11).click()  # 28 steps a row
    assert "bucket of position 1, step 12" in page.locator("dialog[open] h2").inner_text()
    page.keyboard.press("Escape")


def test_verdict_settings_runs_and_tokens_copy_with_run_ids(open_page):
    page = open_page("verdict")
    assert "cppo/seed=1-" in copied(page, page.get_by_role("button", name="copy with run ids"))
    for view, cell in (("settings", "topk_tv"), ("runs", "28/28"), ("compare/cppo/seed=1/vs/dppo/seed=1", "cppo")):
        page.goto(page.url.split("#")[0] + "#" + view)
        page.locator("button.cell", has_text=cell).first.click()
        assert "seed=1-" in copied(page, page.get_by_role("button", name="copy with run ids"))
        page.keyboard.press("Escape")
    page.goto(page.url.split("#")[0] + "#tokens/cppo/seed=1/step=14/token=2")
    assert "cppo/seed=1-" in copied(page, page.get_by_role("button", name="copy with run id"))
    for button in page.get_by_role("button", name="copy numbers").all():
        assert "\tdefault/chain/cppo/seed=1-" in copied(page, button)


# missing, failed and collapsed runs


def test_a_missing_run_is_listed_with_the_command_that_makes_it(open_page):
    page = open_page("runs")
    row = page.locator("tbody tr", has_text="grpo/seed=2")
    assert "missing" in row.inner_text() and "python -m harness method=grpo seed=2" in row.inner_text()
    assert "1 missing" in page.locator("main .row").first.inner_text()


# long responses


def test_a_long_response_stays_usable(open_page):
    page = open_page(f"tokens/dppo/seed=2/step=14/rule=cppo/token={LONG - 10}")
    assert page.locator(".token").count() == LONG
    page.wait_for_function(IN_SIGHT)
    page.locator(".token[tabindex='0']").focus()
    page.keyboard.press("p")
    link_ends(page, f"token={LONG - 100}")
    assert page.locator(".token:focus.dropped").count() == 1
    page.keyboard.press("PageUp")
    link_ends(page, f"token={LONG - 125}")
    page.get_by_role("button", name="◀ dropped").press("Enter")
    link_ends(page, "token=3")
    assert page.evaluate(IN_SIGHT)
    page.get_by_label("Token", exact=True).fill("1500")
    page.keyboard.press("Enter")
    assert float(facts(page)["divergence"]) == pytest.approx(0.03 * 1500 + 0.014) and page.evaluate(IN_SIGHT)
    chart = page.locator(".panels figure svg[role=img]").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    link_ends(page, "step=14/rule=cppo")  # token 0
    seconds = page.evaluate(TIMED, "ArrowRight")
    assert seconds < 1, f"{seconds:.2f} s for one key"


IN_SIGHT = """() => {
  const place = (name) => document.querySelector(name).getBoundingClientRect();
  const token = place(".token[aria-selected=true]"), box = place(".tokens");
  return token.top >= box.top && token.bottom <= box.bottom;
}"""
TIMED = """async (key) => {
  const started = performance.now();
  document.querySelector(".token[tabindex='0']").dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return (performance.now() - started) / 1000;
}"""


# the keyboard alone


EVERYTHING = VIEWS + ("run/cppo/seed=1", "tokens/cispo/seed=1/step=14", "compare/cppo/seed=1/vs/grpo/seed=1")
# Notes each element that gets the focus, whether its outline shows, and whether it lies in the window.
WATCH = """() => {
  window.reached = new Map();
  addEventListener("focusin", (event) => {
    const element = event.target, style = getComputedStyle(element), box = element.getBoundingClientRect();
    const shown = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    reached.set(element, shown && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth);
  });
}"""
MISSED = """() => {
  const all = [...document.querySelectorAll("a, button, input, select, summary, [tabindex='0']")];
  const there = all.filter((element) => element.checkVisibility() && element.tabIndex >= 0);
  const bad = there.filter((element) => reached.get(element) !== true);
  const said = (element) => `${reached.has(element) ? "unseen" : "not reached"}: ${element.outerHTML.slice(0, 160)}`;
  return [there.length, bad.map(said)];
}"""


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_everything_is_reached_by_tab_and_shows_its_focus(open_page, width, scheme):
    for view in EVERYTHING:
        page = open_page(view, width, scheme)
        page.evaluate(WATCH)
        number, _ = page.evaluate(MISSED)
        for _ in range(number + 2):
            page.keyboard.press("Tab")
        assert page.evaluate(MISSED)[1] == [], view
        page.context.close()


def test_pickers_and_rules_keep_the_focus(open_page):
    page = open_page("compare/cppo/seed=1/vs/dppo/seed=1")
    page.locator("#picker-B").focus()
    for expected in ("dppo/seed=2", "grpo/seed=1"):
        page.keyboard.press("ArrowDown")
        link_ends(page, expected)
        page.wait_for_function("() => document.activeElement.id === 'picker-B'")
    page = open_page("tokens/dppo/seed=1/step=14")
    page.get_by_role("button", name="cppo keeps").press("Enter")
    link_ends(page, "/rule=cppo")
    assert page.locator(".rule:focus").inner_text() == "cppo keeps"


def test_a_view_is_used_by_keys_alone(open_page):
    page = open_page("verdict")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator('nav a[href="#runs"]').press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'main'")
    page.locator('main a[href="#run/cppo/seed=1"]').press("Enter")
    page.wait_for_function("() => document.querySelector('h1').textContent === 'cppo/seed=1'")
    assert page.locator("main h2").all_inner_texts() == ["Command", "Curves", "Health", "Mismatch", "Cost"]
    page.locator("summary", has_text="Provenance").press("Enter")
    assert "git_sha" in page.locator("details[open]").inner_text()


# analysis serve


@pytest.fixture
def live(root, tmp_path):
    """A server over the runs that looks every second; its address, and how to end it."""
    page = LivePage([root / "runs"], refresh_seconds=1, allow_mixed=False, cache=tmp_path)
    server = ThreadingHTTPServer((LOOPBACK, 0), handler(page.answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def end():
        server.shutdown()
        server.server_close()

    yield f"http://{LOOPBACK}:{server.server_port}/", end
    end()


def test_the_live_page_draws_itself_anew_where_the_reader_is(chromium, live, root):
    address, end = live
    page = chromium.new_page(viewport={"width": 1440, "height": 500})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address + "#run/grpo/seed=1")
    page.get_by_text("Settings", exact=True).last.press("Enter")
    page.evaluate("scrollTo(0, 300); window.before = true")
    (failed,) = (root / "runs").glob("default/chain/grpo/seed=1-*")
    with open(failed / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "reward/mean": 0.5}\n')
    page.wait_for_function("() => !window.before")
    page.wait_for_function("() => document.body.innerText.includes('step 4 of 28')")
    assert page.evaluate("[scrollY, document.activeElement.textContent, document.querySelectorAll('details[open]').length]") == [
        300, "Settings", 1,
    ]  # fmt: skip
    end()
    page.wait_for_function("() => document.getElementById('live').textContent.startsWith('Not live any more')")
    assert "step 4 of 28" in page.locator("main").inner_text() and errors == []
    page.close()
