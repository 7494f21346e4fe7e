r"""`math_dapo` against verl's own scorer. HARNESS_VERL names a folder made by

pip install --no-deps --target FOLDER verl==0.9.0      # 0.9.1 reads a lone \boxed{} where there is no `Answer:`
"""

import importlib.util
import os
import random
from pathlib import Path

import pytest

from evals import math_dapo

SCORER = "verl/utils/reward_score/math_dapo.py"
FORMS = [
    "Answer: {}", "Answer: ${}$", "so\nAnswer: \\boxed{{{}}}", "answer : {} .", "**Answer:** {}", "Answer: $\\boxed{{{}}}$.",
    "The answer is \\boxed{{{}}}", "Answer: x = {}", "Answer: {} degrees", "Answer: \\text{{{}}}", "Answer: {}\nAnswer: 7",
    "Answer: {},000", "Answer: $\\frac{}3$", "Answer: {}$^\\circ$", "Answer:{}\n\n", "Answer:\n{}", "... Answer: a {}",
    "Answer: {} units\\ldots", "Answer: $\\mbox{{{}}}$", "Answer: {}" + " " * 310, "Answer: ", "\\boxed{{{}}}", "nothing {}",
    "Answer: $a$ and ${}$", "Answer: \\textbf{{{}}}", "Answer: \\sqrt{}", "Answer: \\overline{{{}}}", "Answer: an {}",
]  # fmt: skip
GOLDS = [
    "204", "025", "7", "1,234", "-3", "\\frac{3}{4}", "\\frac34", "2\\sqrt{3}", "\\sqrt5", "(1,-2)", "50\\%", "\\$12",
    "90^\\circ", "\\text{even}", "x^2-3x+2", "y=2x+1", "\\begin{pmatrix}1&2\\end{pmatrix}", "3 \\text{ cm}", "12_{8}", "[0,1)",
    "\\dfrac{a}{b}",
]  # fmt: skip


@pytest.fixture(scope="module")
def scorer():
    folder = os.environ.get("HARNESS_VERL")
    if not folder:
        pytest.skip("HARNESS_VERL names no folder with verl 0.9.0")
    spec = importlib.util.spec_from_file_location("verl_math_dapo", Path(folder) / SCORER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compute_score


def right(scorer, response: str, gold: str) -> bool:
    return bool(scorer(response, gold)["acc"])


def test_answers_in_many_forms(scorer):
    pairs = [
        (form.format(answer), gold) for form in FORMS for gold in GOLDS for answer in (gold, gold + "1", f" {gold} ", *GOLDS[:8])
    ]
    differ = [pair for pair in pairs if right(scorer, *pair) != math_dapo.grade(*pair).correct]
    assert differ == []
    assert 500 < sum(math_dapo.grade(*pair).correct for pair in pairs) < len(pairs) / 2


def test_pieces_in_any_order(scorer):
    pieces = [*math_dapo._REMOVED, *(old for old, _ in math_dapo._REPLACED), *"{}$=,. \n012a", "Answer:", "\\frac", "\\boxed{"]
    rng = random.Random(0)
    for _ in range(20_000):
        gold = "".join(rng.choices(pieces, k=rng.randrange(1, 4)))
        noise = "".join(rng.choices(pieces, k=rng.randrange(3)))
        response = rng.choice(("Answer: ", "answer:", "")) + rng.choice((gold, gold + noise, noise + gold, f"${gold}$"))
        assert right(scorer, response, gold) == math_dapo.grade(response, gold).correct, (response, gold)
