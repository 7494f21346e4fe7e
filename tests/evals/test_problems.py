import json
import os
import re
from pathlib import Path

import pytest

from evals import hub, prompts
from evals.__main__ import main
from evals.benchmarks import BENCHMARKS, check_copy, facts, load, similarity, sketch
from evals.overlap import find_overlap
from evals.problems import fingerprint, normalise, read_problems, read_rows
from evals.records import Problem

DATA = os.environ.get("HARNESS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set HARNESS_DATA to the folder of evaluation data")
YEARS = ["aime24", "aime25", "aime26"]


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row, answer",
    [
        ({"problem": "What?", "answer": 25}, "25"),
        ({"question": "What?", "answer": "Add 20 and 5.\n#### 25"}, "25"),
        ({"problem": "What?", "solution": "It is $\\boxed{25}$."}, "25"),
        ({"problem": "What?", "answer": "025", "solution": "\\boxed{9}"}, "25"),
        ({"problem": "What?", "answer": 25.0}, "25"),
        ({"problem": "What?", "answer": "\\frac{1}{2}"}, "\\frac{1}{2}"),
        ({"prompt": [{"role": "user", "content": "What?"}], "reward_model": {"ground_truth": "25", "style": "rule"}}, "25"),
        ({"prompt": prompts.render("dapo", "What?"), "ground_truth": "25"}, "25"),
        ({"problem": prompts.render("boxed", "What?"), "expected_answer": "25"}, "25"),
    ],
)
def test_layouts_of_the_usual_copies(tmp_path, row, answer):
    (problem,) = read_problems(write(tmp_path / "x.jsonl", [row]))
    assert (problem.text, problem.answer, problem.id) == ("What?", answer, "row-00001")


def test_parquet_reads_as_json_lines(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [{"prompt": [{"role": "user", "content": f"Q{i}"}], "reward_model": {"ground_truth": str(i)}} for i in range(3)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert read_problems(tmp_path / "x.parquet") == read_problems(write(tmp_path / "x.jsonl", rows))


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"problem": "a", "answer": 1}\n{"problem": ', "x.jsonl:2"),
        ('{"problem": "a", "answer": 1}\n\n[1]\n', "x.jsonl:3"),
        ('{"text": "a", "answer": 1}\n', "x.jsonl:1.*problem, question"),
        ('{"problem": "a"}\n', "x.jsonl:1.*answer"),
        ('{"problem": "a", "answer": null}\n', "x.jsonl:1"),
        ('{"problem": "", "answer": 1}\n', "x.jsonl:1: empty problem"),
        ('{"problem": "a", "answer": "\\\\boxed{}"}\n', "x.jsonl:1: empty answer"),
        ('{"problem": "a", "answer": NaN}\n', "x.jsonl:1: the answer is nan; expected text or a finite number"),
        ('{"problem": "a", "answer": 1e400}\n', "x.jsonl:1: the answer is inf"),
        ('{"problem": "a", "solution": "Thus x is 5."}\n', "x.jsonl:1: no .*boxed.* in solution; give the answer in a column"),
        ("\n" + "[" * 100_000, "x.jsonl:2: not JSON"),
        (b'{"problem": "a", "answer": 1}\n{"problem": "\xe9"}\n', "x.jsonl:2: not JSON .*utf-8"),
        ("", "no problems"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place(tmp_path, content, message):
    (tmp_path / "x.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_problems(tmp_path / "x.jsonl")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"problem": "What?", "answer": 25}\n', encoding="utf-8-sig")
    assert [problem.answer for problem in read_problems(tmp_path / "x.jsonl")] == ["25"]


def test_duplicates_are_refused_above_one_percent_unless_allowed(tmp_path):
    rows = [{"id": i, "problem": f"Problem number {i}?", "answer": i} for i in range(200)]
    few = write(tmp_path / "few.jsonl", [*rows, rows[0], {**rows[1], "problem": "problem  number $1$?"}])
    assert len(read_problems(few)) == 200
    many = write(tmp_path / "many.jsonl", rows[:10] * 3)
    with pytest.raises(ValueError, match="30 rows, 10 unique"):
        read_problems(many)
    assert len(read_problems(many, allow_duplicates=True)) == 10
    other = write(tmp_path / "other.jsonl", [*rows, {**rows[0], "answer": 5}])
    with pytest.raises(ValueError, match="1 repeated with another answer"):
        read_problems(other)


def test_different_problems_may_not_share_an_id(tmp_path):
    rows = [{"id": i % 2, "problem": f"Problem number {i}?", "answer": i} for i in range(3)]
    with pytest.raises(ValueError, match="different problems with the same id '0'; give each its own"):
        read_problems(write(tmp_path / "x.jsonl", rows))


def test_fingerprint_follows_content_alone(tmp_path):
    problems = [Problem("a", "What?", "1"), Problem("b", "Why?", "2")]
    assert fingerprint(problems) == fingerprint([Problem("c", "What?", "1", "elsewhere"), Problem("d", "Why?", "2")])
    assert fingerprint(problems) != fingerprint(problems[::-1])
    assert fingerprint(problems) != fingerprint([Problem("a", "What?", "2"), problems[1]])


def test_normalise_keeps_what_matters():
    assert normalise("Find  $x$\n now.") == normalise("find x now.")
    assert normalise("x + 1") != normalise("x - 1")
    assert normalise("2 1") != normalise("21")


def test_sketches_of_equal_and_of_unrelated_texts():
    text = "Find the number of positive integers less than 2024 for which Bob wins the game."
    assert similarity(sketch(text), sketch(text)) == 1.0
    assert similarity(sketch(text), sketch("A torus rests on the inside of a sphere; find the difference of radii.")) < 0.2


def test_templates(tmp_path):
    assert prompts.render("raw", "A {b}") == "A {b}"
    for name in prompts.TEMPLATES:
        rendered = prompts.render(name, "What is {x}?")
        assert "What is {x}?" in rendered and prompts.untemplate(rendered) == "What is {x}?"
    file = tmp_path / "t.txt"
    file.write_text(prompts.TEMPLATES["boxed"])
    assert prompts.template_hash(str(file)) == prompts.template_hash("boxed") != prompts.template_hash("dapo")
    (tmp_path / "bad.txt").write_text("no slot")
    with pytest.raises(ValueError, match="0 times"):
        prompts.render(str(tmp_path / "bad.txt"), "x")
    with pytest.raises(ValueError, match="choose one of"):
        prompts.render("no_such", "x")


def test_shipped_facts():
    for year in YEARS:
        assert len(facts(year)) == 30
        assert all(fact.answer.isdigit() and int(fact.answer) <= 999 for fact in facts(year))
    assert len({fact.text_hash for year in YEARS for fact in facts(year)}) == 90
    assert len(facts("gsm8k")) == 1319


def test_a_benchmark_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("evals.benchmarks._hub_file", None)  # a folder that was named is the only place
    with pytest.raises(ValueError, match=f"eval.root={tmp_path} holds no aime24.jsonl or aime24.parquet.*HARNESS_DATA"):
        load("aime24", tmp_path)
    with pytest.raises(ValueError, match="choose from"):
        load("aime99")
    assert [len(load(name)) for name in BENCHMARKS if name.startswith("chain")] == [256] * 6
    path = write(tmp_path / "mine.jsonl", [{"problem": "What?", "answer": 1}])
    assert load(f"jsonl:{path}")[0].answer == "1"


def put_into_cache(root: Path, hub_file, content: bytes) -> None:
    """Lay a file where the hub's own client looks first."""
    folder = root / f"datasets--{hub_file.repo.replace('/', '--')}" / "snapshots" / hub_file.revision / hub_file.file
    folder.parent.mkdir(parents=True)
    folder.write_bytes(content)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return tmp_path / "hub"


@needs_data
@pytest.mark.parametrize("name", ["aime25", "aime26"])
def test_a_cached_hub_copy_is_read_offline_at_its_pinned_revision(name, hub_cache):
    source = BENCHMARKS[name].hub
    assert re.fullmatch("[0-9a-f]{40}", source.revision)
    with pytest.raises(ValueError, match=f"no local copy of {name}.*eval.root.*{source.revision}.*neither in the hub's cache"):
        load(name)
    put_into_cache(hub_cache, source, Path(DATA, f"{name}.jsonl").read_bytes())
    assert [problem.id for problem in load(name)] == [fact.id for fact in facts(name)]


def test_a_training_set_of_the_hub_is_read_from_its_cache(hub_cache):
    source = hub.HubFile("org/problems", "0" * 40, "data/train.jsonl")
    rows = [{"problem": f"What is {i % 5}?", "answer": i % 5} for i in range(500)]
    put_into_cache(hub_cache, source, "".join(json.dumps(row) + "\n" for row in rows).encode())
    with pytest.raises(ValueError, match="500 rows, 5 unique problems.*allow duplicates"):
        read_problems(str(source))
    assert [problem.answer for problem in read_problems(str(source), allow_duplicates=True)] == list("01234")
    with pytest.raises(ValueError, match="expected hub:OWNER/NAME@REVISION:FILE"):
        read_problems("hub:org/problems")


@needs_data
@pytest.mark.parametrize("name", YEARS)
def test_real_copies_pass(name, capsys):
    assert main(["verify", name, f"{DATA}/{name}.jsonl", "--strict"]) == 0
    assert "30 rows, 30 distinct problems of 30, 0 with faults, 0 reworded" in capsys.readouterr().out
    assert [problem.id for problem in load(name, DATA)] == [fact.id for fact in facts(name)]


@needs_data
def test_gsm8k_passes():
    assert main(["verify", "gsm8k", f"{DATA}/gsm8k_test.jsonl"]) == 0
    assert len(load("gsm8k", DATA)) == 1319


def real_rows(name: str = "aime24") -> list[dict]:
    return [json.loads(line) for line in Path(DATA, f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


REWORDING = "Please compute carefully: "


@needs_data
@pytest.mark.parametrize("keep_ids", [True, False])
@pytest.mark.parametrize(
    "plant, said, status, strict",
    [
        (lambda rows: rows[4].update(answer="999"), "changed answer: 999", 1, 1),
        (lambda rows: rows.pop(4), "missing", 1, 1),
        (lambda rows: rows.append(dict(rows[4])), "duplicated, 2 rows", 1, 1),
        (lambda rows: rows[4].update(problem=REWORDING + rows[4]["problem"]), "reworded", 0, 1),
        (lambda rows: rows[4].update(problem="Something else altogether."), "reworded", 0, 1),
        (lambda rows: rows[4].update(problem=REWORDING + rows[4]["problem"], answer="999"), "changed answer: 999", 1, 1),
    ],
)
def test_each_planted_fault_is_named(tmp_path, capsys, plant, said, status, strict, keep_ids):
    rows = real_rows()
    key = rows[4]["id"]
    plant(rows)
    path = write(tmp_path / "x.jsonl", rows if keep_ids else [{k: v for k, v in row.items() if k != "id"} for row in rows])
    assert main(["verify", "aime24", str(path)]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(f"{key}: ") and said in line]
    assert len(lines) == 2, "one line for the problem, one summary"
    assert main(["verify", "aime24", str(path), "--strict"]) == strict


@needs_data
def test_a_reworded_copy_loads_and_says_so(tmp_path, caplog):
    rows = real_rows()
    rows[4]["problem"] = REWORDING + rows[4]["problem"]
    write(tmp_path / "aime24.jsonl", rows)
    assert len(load("aime24", tmp_path)) == 30
    assert "1 of 30 problems are worded otherwise; python -m evals verify aime24 FILE names them" in caplog.text


@needs_data
def test_copies_of_every_problem_are_taken_once(tmp_path, capsys):
    path = write(tmp_path / "aime24.jsonl", real_rows() * 32)
    assert main(["verify", "aime24", str(path)]) == 0
    assert "960 rows, 30 distinct" in (said := capsys.readouterr().out) and "stands 32 times" in said
    assert load("aime24", tmp_path) == load("aime24", DATA)


@needs_data
def test_unknown_rows_and_other_years_are_faults(tmp_path):
    check = check_copy("aime24", read_rows(f"{DATA}/aime25.jsonl"))
    assert sum(said.startswith("missing") for said in check.faults.values()) > 20
    write(tmp_path / "aime24.jsonl", [*real_rows(), {"problem": "What is one and one?", "answer": "2"}])
    with pytest.raises(ValueError, match="unknown"):
        load("aime24", tmp_path)


@needs_data
def test_answers_as_hub_copies_write_them(tmp_path):
    rows = [{"problem": row["problem"], "answer": f"{int(row['answer']):03d}^\\circ"} for row in real_rows()]
    write(tmp_path / "aime24.jsonl", rows)
    assert [(p.id, p.answer) for p in load("aime24", tmp_path)] == [(p.id, p.answer) for p in load("aime24", DATA)]


def test_overlap_exact_and_by_word_runs():
    words = [f"word{i}" for i in range(30)]
    held_out = [Problem("e1", " ".join(words), "1"), Problem("e2", "What is two plus two?", "4")]
    train = [
        Problem("t1", "Prefix " + " ".join(words[:25]), "1"),
        Problem("t2", "what is $two$ plus two?", "4"),
        Problem("t3", " ".join(words[:14]), "1"),
        Problem("t4", "Something else that shares nothing at all with either of the two, long as it is.", "4"),
        Problem("t5", "Tell me: what is two plus two? Explain.", "4"),
    ]
    hits = [(hit.train_id, hit.eval_id, hit.kind) for hit in find_overlap(train, held_out)]
    assert hits == [("t1", "e1", "ngram"), ("t2", "e2", "exact"), ("t5", "e2", "ngram")]


@needs_data
def test_real_training_stand_in_does_not_overlap():
    train = read_problems(f"{DATA}/aime_1983_2023.jsonl")
    assert find_overlap(train, [problem for name in YEARS for problem in load(name, DATA)]) == []


def test_grade_command(tmp_path, capsys):
    rows = [
        {"id": "a", "response": "\\boxed{204}", "answer": 204, "extra": [1]},
        {"id": "b", "response": "nothing", "answer": "204"},
        {"id": "c", "response": "Answer: 20", "answer": "204", "truncated": True},
    ]
    out = tmp_path / "out.jsonl"
    assert main(["grade", "--grader", "integer", str(write(tmp_path / "in.jsonl", rows)), "--out", str(out)]) == 0
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["verdict"] for row in graded] == ["correct", "no_answer", "truncated"]
    assert graded[0] == {
        "id": "a", "response": "\\boxed{204}", "answer": "204", "extra": [1],
        "verdict": "correct", "extracted": "204", "reason": "", "grader": "integer/4",
    }  # fmt: skip
    assert "3 responses" in capsys.readouterr().out
    assert main(["grade", "--grader", "integer", str(write(tmp_path / "bad.jsonl", [{"id": 1}])), "--out", str(out)]) == 2
    assert "bad.jsonl:1: no response, answer" in capsys.readouterr().err
    path = write(tmp_path / "blank.jsonl", [{"id": 1, "response": "Answer: $$", "answer": " "}])
    assert main(["grade", "--grader", "math_dapo", str(path), "--out", str(out)]) == 2
    assert "blank.jsonl:1: the answer is empty" in capsys.readouterr().err


def test_a_failed_grade_command_leaves_the_earlier_file(tmp_path):
    path = write(tmp_path / "in.jsonl", [{"id": "a", "response": "\\boxed{2}", "answer": "2"}])
    grade = ["grade", "--grader", "integer", str(path), "--out", str(path)]
    assert main(grade) == 0
    graded = path.read_bytes()
    assert b'"correct"' in graded and main(grade) == 0 and path.read_bytes() == graded
    path.write_bytes(graded.replace(b'"answer": "2"', b'"answer": "x"'))
    before = path.read_bytes()
    assert main(grade) == 2
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]
    assert main([*grade[:-1], str(tmp_path / "absent" / "out.jsonl")]) == 2
