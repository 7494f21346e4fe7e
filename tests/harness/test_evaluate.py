"""python -m harness.evaluate, and what an evaluation leaves alone."""

import gzip
import json
import random
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

from evals import prompts
from harness import evaluate as command
from harness import rescore
from harness.evaluation import Sample, eval_rows, powers, read_samples, save_samples, summaries
from harness.files import read_json
from harness.learning.model import model_folder
from harness.settings import identity
from harness.store import RunFolder


@pytest.fixture
def job_words(problem_file, tmp_path):
    return [f"eval.benchmarks=['jsonl:{problem_file}']", "eval.n=2", "eval.max_rows=8", f"--out={tmp_path / 'out'}"]


def samples_in(folder):
    (path,) = (folder / "samples").glob("step=*.jsonl.gz")
    return path.read_bytes()


@pytest.mark.parametrize("step", [1, 2])
def test_a_checkpoint_scores_as_in_its_run(step, small_run, tmp_path):
    folder = command.run_job(command.read_job([f"run={small_run}", f"step={step}", f"out={tmp_path}"]))
    own = [row for row in RunFolder(small_run).rows("evals") if row["step"] == step]
    assert RunFolder(folder).rows("evals") == own
    assert samples_in(folder) == (small_run / "samples" / f"step={step}.jsonl.gz").read_bytes()


def test_best_is_the_checkpoint_with_the_highest_score(small_run, tmp_path):
    rows = RunFolder(small_run).rows("evals")
    correct = {step: sum(row["num_correct"] for row in rows if row["step"] == step) for step in (1, 2)}
    assert command.find_trained(small_run, "best").step == max(correct, key=lambda step: (correct[step], -step))
    assert command.find_trained(small_run, "last").step == 2
    with pytest.raises(ValueError, match="checkpointed step.*1, 2"):
        command.find_trained(small_run, "7")
    with pytest.raises(ValueError, match="not a run's folder"):
        command.find_trained(tmp_path, "last")


def test_an_interrupted_evaluation_goes_on(job_words, tmp_path, monkeypatch, capsys):
    whole = command.run_job(command.read_job([*job_words[:-1], f"out={tmp_path / 'whole'}"]))
    complete = command.evaluate
    taken = []

    def killed(*arguments):
        for batch in complete(*arguments):
            yield batch
            if len(taken) == 1:
                raise KeyboardInterrupt
            taken.append(batch)

    monkeypatch.setattr(command, "evaluate", killed)
    job = command.read_job(job_words)
    with pytest.raises(KeyboardInterrupt):
        command.run_job(job)
    out = job.folder()
    assert len(RunFolder(out).rows("evals")) == 8 and read_json(out / "evaluation.json")["state"] == "running"
    for torn in (out / "evals.jsonl", out / "samples" / "step=0.jsonl"):
        with open(torn, "a") as file:
            file.write('{"step": 0, "benchm')
    monkeypatch.setattr(command, "evaluate", complete)
    assert "0/12 problems, loading " in capsys.readouterr().err
    command.run_job(job)
    assert "12/12 problems" in capsys.readouterr().err
    assert RunFolder(out).rows("evals") == RunFolder(whole).rows("evals")
    assert samples_in(out) == samples_in(whole)
    assert not list(out.glob("samples/*.jsonl")) and not (out / "lock.json").exists()


def test_a_finished_one_says_so_and_samples_nothing(job_words, monkeypatch, capsys):
    assert command.main(job_words) == 0
    table = capsys.readouterr().out
    assert "avg@2" in table and "tokens/s" in table
    monkeypatch.setattr(command, "load_model", None)
    assert command.main(job_words) == 0
    again = capsys.readouterr()
    assert "already complete" in again.err and again.out == table
    assert rescore.main([str(command.read_job(job_words).folder())]) == 0
    capsys.readouterr()
    assert command.main(job_words) == 0 and capsys.readouterr().out == table
    with pytest.raises(ValueError, match="other settings"):
        command.main([*job_words, "eval.temperature=0.5"])


def test_a_damaged_checkpoint_or_another_base_model_is_refused(small_run, tmp_path):
    copy = shutil.copytree(small_run, tmp_path / "copy")
    config = read_json(copy / "config.json")
    config["settings"]["model"]["path"] = "0" * 32
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no longer the model"):
        command.find_trained(copy, "last").load()
    shutil.copy(small_run / "config.json", copy / "config.json")
    weights = copy / "checkpoints" / "step=2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match="damaged"):
        command.find_trained(copy, "last").load()


def test_a_run_brings_its_settings_unless_a_group_is_chosen_anew(small_run):
    own = command.read_job([f"--run={small_run}", "eval.n=3"]).config
    assert command.read_job([f"--run={small_run}", "n=3"]).config == own
    assert (own.eval.n, own.eval.grader, own.rollout.lag, own.model.path) == (3, "chain", 1, "builtin:chain")
    other = command.read_job([f"--run={small_run}", "eval=aime"]).config
    assert (other.eval.benchmarks[0], other.eval.n, other.eval.temperature) == ("aime24", 16, 0.7)
    assert (other.eval.template, other.eval.max_response_length) == ("raw", 90)
    with pytest.raises(ValueError, match="its own model"):
        command.read_job([f"--run={small_run}", "model=chain"])


@pytest.mark.parametrize("words", [["--step", "best"], ["step=2", "eval=chain"]])
def test_a_step_is_of_a_run(words):
    with pytest.raises(ValueError, match="--step .* name the run with --run"):
        command.read_job(words)


@pytest.mark.parametrize("word", ["train.steps=3", "method=dppo", "method.delta=0.1", "record.samples=false"])
def test_what_has_no_effect_is_refused(word, small_run):
    with pytest.raises(ValueError, match=f"{word}: without effect in an evaluation"):
        command.read_job([f"--run={small_run}", word])


def test_the_table_fits_into_80_columns(job_words, capsys):
    folder = command.run_job(command.read_job(job_words))
    command.show(folder, Console(width=80))
    header = capsys.readouterr().out.splitlines()[1]
    assert "benchmark" in header and "problems" in header and "tokens p50" in header


def test_files_of_a_run_that_read_otherwise_now_are_refused(run_small, write_problems, tmp_path):
    problems, template = write_problems(tmp_path / "bench.jsonl", 3), tmp_path / "template.txt"
    template.write_text("{problem}")
    own = (f"eval.benchmarks=['jsonl:{problems}']", f"eval.template={template}")
    run = run_small(tmp_path / "runs", *own)
    command.read_job([f"--run={run}"])
    cleared()
    template.write_text("90-{problem}")
    with pytest.raises(ValueError, match=r"template.txt: not what .* was evaluated with: put it back"):
        command.read_job([f"--run={run}"])
    template.write_text("{problem}")
    problems.write_text(problems.read_text().replace('"answer": "', '"answer": "1'))
    cleared()
    with pytest.raises(ValueError, match=r"bench.jsonl: not what .* was evaluated with"):
        command.read_job([f"--run={run}"])
    assert command.read_job([f"--run={run}", *own, "eval=chain"]).config.eval.benchmarks


def cleared():
    """As in a new process."""
    for read_once in (identity.benchmark_fingerprint, prompts.template_text):
        read_once.cache_clear()


def test_a_run_whose_model_is_gone_says_so(run_small, tmp_path):
    model = shutil.copytree(model_folder("builtin:chain"), tmp_path / "model")
    run = run_small(tmp_path / "runs", "model=hf", f"model.path={model}")
    assert read_json(run / "config.json")["paths"]["model"] == str(model)
    model.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is not there any more"):
        command.read_job([f"--run={run}"])


def test_real_benchmarks_bring_the_lengths_and_template_of_real_problems():
    config = command.read_job(["model=builtin:chain", "eval=aime"]).config
    assert (config.data.kind, config.eval.template, config.eval.max_response_length) == ("none", "boxed", 2048)
    assert command.read_job([]).config.data.kind == "chain"
    tune = command.read_job(["eval=chain_tune"]).config.eval
    assert (tune.grader, tune.template) == ("chain", "raw")


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_global_random_states_stay_as_they_are(job_words):
    job = command.read_job(job_words)
    before = random_states()
    command.run_job(job)
    assert random_states() == before


def test_evaluation_does_not_change_training(small_run, tmp_path, problem_file, run_small):
    """Off, and after every step at another temperature and n: same metrics, same weights."""
    off = run_small(tmp_path, "eval.benchmarks=[]")
    rows = {run: [numbers(row) for row in RunFolder(run).rows("metrics")] for run in (off, small_run)}
    assert rows[off] == rows[small_run] and all(row["cost/learned_tokens"] > 0 for row in rows[off])
    assert command.find_trained(off, "2").weights_hash == command.find_trained(small_run, "2").weights_hash
    assert RunFolder(off).rows("evals") == [] and len(RunFolder(small_run).rows("evals")) == 3 * 12


def numbers(row):
    return {key: value for key, value in row.items() if not key.startswith("time/")}


def made_up(problem, index, verdict, extracted, length=10, truncated=False):
    return Sample(0, "aime24", problem, index, "7", "…", length, truncated, verdict, extracted, "", "integer/1")


SAMPLES = [
    made_up("a", 0, "correct", "7", 10),
    made_up("a", 1, "wrong", "8", 20),
    made_up("a", 2, "no_answer", None, 30),
    made_up("a", 3, "truncated", "7", 40, truncated=True),
    made_up("b", 0, "correct", "7", 10),
    made_up("b", 1, "correct", "7.0", 10),
    made_up("b", 2, "wrong", "8", 10),
    made_up("b", 3, "wrong", "9", 10),
]


def test_rows_count_each_problem():
    counts = {"n": 4, "num_disagree": 0, "num_grader_timeout": 0, "grader": "integer/1"}
    assert eval_rows(SAMPLES) == [
        {"step": 0, "benchmark": "aime24", "problem_id": "a", "num_correct": 1, "num_no_answer": 1, "num_truncated": 1} | counts,
        {"step": 0, "benchmark": "aime24", "problem_id": "b", "num_correct": 2, "num_no_answer": 0, "num_truncated": 0} | counts,
    ]


def test_summaries_by_hand():
    """a: votes 7 and 8 once each, maj 1/2; b: both spellings of 7 outvote 8 and 9. pass@2 = 1 − C(3,2)/6, 1 − C(2,2)/6."""
    ((key, summary),) = summaries(SAMPLES).items()
    assert key == (0, "aime24")
    assert summary["avg@4"] == pytest.approx(3 / 8)
    assert summary["maj@4"] == pytest.approx((1 / 2 + 1) / 2)
    assert summary["pass@2"] == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert (summary["share_no_answer"], summary["share_truncated"], summary["share_wrong"]) == (1 / 8, 1 / 8, 3 / 8)
    assert (summary["share_cut"], summary["length/p50"], summary["length/p100"]) == (1 / 8, 10, 40)


def test_spellings_of_a_wrong_answer_vote_together():
    """Three right ones against four spellings of 1/3."""
    wrong = [made_up("a", 3 + i, "wrong", text, 10) for i, text in enumerate(["\\frac13", "\\dfrac13", "\\frac{1}{3}", "1/3"])]
    (summary,) = summaries([*(made_up("a", i, "correct", "\\frac12", 10) for i in range(3)), *wrong]).values()
    assert summary["maj@7"] == 0


def test_powers():
    assert [powers(n) for n in (1, 2, 16, 12)] == [[], [2], [2, 4, 8, 16], [2, 4, 8, 12]]


def test_stored_samples_come_back(tmp_path):
    save_samples(tmp_path, SAMPLES)
    path = tmp_path / "samples" / "step=0.jsonl.gz"
    first = path.read_bytes()
    assert read_samples(path) == SAMPLES
    save_samples(tmp_path, SAMPLES)
    assert path.read_bytes() == first


FLIPPED = bytearray(gzip.compress(b'{"step": 1}\n', mtime=0))
FLIPPED[10] ^= 0x06  # the type of the first block
CUT = gzip.compress(b'{"step": 1}\n' * 100)[:-9]


@pytest.mark.parametrize(
    "content", [b"", gzip.compress(b""), CUT, b"not gzip", FLIPPED], ids=["nothing", "no rows", "cut", "not gzip", "flipped"]
)
def test_a_damaged_samples_file_is_named(tmp_path, content):
    (tmp_path / "step=1.jsonl.gz").write_bytes(content)
    with pytest.raises(ValueError, match="step=1.jsonl.gz .*: move it away"):
        read_samples(tmp_path / "step=1.jsonl.gz")
