"""Training problems of a step, and their prompts."""

import pytest

from harness.data import load_problems, step_problems, training_prompts
from harness.parts import build
from harness.rollout.queue import response_seeds
from harness.settings.compose import compose_config, compose_plan
from harness.store import RunFolder


@pytest.fixture
def words(tmp_path, write_problems):
    path = write_problems(tmp_path / "train.jsonl", 10, seed=1)
    return ["data=jsonl", f"data.path={path}", "data.template=raw", "data.grader=chain", f"runs_dir={tmp_path}"]


def test_each_epoch_sees_every_problem_once_in_an_order_of_its_own(words):
    data = compose_config(words).data
    steps = [step_problems(data, 1, step, 4) for step in range(1, 6)]
    ids = [problem.id for step in steps for problem in step]
    everything = {problem.id for problem in load_problems(data.path, False)}
    assert set(ids[:10]) == set(ids[10:]) == everything and ids[:10] != ids[10:]
    assert [p.id for p in step_problems(data, 1, 3, 4)] == ids[8:12]
    assert [p.id for s in range(1, 6) for p in step_problems(data, 2, s, 4)] != ids


def test_a_file_under_another_name_gives_the_same_seeds(words, tmp_path):
    texts = ['{"problem": "1+2", "answer": "3"}', '{"problem": "2+2", "answer": "4"}']
    seeds = []
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("\n".join(texts))
        config = compose_config([*words, f"data.path={tmp_path / name}"])
        seeds.append(response_seeds(config, 1, load_problems(config.data.path, False)))
    assert seeds[0] == seeds[1]


def test_a_problem_that_comes_twice_in_a_step_gets_responses_of_its_own(words):
    config = compose_config([*words, "train.prompts_per_step=23", "train.group_size=4"])
    problems = step_problems(config.data, 1, 1, 23)
    seeds = response_seeds(config, 1, problems)
    assert len({problem.id for problem in problems}) == 10 and len(set(seeds)) == 23 * 4
    assert seeds[: 10 * 4] == response_seeds(config, 1, problems[:10])


def test_prompts_of_a_file_are_those_of_the_tokenizer(words):
    config = compose_config(words)
    problems = load_problems(config.data.path, False)
    ids = [2 + "0123456789+-*=;#:".index(character) for character in problems[3].text]
    assert training_prompts(config, problems[3:4]) == [ids]


def test_a_prompt_that_is_too_long_fails_before_training(words):
    """Whichever step would have drawn it."""
    plan = compose_plan([*words, "data.max_prompt_length=14", "train.prompts_per_step=2"])
    with pytest.raises(ValueError, match=r"more than 14 tokens: problem p0 \(15\).*and 5 more.*data.max_prompt_length"):
        build(plan)


def test_answers_that_the_grader_cannot_take_are_found_before_training(words, tmp_path):
    path = tmp_path / "latex.jsonl"
    path.write_text('{"id": "a", "problem": "1+2", "answer": "3"}\n{"id": "b", "problem": "1*2", "answer": "\\\\frac{1}{2}"}\n')
    latex = [*words, f"data.path={path}"]
    with pytest.raises(ValueError, match=r"1 answers are no integers: b .*set data.grader=math_verify"):
        compose_plan([*latex, "data.grader=integer+math_verify", "eval.grader=chain"])
    assert compose_plan([*latex, "data.grader=math_verify", "eval.grader=chain"]).config.data.grader == "math_verify"
    with pytest.raises(ValueError, match="set eval.grader=math_verify"):
        compose_plan([*words, f"eval.benchmarks=['jsonl:{path}']", "eval.grader=integer"])


def test_chains_are_graded_as_chains_whatever_the_data(words, tmp_path):
    assert compose_plan([*words, "data.grader=integer", "harness.dry_run=true"]).config.eval.grader == "chain"
    path = tmp_path / "sums.jsonl"
    path.write_text('{"id": "a", "problem": "1+2", "answer": "3"}\n')
    with pytest.raises(ValueError, match=r"chain, but 1 problems are no chain arithmetic: a .*set eval.grader=integer"):
        compose_plan([*words, f"eval.benchmarks=['jsonl:{path}']"])


@pytest.mark.parametrize("word", ["data.grader=integer", "data.grader=chain+math_verify", "eval.grader=math_dapo"])
def test_a_chain_is_not_searched_for_an_answer_that_its_model_cannot_write(word):
    key = word.partition("=")[0]
    with pytest.raises(ValueError, match=rf"{key}=.* model.path='builtin:chain' can't write: set {key}=chain, or"):
        compose_plan([word])


def test_a_prompt_that_the_tokenizer_cannot_write_is_found_before_training(words, tmp_path):
    with pytest.raises(ValueError, match=r"can't write 'P' .* p0 \(data.template=boxed\): set data.template=raw, or"):
        compose_plan([*words, "data.template=boxed"])
    path = tmp_path / "words.jsonl"
    path.write_text('{"id": "a", "problem": "What is 1+1?", "answer": "2"}\n')
    benchmark = [f"eval.benchmarks=['jsonl:{path}']", "eval.grader=integer"]
    with pytest.raises(ValueError, match=r"builtin:chain.*can't write 'W' .* a \(eval.template=raw\): take another model"):
        compose_plan([*words, *benchmark])
    assert compose_plan([*words, *benchmark, "harness.dry_run=true"]).config.eval.grader == "integer"


def test_a_file_trains_and_its_prompts_are_recorded(words, tmp_path, run_small):
    run = run_small(tmp_path, *words, "eval.benchmarks=[]", "data.max_response_length=45")
    recorded = RunFolder(run).read_config()["prompts"]["train"]
    assert (recorded["template"], recorded["chat_template"], recorded["stop_tokens"]) == ("raw", False, ["<eos>"])
    assert [row["prompt_length/mean"] for row in RunFolder(run).rows("metrics")] == [15, 15]
