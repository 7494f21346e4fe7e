import random

import pytest

from evals import chain


@pytest.mark.parametrize(
    ("left", "operation", "right", "result"),
    [("47", "+", "58", "95"), ("95", "-", "21", "74"), ("74", "*", "37", "18"), ("03", "-", "09", "04"), ("10", "-", "99", "21")],
)
def test_a_step_works_digit_by_digit_without_carry(left, operation, right, result):
    assert chain.step(left, operation, right) == result


def test_the_worked_example():
    assert chain.solution("47+58-21*37:") == "47+58=95;95-21=74;74*37=18;#18"


def test_a_faulty_step_is_carried_on():
    assert chain.solution("47+58-21:", step=lambda left, operation, right: "00") == "47+58=00;00-21=00;#00"


@pytest.mark.parametrize("text", ["47+58", "4+58:", "47:", "47/58:", "47+58:\n"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="not a chain problem"):
        chain.solution(text)


@pytest.mark.parametrize("num_operations", [1, 4, 9])
def test_lengths_and_answer_of_a_sampled_problem(num_operations):
    problem = chain.sample_problem(random.Random(0), num_operations)
    assert len(problem.text) == 3 * num_operations + 3
    response = chain.solution(problem.text)
    assert len(response) == 9 * num_operations + 3
    assert response.endswith(f";#{problem.answer}")


def test_the_longest_training_solution_fits_the_limit():
    assert 9 * max(chain.TRAIN_OPERATIONS) + 4 <= chain.MAX_RESPONSE_TOKENS


@pytest.mark.parametrize("right", chain.INVERTIBLE)
def test_factors_are_invertible(right):
    assert len({chain.digit(left, "*", int(right)) for left in range(10)}) == 10


def test_sampled_factors_are_invertible_and_other_digits_cover_ten():
    texts = [chain.train_problem(0, i).text for i in range(300)]
    factors = [operand for text in texts for operation, operand in chain._OPERATION.findall(text) if operation == "*"]
    assert set("".join(factors)) == set("1379")
    assert {digit for text in texts for digit in text[:2]} == set("0123456789")


def test_training_is_a_random_access_stream():
    problem = chain.train_problem(3, 7)
    assert problem == chain.train_problem(3, 7)
    assert problem.id == "chain-train-3-7"
    others = [chain.train_problem(seed, index).text for seed in (3, 4) for index in range(50)]
    assert len(set(others)) == 100


def test_training_uses_four_to_eight_operations_about_equally():
    counts = [(len(chain.train_problem(0, i).text) - 3) // 3 for i in range(1000)]
    assert {n: counts.count(n) > 150 for n in counts} == {n: True for n in (4, 5, 6, 7, 8)}  # 200 expected, sd 13


def test_training_takes_other_numbers_of_operations():
    assert {(len(chain.train_problem(0, i, [2, 3]).text) - 3) // 3 for i in range(50)} == {2, 3}
    assert chain.train_problem(0, 5, [4, 8]) == chain.train_problem(0, 5)


def test_problems_never_change():
    assert chain.train_problem(1, 0).text == "49*17-38+71+87+58-72*19-03:"
    assert [chain.level(n)[255].text for n in chain.LEVELS] == [
        "94+08-27+64-11:",
        "37-16-36+16*97-57-69:",
        "29-77*79-10*11*11+25*77+15:",
    ]


def test_settings_are_not_chosen_on_held_out_problems():
    held_out = {problem.text for n in chain.LEVELS for problem in chain.level(n)}
    tuning = [problem for n in chain.LEVELS for problem in chain.tuning_level(n)]
    assert not held_out & {problem.text for problem in tuning} and len({problem.id for problem in tuning}) == 768


@pytest.mark.parametrize("num_operations", chain.LEVELS)
def test_a_level_is_256_different_problems_of_one_length(num_operations):
    problems = chain.level(num_operations)
    assert len({problem.text for problem in problems}) == len({problem.id for problem in problems}) == 256
    assert {len(problem.text) for problem in problems} == {3 * num_operations + 3}
    assert problems[0].id == f"chain{num_operations}-000"


def test_an_unknown_level_names_the_known_ones():
    with pytest.raises(ValueError, match=r"\(4, 6, 8\)"):
        chain.level(5)


def test_level_problems_never_reach_training():
    held_out, other = chain.level(6)[17], chain.sample_problem(random.Random(0), 6)
    assert list(chain.outside_levels([held_out, other, held_out])) == [other]


@pytest.mark.parametrize(
    ("response", "verdict", "extracted"),
    [
        ("47+58=95;#95", "correct", "95"),
        ("47+58=94;#95", "correct", "95"),  # the work is not graded
        ("#95", "correct", "95"),
        ("#94#95", "correct", "95"),
        ("# 95 ", "correct", "95"),
        ("#95#94", "wrong", "94"),
        ("#9", "wrong", "9"),
        ("#095", "wrong", "095"),
        ("#95;", "wrong", "95;"),
        ("47+58=95;", "no_answer", None),
        ("", "no_answer", None),
        ("47+58=95;#", "no_answer", None),
        ("#95#", "no_answer", None),
        ("#=;", "no_answer", None),
    ],
)
def test_grade(response, verdict, extracted):
    grade = chain.grade(response, "95", truncated=False)
    assert (grade.verdict, grade.extracted) == (verdict, extracted)


def test_a_leading_zero_belongs_to_the_answer():
    assert chain.grade("#05", "05", truncated=False).correct
    assert not chain.grade("#5", "05", truncated=False).correct


def test_a_truncated_response_is_never_correct():
    grade = chain.grade("47+58=95;#95", "95", truncated=True)
    assert (grade.verdict, grade.extracted, grade.correct) == ("truncated", "95", False)


def test_every_solution_is_graded_correct():
    for problem in chain.level(8):
        assert chain.grade(chain.solution(problem.text), problem.answer, truncated=False).correct
