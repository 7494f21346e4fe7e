import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from evals.benchmarks import facts
from evals.graders import grade_integer, make_grader
from evals.integers import read_integer
from evals.markers import find_marker
from evals.math_verify_pool import Pool, Template
from evals.records import VERDICTS
from evals.spelling import canonical

LABELLED = [json.loads(line) for line in Path(__file__).with_name("labelled.jsonl").read_text().splitlines()]
GOLDS = sorted({fact.answer for name in ("aime24", "aime25", "aime26") for fact in facts(name)})
PHRASINGS = [
    "Answer: {}", "**Answer:** {}", "**Answer: {}**", "Final Answer: {}.", "answer: ${}$", "Answer: \\({}\\)", "Answer:\n{}",
    "Answer: x = {}", "Answer: {}<|im_end|>", "Answer： {}。", "\\boxed{{{}}}", "So $\\boxed{{ {} }}$.", "\\boxed{{0{}}}",
    "\\boxed{{{}.0}}", "\\boxed{{m+n={}}}", "\\boxed{{\\text{{{}}}}}", "\\boxed{{{}^\\circ}}", "\\boxed{{{}\\text{{ cm}}^2}}",
    "\\boxed{{\\textbf{{(C)}}\\ {}}}", "First 17, then 12.\n\\[\\boxed{{{}}}\\]\nThis uses 3 facts.",
]  # fmt: skip


@pytest.fixture(scope="module")
def math_verify():
    with make_grader("math_verify") as grader:
        yield grader


@pytest.mark.parametrize("name", ["integer", "math_verify", "math_dapo"])
def test_labelled_table(name, math_verify):
    assert len(LABELLED) >= 150
    grader = math_verify if name == "math_verify" else make_grader(name)
    columns = zip(*((row["response"], row["answer"], row["truncated"]) for row in LABELLED), strict=True)
    grades = grader.grade_many(*columns)
    said = [(row["response"], grade.verdict) for row, grade in zip(LABELLED, grades, strict=True)]
    assert said == [(row["response"], row[name]) for row in LABELLED]
    if name == "integer":
        assert [grade.reason for grade in grades] == [row["reason"] for row in LABELLED]


def test_every_gold_is_right_in_every_phrasing_and_its_neighbours_wrong(math_verify):
    assert len(GOLDS) > 70 and len(PHRASINGS) == 20
    for grader in (make_grader("integer"), math_verify):
        for shift, verdict in ((0, "correct"), (1, "wrong"), (-1, "wrong")):
            pairs = [(phrase.format(int(gold) + shift), gold) for gold in GOLDS for phrase in PHRASINGS if int(gold) + shift >= 0]
            if grader is math_verify:
                pairs = pairs[:: 1 if shift == 0 else 7]
            grades = grader.grade_many(*zip(*pairs, strict=True), [False] * len(pairs))
            unexpected = [pair for pair, grade in zip(pairs, grades, strict=True) if grade.verdict != verdict]
            assert not unexpected


@pytest.mark.parametrize(
    "text, integer",
    [
        ("1,234,567", "1234567"),
        ("12,34", None),
        ("1234,567", None),
        ("٢٠٤", "204"),
        ("–5", "-5"),
        ("5–7", None),
        ("204 \\text{ paths}", "204"),
        ("204^\\text{th}", "204"),
        ("f(x) = 204", "204"),
        ("f(5) = 204", None),
        ("204i", None),
        ("half of 204", None),
        ("9" * 5000, "9" * 5000),
        ("0" * 5000 + "7", "7"),
        ("–\\(5\\)", "-5"),
        ("\\text{–}\\$5", "-5"),
        ("(B) – $5$", "5"),
        ("x – 5", None),
        ("60\\text{ miles/hour}", "60"),
        ("60 \\text{ m/s}^2", "60"),
        ("60\\,\\text{ft}^2/\\text{s}", "60"),
        ("$60/hour", "60"),
        ("60 T-shirts", "60"),
        ("60-minute", "60"),
        ("60 feet squared", "60"),
        ("60 apples each, divided among friends", "60"),
        ("60 dozen", "60"),
        ("<60>", "60"),
        ("x = 60, as required", "60"),
        ("60 \\text{ a/b}", None),
        ("60/pi", None),
        ("(1,204)", None),
        ("\\left(1,204\\right)", None),
        ("\\bigl[1,204\\bigr)", None),
        ("\\{1,204\\}", None),
        ("\\left\\{1,204\\right\\}", None),
        ("\\(1,204\\)", "1204"),
        ("\\{204\\}", "204"),
        ("\\color{red}204", "204"),
        ("\\Huge{204}", "204"),
        ("\\big(204\\big)", "204"),
        ("a_{n+1} = 204", "204"),
        ("204\\,\\text{in.}^2", "204"),
        ("204\\deg", "204"),
        ("5!", None),
    ],
)
def test_read_integer(text, integer):
    assert read_integer(text) == integer


def test_digits_beyond_pythons_integer_limit_compare_as_text():
    digits = "7" * 6000
    grader = make_grader("integer")
    assert grader.grade(f"\\boxed{{{digits}}}", digits).correct
    assert grader.grade(f"\\boxed{{{digits}7}}", digits).verdict == "wrong"


def test_the_later_marker_decides():
    assert find_marker("Answer: 1 then \\boxed{2}").content == "2"
    assert find_marker("\\boxed{2}\nAnswer: 1").content.strip() == "1"
    assert find_marker("\\boxed{\\{2\\}} and \\boxed{3").content == "\\{2\\}"
    assert find_marker("\\boxed{2") is None


def test_a_gold_that_is_no_integer_is_an_error_and_no_wrong_answer():
    for response in ("\\boxed{1}", "nothing"):
        with pytest.raises(ValueError, match="math_verify"):
            make_grader("integer").grade(response, "\\frac{1}{2}")


def test_latex_by_math_verify(math_verify):
    assert math_verify.grade("\\boxed{\\frac{2}{4}}", "\\frac12").correct
    assert math_verify.grade("Answer: $0.5$", "\\frac12").correct
    assert math_verify.grade("\\boxed{\\dfrac{1}{3}\\,}.", "\\frac{2}{6}").correct
    assert math_verify.grade("Answer: $\\left(1,\\ 2\\right).$", "(1,2)").correct
    assert math_verify.grade("Answer: $(1, 2)$", "(1,2)").correct
    assert math_verify.grade("\\boxed{\\frac{1}{3}}", "\\frac12").verdict == "wrong"
    with pytest.raises(ValueError, match="gold"):
        math_verify.grade("\\boxed{1}", " ")


def test_a_bomb_times_out_alone_and_the_rest_is_graded():
    """The worker is replaced; the deadline bounds the wait, whose length is left to benchmarks."""
    responses = [f"\\boxed{{\\frac{{{i}}}{{7}}}}" for i in range(40)]
    responses[20] = "\\boxed{9^{9^{9^{9}}}}"
    with make_grader("math_verify") as grader:
        grader.deadline = 1.0
        verdicts = [grade.verdict for grade in grader.grade_many(responses, ["\\frac{3}{7}"] * 40, [False] * 40)]
    assert verdicts == ["correct" if i == 3 else "grader_timeout" if i == 20 else "wrong" for i in range(40)]


@pytest.mark.parametrize(
    "stated",
    [
        "x + 204", "y = x + 204", ".204", "0,204", "(0,204)", "f(204)", "\\text{floor}(204)", "204 x", "204\\,x", "204xy",
        "204\\mathrm{i}", "2~04", "204, y", "(x,204)", "x=204 \\text{ or } y", "204xyz", "204_{\\text{eight}}", "x != 204",
        "x >= 204", "\\text{not }204", "\\text{less than }204", "\\text{the square root of }204", "\\text{twice }204",
        "204 \\text{ trillion}", "204 \\text{ hundredths}", "204!", "204x-ab", "204! \\text{ ways}", "204!$ Done",
    ],
)  # fmt: skip
def test_what_is_no_integer_is_not_read_as_one(stated):
    grade = grade_integer(f"\\boxed{{{stated}}}", "204")
    assert (grade.verdict, grade.reason) == ("wrong", "not_an_integer")


@pytest.mark.parametrize(
    "gold, answer, correct",
    [("x + 3", "3", False), ("y = x + 3", "y = 3", False), (".6", "6", False), ("(4,112)", "4112", False), ("6xy", "6", False),
     ("3", "x + 3", False), ("10!", "3628800", True), ("120", "5!", True), ("10,\\!000", "10000", True), (".6", "0.6", True)],
)  # fmt: skip
def test_only_integers_are_decided_without_math_verify(math_verify, gold, answer, correct):
    assert math_verify.grade(f"\\boxed{{{answer}}}", gold).correct == correct


@pytest.mark.parametrize(
    "gold, answers",
    [
        ("20\\%", ["20", "20.0\\%", "20%", "20\\text{ percent}", "$20$ percent"]),
        ("12.5", ["12.5\\%", "12.5 pounds", "The weight is 12.5 pounds."]),
        ("\\frac12", [
            "½", "1⁄2", "The probability is $\\frac{1}{2}$.", "$\\frac12$ dollars per hour", "Yes, $\\frac12$",
            "$\\frac12$ of the pie", "**$\\frac12$**!", "(B) $\\frac12$", "x = \\(\\frac12\\)",
            "The answer is 1/2.", "$\\frac12$ miles/hour",
        ]),
        ("½", ["\\frac12"]), ("(-∞, 3)", ["(-\\infty,3)", "(-∞,3)"]), ("7\\text{ hours}.", ["7"]),
        ("\\$18.50", ["$18.50 dollars", "$\\$18.50$"]),
        ("3\\sqrt{2}", ["3√2", "3 √(2)"]), ("\\frac{1+\\sqrt{5}}{2}", ["(1 + √5)/2"]), ("\\frac52", ["2 1/2", "2½"]),
        ("(-\\infty,1)\\cup(2,\\infty)", ["(-∞,1) ∪ (2,∞)"]), ("\\emptyset", ["\\varnothing", "∅"]),
        ("\\text{A,B}", ["A,B", "A, B", "\\text{A},\\text{B}"]), ("\\text{Friday}", ["friday", "The day is $\\text{Friday}$."]),
        ("(1,2)", ["\\big(1,2\\big)", "\\left(1,2\\right)", "The point is (1, 2)."]), ("(1,204)", ["\\left(1,204\\right)"]),
        ("[1,2)", ["\\left[1,2\\right)", "\\text{the interval }[1,2)"]), ("1,204", ["It costs 1,204 dollars", "1204"]),
        ("\\{1,2\\}", ["\\lbrace 1,2\\rbrace"]), ("12_8", ["12_{8}", "12_{\\text{8}}", "12"]),
        ("\\frac13", ["0.\\overline{3}", "0.\\bar3", "$.\\overline{33}$"]),
        ("0.\\overline{3}", ["1/3", "\\frac13", "0.\\bar{3}"]), ("-\\frac{5}{12}", ["-0.41\\overline{6}"]),
        ("12.\\overline{45}", ["\\frac{137}{11}"]),
        ("12", ["12_{10}"]), ("G", ["The answer is $G$."]),
    ],
)  # fmt: skip
def test_other_spellings_are_as_right(math_verify, gold, answers):
    responses = [f"Answer: {answer}" for answer in answers] + [f"\\textbf{{Answer: }} {answer}" for answer in answers]
    grades = math_verify.grade_many(responses, [gold] * len(responses), [False] * len(responses))
    assert [grade.extracted for grade in grades if not grade.correct] == []


@pytest.mark.parametrize(
    "gold, answers",
    [
        ("\\frac12", ["not $\\frac12$", "half of $\\frac12$", "$\\frac12$ or $\\frac13$", "x + $\\frac12$", "2$\\frac12$",
                        "-$\\frac12$"]),
        ("5", ["2 of the $5$ pies", "$5!$", "5_6", "twice 5", "\\le 5", "≥ 5", "\\neq 5", "5 \\text{ million}"]),
        ("12_8", ["12_9", "10"]), ("2.5", ["2.5 million", "3 of 2.5"]),
        ("0.\\overline{3}", ["0.3", "0.33", "3", "0.\\overline{4}", "0.\\overline{" + "3" * 500 + "4}"]),
        ("\\text{odd}", ["even"]), ("\\left(1,2\\right)", ["(2,1)", "\\left(2,1\\right)", "The point is (2,1)."]),
        ("1204", ["\\left(1,204\\right)", "The point is (1,204).", "The set is \\{1,204\\}"]),
    ],
)  # fmt: skip
def test_other_values_stay_wrong(math_verify, gold, answers):
    grades = math_verify.grade_many([f"Answer: {answer}" for answer in answers], [gold] * len(answers), [False] * len(answers))
    assert [grade.extracted for grade in grades if grade.correct] == []


@pytest.mark.parametrize(
    "vote, spellings",
    [
        ("1/3", ["1/3", "\\frac13", "\\dfrac{1}{3}", "\\frac{2}{6}", "x = \\tfrac1{3}", "$\\frac13$"]),
        ("1/2", ["0.5", "1/2", ".50", "½"]), ("-1/3", ["-1/3", "-\\frac13", "\\frac{-1}{3}"]),
        ("204", ["204.0", "204\\text{ cm}"]), ("(x+1)/2", ["(x+1)/2", "\\frac{x+1}{2}"]), ("x+1/2", ["x + \\frac12"]),
        ("1/0", ["1/0", "\\frac10"]), ("1/6", ["\\frac16", "0.1\\overline{6}"]),
        ("\\sqrt{2}", ["√2"]), ("even", ["\\text{even}", "Even"]), ("204 or 205", ["204 or 205"]),
    ],
)  # fmt: skip
def test_spellings_of_one_answer_are_one_vote(vote, spellings):
    assert {canonical(spelling) for spelling in spellings} == {vote}


@pytest.mark.parametrize(
    "response, verdict",
    [("Answer:\n20", "truncated"), ("Answer:\n20\n", "correct"), ("Answer: \\[\n20\n\\]\nso", "correct"),
     ("Answer: <br>\n20\n", "correct"), ("__Answer:__ 20\n", "correct"), ("_Answer: 20_\n", "correct"),
     ("Answer: $20$ \\\\\n", "correct")],
)  # fmt: skip
def test_answers_below_their_marker_and_in_markdown(response, verdict):
    assert grade_integer(response, "20", truncated=True).verdict == verdict


@pytest.mark.parametrize(
    "response, verdict",
    [
        ("**Final Answer:**\n\n$AB = 20$", "correct"), ("Answer:\n$\\angle ABC = 20^\\circ$", "correct"),
        ("Answer:\n$20\\text{ minutes}$", "correct"), ("Answer:\n20 km per hour", "correct"),
        ("Answer:\n\\[\narea = 20\n\\]", "correct"), ("Answer:\n```python\n20\n```", "correct"),
        ("Answer:\n<answer>\n20", "correct"), ("\\boxed{9}\n\n**Answer:**\n20 dollars", "correct"),
        ("\\textbf{Answer:} 20", "correct"), ("$\\text{Answer: } 20$", "correct"), ("Answer: <20>", "correct"),
        ("**Answer: 20**!", "correct"), ("Answer: $20!$", "wrong"), ("Answer: 20! Done", "correct"),
        ("Answer: **20**!! That's it.", "correct"), ("Answer: 20! 🎉", "correct"), ("Answer: 20! ways", "wrong"),
        ("Answer: $20!$ Done", "wrong"), ("Answer:\nSo it is 20", "no_answer"),
        ("Answer:\n1. Simplify", "no_answer"), ("Answer:\nLet $n$ be 20", "no_answer"),
        ("Answer:\n$n$ is at most 20", "no_answer"), ("Answer:\n20 is what the question asks for", "no_answer"),
    ],
)  # fmt: skip
def test_an_answer_on_the_next_line_is_told_from_prose(response, verdict):
    assert grade_integer(response, "20").verdict == verdict


def test_an_environment_is_read_to_its_end():
    matrix = "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}"
    for response in (f"Answer: ${matrix}$\nDone.", f"Answer:\n\\[\n{matrix}\n\\]\nDone."):
        marker = find_marker(response)
        assert marker.complete and marker.stated == matrix
    assert find_marker("Answer: $\\begin{pmatrix}\n1").stated == "\\begin{pmatrix}"


def test_a_worker_that_dies_is_replaced(math_verify):
    assert math_verify.grade("\\boxed{\\frac{1}{5}}", "\\frac12").verdict == "wrong"
    for worker in math_verify.pool.workers:
        os.kill(worker.pid, signal.SIGKILL)
        wait([worker.connection], 10)
    assert math_verify.grade("\\boxed{\\frac{2}{6}}", "\\frac13").correct


def test_a_killed_template_is_replaced(math_verify):
    math_verify.grade("\\boxed{\\frac{1}{5}}", "\\frac12")
    math_verify.pool.template.process.kill()
    math_verify.pool.template.process.wait()
    grades = math_verify.grade_many(["\\boxed{\\frac{2}{6}}", "\\boxed{\\frac{2}{7}}"] * 10, ["\\frac13"] * 20, [False] * 20)
    assert [grade.verdict for grade in grades] == ["correct", "wrong"] * 10


def test_a_template_killed_at_work_loses_no_question(monkeypatch):
    """Its one worker is busy, and more are wanted: they must come from a new template, the busy one's answers too."""
    fork = Template.fork

    def fork_and_die(template):
        worker = fork(template)
        template.process.kill()
        template.process.wait()
        return worker

    monkeypatch.setattr(Template, "fork", fork_and_die)
    questions = [(f"\\frac{{{i}}}{{29}}", f"\\frac{{{j}}}{{29}}") for i in range(1, 5) for j in (i, 7)]
    with Pool() as pool:
        pool.size = 3
        assert pool.ask(questions, 5.0) == {(g, a): "correct" if g == a else "wrong" for g, a in questions}


def test_bombs_in_a_row_time_out_and_nothing_else_does():
    bombs = [f"9^{{9^{{9^{{{i}}}}}}}" for i in range(9, 12)]
    with Pool() as pool:
        questions = [("\\frac12", f"\\frac{{{i}}}{{14}}") for i in range(20)]
        questions[5:5] = [("\\frac12", bomb) for bomb in bombs]
        outcomes = pool.ask(questions, 1.0)
    assert {answer for (_, answer), outcome in outcomes.items() if outcome == "deadline"} == set(bombs)
    assert [answer for (_, answer), outcome in outcomes.items() if outcome == "correct"] == ["\\frac{7}{14}"]


def test_an_interrupted_batch_leaves_no_answer_behind(monkeypatch):
    """The answer to the first question must not be taken for that to the second."""
    with Pool() as pool:
        with monkeypatch.context() as patch:
            patch.setattr(pool, "_collect", lambda *_: exec("raise KeyboardInterrupt"))
            with pytest.raises(KeyboardInterrupt):
                pool.ask([("\\frac12", "\\frac24")], 5.0)
        assert pool.ask([("\\frac12", "\\frac34")], 5.0) == {("\\frac12", "\\frac34"): "wrong"}


PARENT = """
from evals.math_verify_pool import Pool, Template
pool = Pool()
pool.ask([("\\\\frac12", "\\\\frac24")], 60)
print(pool.template.process.pid, *(worker.pid for worker in pool.workers), flush=True)
pool.ask([("\\\\frac12", "9^{9^{9^{9}}}")], 60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_no_process_outlives_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        processes = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.3)  # into the bomb
        assert len(processes) >= 2 and all(_running(pid) for pid in processes)
        parent.kill()
    until = time.monotonic() + 20  # less than the orphans' own alarm
    while any(_running(pid) for pid in processes) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_running(pid) for pid in processes)


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_graders_side_by_side():
    with make_grader("integer+math_dapo") as grader:
        assert grader.version == "integer/4+math_dapo/2"
        assert grader.grade("Answer: 25", "25").verdict == "correct"
        disagreed = grader.grade("Answer: 025", "25")
        assert (disagreed.verdict, disagreed.reason) == ("disagree", "correct_wrong")
    with pytest.raises(ValueError, match="choose from"):
        make_grader("no_such")


def adversarial(rng: random.Random) -> str:
    """One hostile string: pieces that graders trip over, glued at random."""
    pieces = [
        "\\boxed{", "}", "{", "Answer:", "Answer: ", "204", "1204", "2040", "-", ",", ".", "^", "_", "$", "\\", "\n", "\x00",
        "\x1b", "\u202e", "\u200b", "\ufeff", "\ud7ff", "²", "½", "２０４", "\\frac{", "\\sqrt", "9^{9^{9", "=", "**", "`",
        "\\text{", "def f():\n", "<|im_end|>", "\\left(", "\\\\", "0" * 50, "answer", "\\begin{matrix}", "&", "%", "🧮",
        "\\def\\a{\\a\\a}\\a", " " * 30, "٤",
    ]  # fmt: skip
    return "".join(rng.choices(pieces, k=rng.randrange(1, 40)))


def test_ten_thousand_hostile_strings():
    rng = random.Random(7)
    strings = [adversarial(rng) for _ in range(10_000)]
    for name in ("integer", "math_dapo"):
        grader = make_grader(name)
        assert {grade.verdict for grade in grader.grade_many(strings, ["204"] * len(strings), [False] * len(strings))} <= {
            "correct", "wrong", "no_answer",
        }  # fmt: skip
    with make_grader("math_verify") as grader:
        grader.deadline = 0.5
        few = [f"\\boxed{{{text}}}" for text in strings[:100]]
        assert {grade.verdict for grade in grader.grade_many(few, ["204"] * len(few), [False] * len(few))} <= set(VERDICTS)


PIECES = [
    "\\boxed{", "{", "Answer:", "answer", "1", " ", "_a", "\\text{", "*_", "1,", "9^{", "<|", "\\", "m ", "４", "=1", "*~", "/ ",
    "–$", "\\begin{",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("frame", ["{}", "\\boxed{{{}}}", "Answer: {}", "Answer: 2{}4"])
def test_a_long_response_is_graded_and_little_of_it_kept(piece, frame):
    """200,000 characters; quadratic work on them would take minutes."""
    response = frame.format(piece * (200_000 // len(piece)))
    for name in ("integer", "math_dapo"):
        grade = make_grader(name).grade(response, "204")
        assert grade.verdict in ("wrong", "no_answer")
        assert len(grade.extracted or "") <= 200


def test_graders_leave_global_random_states_alone():
    import numpy as np

    before = random.getstate(), np.random.get_state()[1].tolist()
    make_grader("integer").grade("\\boxed{1}", "1")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


BELOW = {
    "**Answer:**\n204 cm^2": "204",
    "**Answer:**\n204 cm$^2$": "204",
    "**Answer:**\n- **204**": "204",  # an item of a list
    "> Answer:\n> 204": "204",
    "**Answer:**\n-204": "-204",
    "Answer: 204 o'clock": "204",
}


@pytest.mark.parametrize("response, gold", BELOW.items(), ids=BELOW)
def test_units_lists_and_quotes_below_the_marker(response, gold):
    for grader in ("integer", "math_verify"):
        with make_grader(grader) as chosen:
            assert chosen.grade(response, gold).correct, grader


@pytest.mark.parametrize("gold, response, correct", [
    ("\\frac12", "\\boxed{50\\%}", True),
    ("0.5", "Answer: 50 percent.", True),
    ("20\\%", "\\boxed{0.2}", True),
    ("20\\%", "\\boxed{20}", True),
    ("\\frac13", "\\boxed{50\\%}", False),
    ("0.5", "\\boxed{50}", False),
])  # fmt: skip
def test_a_percentage_is_its_number_and_its_share(gold, response, correct):
    with make_grader("math_verify") as grader:
        assert grader.grade(response, gold).correct == correct


@pytest.mark.parametrize("text", ["all real numbers except 204", "at least 204", "greater than or equal to 204"])
def test_a_bound_is_no_integer(text):
    assert not make_grader("integer").grade(f"Answer: {text}", "204").correct


def test_a_mixed_number_votes_for_no_other():
    assert canonical(r"2\frac13") == canonical("2 1/3") == canonical("2⅓") != canonical("7")
    assert canonical(r"\frac{2}{3}x") != canonical(r"\frac{2}{3x}")
