"""report.html in headless Chromium: every view opens without a word on the console, and shows the numbers that are stored."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

from made_up import write_run  # noqa: E402

from analysis.load import load  # noqa: E402
from analysis.report import report  # noqa: E402
from analysis.results import analyse  # noqa: E402

pytestmark = pytest.mark.browser

VIEWS = ("verdict", "settings", "tables", "curves", "stability", "runs", "compare", "tokens")
HOSTILE = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "\u202eabc\u202c", "\x00\x1b[31m\u2028", "&amp;")
STEPS = (7, 14, 21)
LENGTH = 6


def trace(step: int) -> dict:
    """One response whose numbers tell token and step apart; token 4 is dropped by cppo alone."""
    number = lambda factor: [round(factor * (i + 1) + step / 1000, 6) for i in range(LENGTH)]
    tokens = [*HOSTILE, "7"]
    aux = {"w": number(0.1), "Z": number(0.01), "S_prev": number(0.02), "W_prev": number(0.5), "c": 0.15, "delta_b": 0.02}
    return {
        "format": 1, "step": step, "update": 4, "divergence": "topk_tv",
        "rules": {"own": {"rule": "dppo", "settings": {"delta": 0.15}}, "cppo": {"rule": "cppo", "settings": {"delta": 0.15}}},
        "responses": [{
            "problem_id": HOSTILE[0], "sample": 3, "prompt": HOSTILE[1], "reward": 1.0, "advantage": 0.625, "truncated": False,
            "token_ids": list(range(LENGTH)), "tokens": tokens, "rollout_logprobs": number(-0.3), "logprobs": number(-0.2),
            "ratio": number(0.9), "divergence": number(0.03), "entropy": None,
            "rules": {
                "own": {"weight": number(0.9), "keep": 1, "aux": {}},
                "cppo": {"weight": number(0.8), "keep": [1, 1, 1, 0, 1, 1], "aux": aux},
            },
        }],
    }  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("browser")
    curve = [0.25, 0.5, 0.625, 0.75, 0.75]
    for method in ("cppo", "dppo", "cispo"):
        for seed in (1, 2):
            collapse = {"collapse_step": 12, "state": "collapsed"} if method == "cispo" else {}
            folder = write_run(root / "runs", method, seed, curve, **collapse)
            (folder / "traces").mkdir()
            for step in STEPS:
                (folder / "traces" / f"step={step}.json").write_text(json.dumps(trace(step)))
    failed = write_run(root / "runs", "grpo", 1, [0.25], state="failed", step=3)
    status = json.loads((failed / "status.json").read_text())
    (failed / "status.json").write_text(json.dumps(status | {"reason": HOSTILE[0], "command": " ".join(HOSTILE[:2])}))
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
    assert page.url.endswith("#tokens/dppo/seed=1/step=14/rule=cppo")


def test_the_viewer_by_keyboard(open_page):
    page = open_page("tokens/cispo/seed=1/step=14")
    page.locator(".token[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.url.endswith("step=14/rule=cppo/token=1") and page.locator(".token:focus").count() == 1
    page.keyboard.press("Shift+ArrowLeft")
    assert "step=7" in page.url and float(facts(page)["divergence"]) == trace(7)["responses"][0]["divergence"][1]
    page.keyboard.press("End")
    assert page.url.endswith(f"token={LENGTH - 1}")


def test_slider_and_the_way_to_the_collapse(open_page):
    page = open_page("tokens/cispo/seed=1/step=21")
    page.get_by_role("button", name="nearest to the collapse").click()
    assert page.url.endswith("#tokens/cispo/seed=1/step=14")
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    assert page.url.endswith("step=7") and page.locator("output").inner_text() == "step 7"


def test_hostile_text_is_shown_and_runs_nothing(open_page):
    page = open_page("tokens/dppo/seed=1/step=14")
    tokens = [token.text_content() for token in page.locator(".token").all()]
    assert tokens[0] == HOSTILE[0].replace(" ", "␣") and tokens[1] == HOSTILE[1] and tokens[4] == HOSTILE[4]
    assert tokens[2] == "⟨U+202E⟩abc⟨U+202C⟩" and tokens[3] == "⟨U+0000⟩⟨U+001B⟩[31m⟨U+2028⟩"
    assert HOSTILE[1] in page.locator(".prompt").text_content()
    page = open_page("run/grpo/seed=1")
    assert page.locator("main img, main script").count() == 0 and HOSTILE[0] in page.locator("main .warning").text_content()
    assert "alert(2)" in page.locator("pre").text_content()


def test_a_run_that_has_no_tokens_and_one_that_is_not_there(open_page):
    assert "has no recorded tokens" in open_page("tokens/grpo/seed=1").locator("main").inner_text()
    assert "no run “nobody/seed=9”" in open_page("run/nobody/seed=9").locator("main").inner_text()


def test_tables_sort_and_numbers_name_their_runs(open_page):
    page = open_page("tables")
    table = page.locator("#section-table1")
    table.get_by_role("button", name="chain", exact=True).click()
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
    assert "#run/" in page.url and page.locator("dialog[open]").count() == 0


def test_comparison_of_two_runs_shows_what_differs(open_page):
    page = open_page("compare/cppo/seed=1/vs/dppo/seed=2")
    rows = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()}
    assert rows["seed"] == ["1", "2"] and rows["method.rule"] == ["cppo", "dppo"] and "train.lr" not in rows
    page.locator("main select").nth(1).select_option("cispo/seed=1")
    page.wait_for_function("location.hash.endsWith('/vs/cispo/seed=1')")


def test_curves_are_read_by_arrow_keys(open_page):
    page = open_page("curves")
    figure = page.locator("#section-fig4 figure").first
    figure.locator("svg[role=img]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert figure.locator(".readout").inner_text().startswith("step 7: ") and "CPPO 50" in figure.locator(".readout").inner_text()
