"""Evaluate a model on benchmarks, outside training.

python -m harness.evaluate model=FOLDER_OR_HUB_ID eval=aime eval.root=FOLDER eval.n=16
python -m harness.evaluate --run RUN --step best [eval=aime]

Settings are those of the main job (groups model, eval, rollout, data). The default is data=none, unless eval=chain. With --run,
the run's model is evaluated under the run's own evaluation settings, except for those given here. After an interruption the same
command resumes the evaluation; nothing is overwritten.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from evals.graders import make_grader
from harness.distributed import init_ranks
from harness.evaluation import (
    Question,
    Sample,
    eval_rows,
    evaluate,
    grouped,
    load_questions,
    powers,
    read_samples,
    save_samples,
    summaries,
)  # fmt: skip
from harness.files import append_rows, now, read_json, read_rows, write_json
from harness.learning.model import check_model, check_reachable, load_model, load_tokenizer, model_fingerprint, prompt_record
from harness.lock import RunLock
from harness.preflight import check_answers, check_prompts, evaluation_sources
from harness.rollout.canary import check_push
from harness.rollout.engines import make_engine
from harness.rollout.records import RolloutEngine
from harness.runs.trained import Trained, find_trained
from harness.settings.command import exit_with
from harness.settings.compose import compose_config
from harness.settings.config import Config, require
from harness.settings.identity import eval_settings
from harness.settings.provenance import provenance
from harness.settings.words import readable
from harness.store import ROW_KEYS, content_hash

SAMPLE_KEY = ("step", "benchmark", "problem_id", "sample")


@dataclass(frozen=True)
class Job:
    """One evaluation: its settings, and the checkpoint whose weights replace those of the model (None: the model as it is)."""

    config: Config
    trained: Trained | None
    out: Path | None = None

    @property
    def step(self) -> int:
        return self.trained.step if self.trained else 0

    def identity(self) -> dict:
        """All that decides the samples: an interrupted evaluation is resumed only under the same identity."""
        model = self.config.model
        settings = eval_settings(self.config.eval)
        del settings["every"], settings["max_rows"]
        return {
            "model": asdict(model) | {"path": model_fingerprint(model.path, model.revision)},
            "run": self.trained and {"run_id": self.trained.config["run_id"], "weights": self.trained.weights_hash},
            "step": self.step,
            "seed": self.config.seed,
            "eval": settings,
            "max_prompt_length": self.config.rollout.max_prompt_length,
            "engine": self.config.rollout.engine,
            "precision": self.config.rollout.precision,
        }

    def folder(self) -> Path:
        """Folder of the results: --out, else evaluations/<model>/<hash8> here, or <run>/evaluations/step=<n>-<hash8>."""
        short = content_hash(self.identity())[:8]
        if self.out or not self.trained:
            return self.out or Path("evaluations") / Path(self.config.model.path.replace(":", "-")).name / short
        return self.trained.run / "evaluations" / f"step={self.step}-{short}"


def read_job(words: Sequence[str]) -> Job:
    """The evaluation that a command line asks for. `run=`, `step=`, `out=` may be typed like settings; `n=` means `eval.n=`."""
    words = [f"eval.{word}" if word.startswith("n=") else word for word in words]
    words = [f"--{word}" if word.partition("=")[0] in ("run", "step", "out") else word for word in words]
    style = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m harness.evaluate", description=__doc__, formatter_class=style)
    parser.add_argument("--run", help="a run's folder: its checkpoint is evaluated")
    parser.add_argument("--step", help="last (default), best, or a number; with --run")
    parser.add_argument("--out", type=Path, help="where results go; default: evaluations/…, or a folder inside the run")
    parser.add_argument("overrides", nargs="*", help="settings, as for python -m harness")
    arguments = parser.parse_intermixed_args(words)
    check_words(arguments)
    trained = find_trained(arguments.run, arguments.step or "last") if arguments.run else None
    if trained:
        trained.require_model()
    overrides = [*(run_overrides(trained, arguments.overrides) if trained else []), *arguments.overrides]
    config = compose_config([*default_data(overrides), *readable(overrides)])
    check_model(config.model)
    require(bool(config.eval.benchmarks), "eval.benchmarks", config.eval.benchmarks, "name one at least")
    if trained:
        check_files(trained, config, {word.partition("=")[0].lstrip("+") for word in arguments.overrides})
    return Job(config, trained, arguments.out)


def check_words(arguments: argparse.Namespace) -> None:
    """ValueError for what would have no effect."""
    if arguments.step and not arguments.run:
        raise ValueError(f"--step {arguments.step} is of a run's checkpoints: name the run with --run FOLDER")
    idle = [word for word in arguments.overrides if re.match(r"\+*(method|train|checkpoint|record|tracker)\b", word)]
    if idle:
        raise ValueError(f"{' '.join(idle)}: without effect in an evaluation, leave it out (groups: model, eval, rollout, data)")


def check_files(trained: Trained, config: Config, chosen: set[str]) -> None:
    """Raise ValueError if a benchmark or template of the run has changed since, unless `chosen` keys replace it."""
    if "eval" in chosen:
        return
    stored, present, changed = trained.config["settings"]["eval"], eval_settings(config.eval), []
    if "eval.root" not in chosen:
        changed += [name for name, content in present["root"].items() if stored["root"].get(name, content) != content]
    if "eval.template" not in chosen and present["template"] != stored["template"]:
        changed.append(config.eval.template)
    if changed:
        remedy = "put it back, or choose anew (eval=… eval.template=…)"
        raise ValueError(f"{', '.join(changed)}: not what {trained.run} was evaluated with: {remedy}")


def default_data(overrides: Sequence[str]) -> list[str]:
    """["data=none"], which sets lengths and template for real problems; [] for the embedded task or if a data group is chosen."""
    chosen = dict(word.partition("=")[::2] for word in overrides)
    return [] if "data" in chosen or chosen.get("eval", "chain").startswith("chain") else ["data=none"]


def run_overrides(trained: Trained, overrides: Sequence[str]) -> list[str]:
    """The run's settings as overrides, without those of groups that the user's overrides choose anew (eval=aime)."""
    if any(word.startswith("model") for word in overrides):
        raise ValueError("--run brings its own model: leave model=… out")
    chosen = {word.partition("=")[0] for word in overrides}
    sections = {name: dict(trained.config["settings"][name]) for name in ("model", "eval", "rollout")}
    sections["model"]["path"] = trained.config["paths"]["model"]
    sections["eval"] |= {"root": trained.config["paths"]["eval"], "template": trained.config["prompts"]["eval"]["template"]}
    sections["data"] = {"template": trained.config["prompts"]["train"]["template"]}  # the default of a newly chosen eval group
    engine = [] if "rollout" in chosen else [f"rollout={sections['rollout']['engine']}"]
    kept = [*engine, f"seed={trained.config['seed']}"]
    for section in sections.keys() - chosen:
        kept += [f"{section}.{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sections[section].items()]
    return kept


def run_job(job: Job) -> Path:
    """Evaluate the remaining questions. Returns the folder, with evaluation.json, and evals.jsonl and samples/ as in a run's."""
    check_answers(job.config)
    check_prompts(job.config.model.path, evaluation_sources(job.config))
    check_reachable(job.config.model)
    folder = job.folder()
    if is_complete(read_record(job, folder)):
        print(f"already complete: {folder}", file=sys.stderr)
        return folder
    lock = RunLock(folder / "lock.json")
    if not lock.acquire():
        raise ValueError(f"another process is at work in {folder}: wait for it, or give another --out")
    try:
        record = read_record(job, folder)  # read again: another process may have finished in the meantime
        if not is_complete(record):
            sample_rest(job, folder, record)
    finally:
        lock.release()
    return folder


def is_complete(record: dict) -> bool:
    return record.get("state") == "completed"


def read_record(job: Job, folder: Path) -> dict:
    identity = job.identity()
    record = read_json(folder / "evaluation.json") or {"identity": identity, "seconds": 0.0, "tokens": 0, "started": now()}
    if record["identity"] != identity:
        raise ValueError(f"{folder} holds an evaluation with other settings: give another --out")
    return record


def sample_rest(job: Job, folder: Path, record: dict) -> None:
    """Sample and grade all questions without a row. Samples are written before the rows that summarise them."""
    config, partial = job.config, folder / "samples" / f"step={job.step}.jsonl"
    tokenizer = load_tokenizer(config.model.path, config.model.revision)
    paths = {"model": config.model.path, "eval": config.eval.root}
    record |= {"state": "running", "prompts": prompt_record(config.eval.template, config.model, tokenizer), "paths": paths}
    record |= provenance()
    write_json(folder / "evaluation.json", record)
    questions = [question for name in config.eval.benchmarks for question in load_questions(name, config)]
    rest = unanswered(questions, folder, job.step)
    print(f"{len(questions) - len(rest)}/{len(questions)} problems, loading {config.model.path} …", file=sys.stderr, flush=True)
    engine = loaded_engine(job, tokenizer, [question.prompt_ids for question in questions])
    with closing(engine), make_grader(config.eval.grader) as grader:
        batches = evaluate(engine, rest, tokenizer, grader, config.eval, config.seed, job.step)
        for samples in timed(batches, record, len(questions) - len(rest), len(questions)):
            append_rows(partial, [asdict(sample) for sample in samples])
            append_rows(folder / "evals.jsonl", eval_rows(samples))
            write_json(folder / "evaluation.json", record)
    save_samples(folder, [Sample(**row) for row in read_rows(partial, SAMPLE_KEY)])
    write_json(folder / "evaluation.json", record | {"state": "completed", "ended": now()})
    partial.unlink()


def loaded_engine(job: Job, tokenizer, prompts: list[list[int]]) -> RolloutEngine:
    """The engine with the job's weights, checked against the model on a few of the prompts."""
    config = job.config
    model = job.trained.load() if job.trained else load_model(config.model)
    engine = make_engine(config, model, tokenizer, init_ranks(config.cluster.device))
    engine.push(model, 0)
    check_push(engine, model, prompts[: config.rollout.canary_rows], config.mismatch)
    return engine


def unanswered(questions: list[Question], folder: Path, step: int) -> list[Question]:
    done = {tuple(row[key] for key in ROW_KEYS["evals"]) for row in read_rows(folder / "evals.jsonl", ROW_KEYS["evals"])}
    return [question for question in questions if (step, question.benchmark, question.problem.id) not in done]


def timed(batches: Iterator[list[Sample]], record: dict, num_done: int, num_questions: int) -> Iterator[list[Sample]]:
    """Yield the batches; add their seconds (sampling and grading) and tokens to the record, and print the progress."""
    start = time.perf_counter()
    for samples in batches:
        record["seconds"] = round(record["seconds"] + time.perf_counter() - start, 3)
        record["tokens"] += sum(sample.length for sample in samples)
        num_done += len(grouped(samples, "benchmark", "problem_id"))
        correct = sum(sample.verdict == "correct" for sample in samples) / len(samples)
        print(f"{num_done}/{num_questions} problems, last batch {correct:.1%} correct, {rate(record)}", file=sys.stderr)
        yield samples
        start = time.perf_counter()


def rate(record: dict) -> str:
    return f"{record['tokens'] / record['seconds']:,.0f} tokens/s"


def show(folder: Path, console: Console) -> None:
    """Print the table of scores from the stored samples."""
    record = read_json(folder / "evaluation.json")
    path = folder / "samples" / f"step={record['identity']['step']}.jsonl.gz"
    by_benchmark = {name: summary for (_, name), summary in summaries(read_samples(path)).items()}
    n = record["identity"]["eval"]["n"]
    scores = [f"avg@{n}", *([f"maj@{n}"] if n > 1 else []), *(f"pass@{k}" for k in powers(n))]
    shares = ["share_no_answer", "share_cut"]
    lengths = ["length/p50", "length/p90"]
    names = Column("benchmark", min_width=9, overflow="fold")
    table = Table(names, "problems", *scores, "no answer", "cut", "tokens p50", "p90", padding=(0, 1, 0, 0))  # 80 columns at n=2
    for name, summary in by_benchmark.items():
        percents = [f"{100 * summary.get(key, 0.0):.1f}" for key in (*scores, *shares)]
        table.add_row(name, str(summary["num_problems"]), *percents, *(f"{summary[key]:.0f}" for key in lengths))
    means = [f"{100 * sum(summary[key] for summary in by_benchmark.values()) / len(by_benchmark):.1f}" for key in scores]
    table.add_row("mean", "", *means, end_section=True)
    console.print(table)
    console.print(f"{record['tokens']:,} tokens in {record['seconds']:.1f} s, {rate(record)}; {folder}", soft_wrap=True)


def main(words: list[str]) -> int:
    show(run_job(read_job(words)), Console())
    return 0


if __name__ == "__main__":
    exit_with(main)
