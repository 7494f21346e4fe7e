"""Score a model on benchmarks: one row per problem, all benchmarks decoded side by side."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

from evals.records import Grade, Problem
from harness.config import EvalConfig
from harness.rollout.records import RolloutEngine, Sampling, request_seed
from harness.store import RunFolder, write_atomic


@dataclass(frozen=True)
class Question:
    benchmark: str
    problem: Problem
    prompt_ids: list[int]


@dataclass(frozen=True)
class Sample:
    """One graded response of one question."""

    question: Question
    index: int  # 0 … n − 1
    response: str
    truncated: bool
    grade: Grade


def evaluate(engine: RolloutEngine, questions: list[Question], tokenizer, grader, config: EvalConfig, seed: int, step: int):
    """n samples of every question, graded; list[Sample], question-major. Seeds depend on run seed, step and question only."""
    sampling = Sampling(config.max_response_length, config.temperature, config.top_p)
    pairs = [(question, i) for question in questions for i in range(config.n)]
    seeds = [request_seed(seed, "eval", step, q.benchmark, q.problem.id, i) for q, i in pairs]
    rollout = engine.generate([question.prompt_ids for question in questions], seeds, sampling)
    texts = tokenizer.batch_decode(rollout.responses(), skip_special_tokens=True)
    truncated = rollout.truncated.tolist()
    grades = grader.grade_many(texts, [question.problem.answer for question, _ in pairs], truncated)
    graded = zip(pairs, texts, truncated, grades, strict=True)
    return [Sample(question, i, text, cut, grade) for (question, i), text, cut, grade in graded]


def eval_rows(samples: list[Sample], step: int, grader: str) -> list[dict]:
    """One row per benchmark and problem, as evals.jsonl holds them."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.question.benchmark, sample.question.problem.id), []).append(sample)
    return [
        {
            "step": step,
            "benchmark": benchmark,
            "problem_id": problem_id,
            "n": len(group),
            "num_correct": sum(sample.grade.correct for sample in group),
            "num_no_answer": sum(sample.grade.verdict == "no_answer" for sample in group),
            "num_truncated": sum(sample.truncated for sample in group),
            "grader": grader,
        }
        for (benchmark, problem_id), group in groups.items()
    ]


def save_samples(folder: RunFolder, samples: list[Sample], step: int, grader: str) -> None:
    """samples/step=<n>.jsonl.gz: raw responses, so that they can be graded again without a model. Same bytes every time."""
    lines = [
        json.dumps(
            {
                "benchmark": sample.question.benchmark,
                "problem_id": sample.question.problem.id,
                "sample": sample.index,
                "answer": sample.question.problem.answer,
                "response": sample.response,
                "truncated": sample.truncated,
                "verdict": sample.grade.verdict,
                "extracted": sample.grade.extracted,
                "grader": grader,
            },
            ensure_ascii=False,
        )
        for sample in samples
    ]
    write_atomic(folder.path / "samples" / f"step={step}.jsonl.gz", gzip.compress("\n".join(lines).encode() + b"\n", 6, mtime=0))
