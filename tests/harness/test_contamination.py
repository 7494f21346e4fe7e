"""Training data against evaluation sets: found before training, refused unless allowed by name, recorded."""

import json
import os

import pytest

from harness.settings.compose import compose_plan

STORY = "A train leaves at noon with {} cars and each of the cars holds seven crates of apples. How many crates are on the train?"
DRY = "harness.dry_run=true"  # the embedded model could not read these problems


def write(path, texts):
    rows = [{"id": f"{path.stem}-{i}", "problem": text, "answer": "7"} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def words(tmp_path):
    write(tmp_path / "held_out.jsonl", ["What is $1+2$?", STORY.format("three")])
    clean = [f"Problem number {i} of many, find x." for i in range(120)]
    path = write(tmp_path / "train.jsonl", [*clean, "what  is 1 + 2 ?", "Please help. " + STORY.format("three")])
    return ["data=jsonl", f"data.path={path}", f"eval.benchmarks=['jsonl:{tmp_path / 'held_out.jsonl'}']", f"runs_dir={tmp_path}"]


def test_a_hit_is_refused_with_ids_and_remedy(words):
    with pytest.raises(ValueError) as refusal:
        compose_plan(words)
    said = str(refusal.value)
    assert "held_out-0: training problem train-120 (exact, 100%)" in said
    assert "held_out-1: training problem train-121 (ngram, 100%)" in said
    assert "data.allow_overlap=['jsonl:" in said or "data.allow_overlap=[jsonl:" in said
    assert said.count("training problem") == 2


def test_what_was_allowed_is_recorded(words):
    name = words[2].partition("'")[2].rstrip("']")
    plan = compose_plan([*words, f"data.allow_overlap=['{name}']", "eval.grader=integer", DRY])
    hits = plan.record()["allowed_overlap"]
    assert [(hit["train_id"], hit["eval_id"], hit["kind"]) for hit in hits[name]] == [
        ("train-120", "held_out-0", "exact"),
        ("train-121", "held_out-1", "ngram"),
    ]
    assert plan.settings["data"]["allow_overlap"] == [name]


def test_a_name_that_is_no_benchmark_of_the_run_is_refused():
    with pytest.raises(ValueError, match="allow_overlap.*chain4"):
        compose_plan(["data.allow_overlap=[aime24]"])


def test_the_embedded_task_needs_no_look():
    assert compose_plan([]).record()["allowed_overlap"] == {}


def test_training_needs_data():
    with pytest.raises(ValueError, match="data=jsonl data.path=FILE"):
        compose_plan(["data=none"])


def test_real_sets():
    folder = os.environ.get("HARNESS_DATA")
    if not folder:
        pytest.skip("HARNESS_DATA is not set: no copies of AIME to check")
    old = [DRY, "data=jsonl", f"data.path={folder}/aime_1983_2023.jsonl", "eval=aime", f"eval.root={folder}"]
    assert compose_plan(old).record()["allowed_overlap"] == {}
    with pytest.raises(ValueError, match="aime25 aime2025-I-01.*\n(.*\n)*.*20 more\n.*allow_overlap=.aime25."):
        compose_plan([*old, f"data.path={folder}/aime25.jsonl"])
