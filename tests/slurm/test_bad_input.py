"""What a user can get wrong on the command line: a clear error that names key and remedy, exit code ≠ 0, nothing written."""

import json
import shutil

import pytest

from harness.learning.model import model_folder

CASES = {
    "unknown method": (["method=cpo"], ["method=cpo", "cppo"]),
    "a list of methods": (["method=[dppo]"], ["method='[…]'", "choose with method=NAME"]),
    "misspelt key": (["train.stps=3"], ["train.stps"]),
    "misspelt group": (["methd=cppo"], ["methd"]),
    "string for a number": (["train.steps=abc"], ["steps", "abc"]),
    "out of range": (["train.steps=0"], ["train.steps=0", "above 0"]),
    "not a number": (["train.collapse.reward_share=nan"], ["train.collapse.reward_share=nan", "0 or more"]),
    "infinity": (["mismatch.kl=inf"], ["mismatch.kl=inf", "finite"]),
    "more than 64 bits": (["rollout.lag=99999999999999999999"], ["rollout.lag=99999999999999999999", "2^63"]),
    "endless training": (["train.steps=1000000000"], ["train.steps=1000000000", "below"]),
    "no folder for runs": (["runs_dir="], ["runs_dir=''", "name a folder"]),
    "rule out of range": (["method=dppo", "method.delta=-1"], ["method.delta=-1"]),
    "unknown aggregation": (["train.aggregation=mean"], ["train.aggregation", "token-mean"]),
    "top-p in training": (["rollout.top_p=0.9"], ["rollout.top_p", "eval.top_p"]),
    "an engine that is not there": (["rollout.engine=sglang"], ["rollout.engine", "transformers", "vllm"]),
    "an engine without its settings": (["rollout.engine=vllm"], ["rollout=vllm"]),
    "top-p in training with vLLM": (["rollout=vllm", "rollout.top_p=0.9"], ["rollout.top_p", "eval.top_p"]),
    "K above max_logprobs": (["rollout=vllm", "rollout.top_k=30"], ["rollout.top_k=30", "rollout.vllm.max_logprobs=20"]),
    "a chat template that is not there": (["model.chat_template=true"], ["model.chat_template=false"]),
    "missing model folder": (["model=./nowhere"], ["nowhere", "no such folder"]),
    "folder without a model": (["model={tmp}"], ["config.json"]),
    "no data path": (["data=jsonl"], ["data.path"]),
    "data path without its group": (["data.path={tmp}/long.jsonl"], ["data.path=", "add data=jsonl"]),
    "unknown grader": (["-m", "seed=1,2", "data.grader=foo"], ["data.grader='foo'", "math_verify"]),
    "unknown grader of evaluations": (["eval.grader=integer+"], ["eval.grader='integer+'"]),
    "a benchmark twice": (["eval.benchmarks=[chain4,chain4]"], ["eval.benchmarks=", "name each once"]),
    "a hub that is not there": (["model=org/name"], ["model.path='org/name'", "model=FOLDER"]),
    "missing data file": (["data=jsonl", "data.path={tmp}/none.jsonl"], ["none.jsonl"]),
    "torn line": (["data=jsonl", "data.path={tmp}/torn.jsonl"], ["torn.jsonl", "2"]),
    "empty data": (["data=jsonl", "data.path={tmp}/empty.jsonl"], ["empty.jsonl"]),
    "long prompt": (
        ["data=jsonl", "data.path={tmp}/long.jsonl", "data.template=raw", "data.max_prompt_length=8"],
        ["max_prompt_length", "p1"],
    ),
    "missing benchmark": (["eval=aime", "eval.benchmarks=[aime24]", "eval.root={tmp}"], ["aime24", "eval.root"]),
    "unknown benchmark": (["eval.benchmarks=[aime23]"], ["eval.benchmarks: no benchmark 'aime23'", "aime24"]),
    "missing benchmark file": (["eval.benchmarks=[jsonl:none.jsonl]"], ["eval.benchmarks: no file none.jsonl"]),
    "unknown template": (["data.template=row"], ["data.template: no template or file 'row'", "raw"]),
    "unknown template of evaluations": (["eval.template=row"], ["eval.template: no template or file 'row'"]),
    "a signal after the time limit": (
        ["cluster=slurm", "cluster.timeout_min=2"],
        ["cluster.signal_delay_s=180", "below the time limit", "120 s"],
    ),
    "one seed twice": (["-m", "seed=1,1"], ["twice"]),
    "a file in the place of the folder": (["-m", "seed=1,2", "runs_dir={tmp}/long.jsonl"], ["long.jsonl", "another runs_dir"]),
}


@pytest.fixture
def files(tmp_path):
    good = {"id": "p1", "problem": "1+1+1+1+1+1+1+1+1:", "answer": "9"}
    (tmp_path / "torn.jsonl").write_text(json.dumps(good) + '\n{"problem": "1+')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "long.jsonl").write_text(json.dumps(good) + "\n")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name, files, run_harness):
    arguments, words = CASES[name]
    runs = files / "runs"
    given = [argument.format(tmp=files) for argument in arguments]
    result = run_harness(*given, *([] if given[-1].startswith("runs_dir=") else [f"runs_dir={runs}"]))
    assert result.returncode != 0, result.stdout
    for word in words:
        assert word in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert not list(runs.rglob("metrics.jsonl")) and not (runs / "multirun.yaml").exists()


def test_a_folder_of_another_config_is_not_overwritten(tmp_path, run_harness):
    plan = run_harness("method=pg", f"runs_dir={tmp_path}", "harness.dry_run=true").stdout
    folder = next(word for word in plan.split() if word.startswith(str(tmp_path)))
    from pathlib import Path

    Path(folder).mkdir(parents=True)
    other = json.dumps({"config_hash": "another"})
    (Path(folder) / "config.json").write_text(other)
    result = run_harness("method=pg", f"runs_dir={tmp_path}")
    assert result.returncode != 0 and "another config" in result.stderr and "runs_dir" in result.stderr
    assert (Path(folder) / "config.json").read_text() == other


def test_help_explains_the_groups(run_harness):
    text = run_harness("--help", tiny=False).stdout
    for word in ("method", "rollout", "cluster", "cppo", "harness.dry_run=true"):
        assert word in text


def test_dry_run_shows_the_plan_and_imports_no_heavy_library(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys, runpy\n"
        f"sys.argv = ['harness', '-m', 'method=cppo,grpo', 'seed=1,2', 'harness.dry_run=true', 'runs_dir={tmp_path}']\n"
        "runpy.run_module('harness', run_name='__main__')\n"
        "assert 'transformers' not in sys.modules and 'vllm' not in sys.modules, 'imported'\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "4 runs" in result.stdout and "nothing but method and seed differs" in result.stdout
    assert "method.delta" in result.stdout and "train.lr: 0.0002" in result.stdout
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("words", [(), ("-m",)], ids=["one run", "sweep"])
@pytest.mark.parametrize("place", ["runs", "runs/default"])
def test_a_folder_that_is_a_file(place, words, tmp_path, run_harness):
    """In a sweep a worker hits on it, or already Hydra."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    result = run_harness(*words, "method=grpo", "seed=1", f"runs_dir={tmp_path}/runs")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert str(tmp_path / place) in result.stderr, result.stderr


def test_a_run_that_another_process_works_on_is_named(tmp_path, run_harness):
    from harness.lock import RunLock

    words = ("-m", "method=grpo", "seed=1", f"runs_dir={tmp_path}")
    shown = run_harness(*words, "harness.dry_run=true").stdout
    (folder,) = [word for word in shown.split() if "seed=1-" in word]
    lock = RunLock(tmp_path / folder.removeprefix(f"{tmp_path}/") / "lock.json")
    assert lock.acquire()
    result = run_harness(*words)
    lock.release()
    assert result.returncode != 0 and f"at work: {lock.path.parent}: process" in result.stdout


def test_a_run_that_cannot_begin_fails_with_its_reason(tmp_path, run_harness):
    """Nothing ran, so there is no traceback to point to."""
    model = shutil.copytree(model_folder("builtin:chain"), tmp_path / "model")
    for path in model.glob("*config.json"):
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in settings.items() if not key.startswith("eos_token")}))
    for words in ((), ("-m",)):
        result = run_harness(*words, f"model={model}", "seed=1", f"runs_dir={tmp_path}/runs{len(words)}")
        assert result.returncode == 1 and "1 failed" in result.stdout
        assert "failed: " in result.stdout and "names no end token" in result.stdout
        assert "traceback" not in (result.stdout + result.stderr).lower()


def test_plain_output_begins_at_once(tmp_path, run_harness):
    result = run_harness("-m", "seed=1,2", "cluster.processes=1", f"runs_dir={tmp_path}", "eval.benchmarks=[]", "train.steps=1")
    assert result.stderr.splitlines()[0] == "2 run(s), 1 worker(s) starting"
