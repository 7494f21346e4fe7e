"""python -m harness.rescore on made-up stored samples: what changes is known."""

import gzip
import json

import pytest

from evals.graders import make_grader
from harness import rescore
from harness.evaluation import Sample, grade_samples, save_samples

RESPONSES = ["Answer: 025", "**Answer:** 25", "Answer: 25", "Answer: 26", "no idea"]  # gold 25; math_dapo takes the third only


def stored(root, step):
    samples = [Sample(step, "aime24", "p1", i, "25", text, 5, False, "", None, "", "") for i, text in enumerate(RESPONSES)]
    save_samples(root, grade_samples(samples, make_grader("integer")))
    return root / "samples" / f"step={step}.jsonl.gz"


def rows(path):
    return [json.loads(line) for line in gzip.open(path, "rt")]


def test_another_grader_writes_beside_and_says_what_changed(tmp_path, capsys):
    paths = [stored(tmp_path / "a", 0), stored(tmp_path / "b", 7)]
    before = [path.read_bytes() for path in paths]
    assert rescore.main([str(tmp_path), "--grader", "math_dapo", "--examples", "1"]) == 0
    assert [path.read_bytes() for path in paths] == before
    graded = rows(tmp_path / "b" / "samples" / "step=7.math_dapo-2.jsonl.gz")
    assert [row["verdict"] for row in graded] == ["wrong", "wrong", "correct", "wrong", "no_answer"]
    assert [row["verdict_before"] for row in graded] == ["correct", "correct", "correct", "wrong", "no_answer"]
    assert {(row["grader_before"], row["grader"], row["problem_id"]) for row in graded} == {("integer/4", "math_dapo/2", "p1")}
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "aime24, integer/4 → math_dapo/2: 10 samples, correct 60.00% → 20.00%, 4 verdicts changed"
    assert said[1] == "  correct → wrong: 4"
    assert "step 0, p1 #0, gold '25'" in said[2] and "Answer: 025" in said[2]
    assert said[3] == "2 files graded; the new verdicts stand beside them"


def test_without_a_grader_each_file_keeps_its_own(tmp_path, capsys):
    stored(tmp_path, 3)
    assert rescore.main([str(tmp_path)]) == 0
    assert "0 verdicts changed" in capsys.readouterr().out
    assert (tmp_path / "samples" / "step=3.integer-4.jsonl.gz").exists()


def test_graded_files_are_not_graded_again(tmp_path):
    path = stored(tmp_path, 3)
    for _ in range(2):
        rescore.main([str(tmp_path), "--grader", "integer+math_dapo"])
    assert sorted(file.name for file in path.parent.iterdir()) == ["step=3.integer-4+math_dapo-2.jsonl.gz", path.name]


def test_user_errors_have_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="record.samples=true"):
        rescore.main([str(tmp_path)])
    path = stored(tmp_path, 3)
    with pytest.raises(ValueError, match="choose from integer"):
        rescore.main([str(tmp_path), "--grader", "intger"])
    path.write_bytes(gzip.compress(b'{"id": 1}\n'))
    with pytest.raises(ValueError, match="move it away"):
        rescore.main([str(tmp_path)])
