"""Score a model on benchmarks: samples of every question, graded; one row per problem; what can be said of them later."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from evals.graders import Grader
from evals.metrics import length_quantiles, maj_at_k, mean_score, summarise
from evals.records import Grade, Problem
from evals.spelling import canonical
from harness.data import load_benchmark
from harness.files import write_atomic
from harness.learning.model import encode_prompts, load_tokenizer
from harness.rollout.records import RolloutEngine, Sampling, request_seed
from harness.settings.config import Config, EvalConfig


@dataclass(frozen=True)
class Question:
    benchmark: str
    problem: Problem
    prompt_ids: list[int]


def load_questions(name: str, config: Config) -> list[Question]:
    model, settings, limit = config.model, config.eval, config.rollout.max_prompt_length
    return _questions(name, settings.root, settings.template, model.path, model.revision, model.chat_template, limit)


@cache
def _questions(name, root, template, model_path, revision, chat_template, limit) -> list[Question]:
    """Load and tokenise a benchmark, once for all runs of a process."""
    tokenizer = load_tokenizer(model_path, revision)
    problems = load_benchmark(name, root)
    prompts = encode_prompts(problems, template, tokenizer, chat_template, limit)
    return [Question(name, problem, ids) for problem, ids in zip(problems, prompts, strict=True)]


@dataclass(frozen=True)
class Sample:
    """One graded response, as samples/step=<n>.jsonl.gz stores it: enough to grade it again without a model."""

    step: int
    benchmark: str
    problem_id: str
    sample: int  # 0 … n − 1
    answer: str  # the gold
    response: str  # special tokens removed
    length: int  # tokens, the end token included
    truncated: bool  # cut at eval.max_response_length
    verdict: str  # evals.records.VERDICTS
    extracted: str | None
    reason: str
    grader: str  # name and version, "integer/1"

    def graded(self, grade: Grade, grader: str) -> Sample:
        return replace(self, verdict=grade.verdict, extracted=grade.extracted, reason=grade.reason, grader=grader)


def evaluate(
    engine: RolloutEngine, questions: list[Question], tokenizer, grader: Grader, config: EvalConfig, seed: int, step: int
) -> Iterator[list[Sample]]:
    """n graded samples of every question, question-major, as batches of whole questions with at most eval.max_rows responses.

    The random stream of a response depends on run seed, step, question and sample index only.
    """
    sampling = Sampling(config.max_response_length, config.temperature, config.top_p)
    size = max(1, config.max_rows // config.n)
    for start in range(0, len(questions), size):
        batch = questions[start : start + size]
        pairs = [(question, index) for question in batch for index in range(config.n)]
        seeds = [request_seed(seed, "eval", step, q.benchmark, q.problem.id, index) for q, index in pairs]
        rollout = engine.generate([question.prompt_ids for question in batch], seeds, sampling)
        texts = tokenizer.batch_decode(rollout.responses(), skip_special_tokens=True)
        responses = zip(pairs, texts, rollout.lengths.tolist(), rollout.truncated.tolist(), strict=True)
        samples = [
            Sample(step, q.benchmark, q.problem.id, index, q.problem.answer, text, length, cut, "", None, "", "")
            for (q, index), text, length, cut in responses
        ]
        yield grade_samples(samples, grader)


def grade_samples(samples: list[Sample], grader: Grader) -> list[Sample]:
    """The same samples with this grader's verdicts."""
    columns = zip(*((sample.response, sample.answer, sample.truncated) for sample in samples), strict=True)
    grades = grader.grade_many(*columns)
    return [sample.graded(grade, grader.version) for sample, grade in zip(samples, grades, strict=True)]


def eval_rows(samples: Iterable[Sample]) -> list[dict]:
    """One row per step, benchmark and problem, as evals.jsonl holds them."""
    return [
        {
            "step": step,
            "benchmark": benchmark,
            "problem_id": problem_id,
            "n": len(group),
            "num_correct": sum(sample.verdict == "correct" for sample in group),
            "num_no_answer": sum(sample.verdict == "no_answer" for sample in group),
            "num_truncated": sum(sample.truncated for sample in group),
            "num_disagree": sum(sample.verdict == "disagree" for sample in group),
            "num_grader_timeout": sum(sample.verdict == "grader_timeout" for sample in group),
            "grader": group[0].grader,
        }
        for (step, benchmark, problem_id), group in grouped(samples, "step", "benchmark", "problem_id").items()
    ]


def grouped(samples: Iterable[Sample], *names: str) -> dict[tuple, list[Sample]]:
    """Samples by the values of some fields, in order of first appearance."""
    groups: dict[tuple, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(getattr(sample, name) for name in names), []).append(sample)
    return groups


def summaries(samples: Iterable[Sample]) -> dict[tuple[int, str], dict[str, float]]:
    """By (step, benchmark): avg@n, maj@n, pass@k and pass^k for k = 2, 4, 8 … n, share_<verdict>, share_cut (at the limit),
    and quantiles of the response lengths in tokens (length/p50 …)."""
    return {key: _summary(group) for key, group in grouped(samples, "step", "benchmark").items()}


def _summary(samples: list[Sample]) -> dict[str, float]:
    rows = eval_rows(samples)
    n = rows[0]["n"]
    summary = summarise(rows, ks=powers(n))
    summary[f"maj@{n}"] = mean_score([_majority(group) for group in grouped(samples, "problem_id").values()])
    counts = Counter(sample.verdict for sample in samples)
    summary |= {f"share_{verdict}": count / len(samples) for verdict, count in sorted(counts.items())}
    summary["share_cut"] = sum(sample.truncated for sample in samples) / len(samples)
    quantiles = length_quantiles([sample.length for sample in samples])
    return summary | {f"length/{name}": value for name, value in quantiles.items()}


def powers(n: int) -> list[int]:
    """2, 4, 8 … up to n, and n itself.

    >>> powers(12)
    [2, 4, 8, 12]
    """
    return sorted({2**i for i in range(1, n.bit_length()) if 2**i <= n} | ({n} - {1}))


def _majority(samples: list[Sample]) -> float:
    """maj@n of one problem. Different spellings of an answer are one vote; what states no answer does not vote."""
    return maj_at_k(Counter(map(_vote, samples)), True)


def _vote(sample: Sample) -> bool | str | None:
    if sample.verdict == "correct":
        return True
    return canonical(sample.extracted) if sample.verdict == "wrong" and sample.extracted is not None else None


def save_samples(folder: Path, samples: Iterable[Sample]) -> None:
    """samples/step=<n>.jsonl.gz under the folder, one file for each step. Equal samples give equal bytes."""
    for (step,), group in grouped(samples, "step").items():
        write_lines(folder / "samples" / f"step={step}.jsonl.gz", [asdict(sample) for sample in group])


def write_lines(path: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, gzip.compress(text.encode(), 6, mtime=0))


def read_samples(path: Path) -> list[Sample]:
    """The samples of one file; ValueError names a file that another program wrote."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            samples = [Sample(**json.loads(line)) for line in lines]
    except (TypeError, ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or of another version ({error}): move it away") from error
    if not samples:
        raise ValueError(f"{path} holds no samples: move it away")
    return samples
