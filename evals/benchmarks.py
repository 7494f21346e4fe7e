"""The benchmarks by name, and how a copy of one is checked against the facts that ship with the project.

Problem texts are not shipped. `data/<name>.jsonl` holds, for each problem, its id, its answer, a hash of the normalised
text and a sketch (the smallest hashes of its word pairs) by which a reworded problem is still recognised.
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from itertools import pairwise
from pathlib import Path

from evals import chain
from evals.hub import HubFile
from evals.integers import read_integer
from evals.problems import deduplicate, normalise, read_problems, read_rows, text_hash
from evals.records import Problem

SUFFIXES = (".jsonl", ".parquet")
SKETCH_SIZE = 24
log = logging.getLogger(__name__)
MIN_SIMILARITY = 0.3


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's problems come from: made here, or a file under the root, else one of the hub at a pinned revision."""

    size: int
    files: tuple[str, ...] = ()
    hub: HubFile | None = None
    integer: bool = False
    make: Callable[[], list[Problem]] | None = None


AIME24 = HubFile("HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", "data/train-00000-of-00001.parquet")
AIME25 = HubFile("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test.jsonl")
AIME26 = HubFile("math-ai/aime26", "79037aebdb6580008fb960d17cb21fd3099083e3", "aime2026.jsonl")
MATH500 = HubFile("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test.jsonl")
GSM8K = HubFile("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "main/test-00000-of-00001.parquet")

BENCHMARKS = {
    "aime24": Benchmark(30, ("aime24", "aime_2024", "aime-2024"), AIME24, integer=True),
    "aime25": Benchmark(30, ("aime25", "aime_2025", "aime-2025"), AIME25, integer=True),
    "aime26": Benchmark(30, ("aime26", "aime_2026", "aime-2026"), AIME26, integer=True),
    "math500": Benchmark(500, ("math500", "math_500", "MATH-500"), MATH500),
    "gsm8k": Benchmark(1319, ("gsm8k", "gsm8k_test"), GSM8K, integer=True),
    **{f"chain{n}": Benchmark(chain.LEVEL_SIZE, make=partial(chain.level, n)) for n in chain.LEVELS},
    **{f"chain{n}tune": Benchmark(chain.LEVEL_SIZE, make=partial(chain.tuning_level, n)) for n in chain.LEVELS},
}


def load(name: str, root: str | Path | None = None) -> list[Problem]:
    """The problems of a benchmark, or of a file for `jsonl:PATH`; never an empty or a silently faulty list.

    `root` is the folder that holds the copies; without one, that of the environment variable HARNESS_DATA or the hub.
    A copy with missing, changed or unevenly repeated problems is refused; equal repetitions (30 × 32 rows) are taken once.
    """
    if name.startswith("jsonl:"):
        return read_problems(name.removeprefix("jsonl:"))
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark {name!r}; choose from {', '.join(BENCHMARKS)}, or jsonl:FILE")
    if BENCHMARKS[name].make:
        return BENCHMARKS[name].make()
    path = _local_file(name, root)
    if root and not path:
        files = " or ".join(f"{name}{suffix}" for suffix in SUFFIXES)
        raise ValueError(f"eval.root={root} holds no {files}: put one there, or give eval.root=null (HARNESS_DATA, then the hub)")
    path = path or _hub_file(name)
    check = check_copy(name, read_rows(path))
    if check.faults:
        raise ValueError(f"{path} is no faithful copy of {name}:\n" + "\n".join(check.lines()) + "\nGet another copy.")
    if check.warnings:
        counts = f"{len(check.warnings)} of {len(check.problems)} problems are worded otherwise"
        log.warning("%s: %s; python -m evals verify %s FILE names them", path, counts, name)
    return check.problems


def _local_file(name: str, root: str | Path | None) -> Path | None:
    folder = root or os.environ.get("HARNESS_DATA")
    if not folder:
        return None
    candidates = (Path(folder) / f"{stem}{suffix}" for stem in BENCHMARKS[name].files for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _hub_file(name: str) -> Path:
    try:
        return BENCHMARKS[name].hub.fetch()
    except ValueError as error:
        remedy = f"put {name}.jsonl or {name}.parquet into a folder and name it with eval.root or HARNESS_DATA"
        raise ValueError(f"no local copy of {name}: {remedy}; {error}") from error


@dataclass(frozen=True)
class Fact:
    """What ships of one problem: id, answer, hash of its normalised text, and its sketch (empty where none was kept)."""

    id: str
    answer: str
    text_hash: str
    sketch: tuple[str, ...] = ()


@cache
def facts(name: str) -> tuple[Fact, ...]:
    """The shipped facts of a benchmark in its order; empty for a benchmark without."""
    file = resources.files("evals") / "data" / f"{name}.jsonl"
    if not file.is_file():
        return ()
    rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(Fact(row["id"], row["answer"], row["text_hash"], tuple(row.get("sketch", ()))) for row in rows)


def sketch(text: str) -> tuple[str, ...]:
    """The SKETCH_SIZE smallest hashes (8 hex digits) of the normalised text's word pairs, sorted."""
    hashes = {hashlib.sha256(" ".join(pair).encode()).hexdigest()[:8] for pair in pairwise(normalise(text).split())}
    return tuple(sorted(hashes)[:SKETCH_SIZE])


def similarity(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    """Estimated share of word pairs that two texts have in common, 0 to 1, from their sketches."""
    union = sorted({*a, *b})[:SKETCH_SIZE]
    return len({*union} & {*a} & {*b}) / len(union) if union else 0.0


@dataclass(frozen=True)
class CopyCheck:
    """A copy against the facts. `faults` and `warnings` map a problem id to what is said of it; `problems` are the
    copy's distinct problems under the shipped ids, in the shipped order."""

    name: str
    num_rows: int
    problems: list[Problem]
    faults: dict[str, str]
    warnings: dict[str, str]
    note: str = ""

    def lines(self) -> list[str]:
        """What `python -m evals verify` prints: a line for each problem that is not as it should be, then a summary."""
        said = sorted({**self.warnings, **self.faults})
        lines = [f"{key}: {'; '.join(part[key] for part in (self.faults, self.warnings) if key in part)}" for key in said]
        summary = f"{self.name}: {self.num_rows} rows, {len(self.problems)} distinct problems of {BENCHMARKS[self.name].size}"
        counts = f"{len(self.faults)} with faults, {len(self.warnings)} reworded"
        return [*lines, f"{summary}, {counts}{self.note}"]


def check_copy(name: str, rows: list[Problem]) -> CopyCheck:
    """Check rows, as read from a file, against what ships of the benchmark `name`."""
    known = {fact.id: fact for fact in facts(name)}
    if not known:
        return _check_size(name, rows)
    matches = _match(rows, list(known.values()), _canonical_answer(name))
    copies = Counter(key for key in matches if key)
    even = len(set(copies.values())) == 1 and len(copies) == len(known)
    faults, warnings = _judge(rows, matches, known, _canonical_answer(name))
    for key, fact in known.items():
        if not copies[key]:
            faults[key] = f"missing (answer {fact.answer})"
        elif copies[key] > 1 and not even:
            faults[key] = "; ".join(filter(None, [faults.get(key), f"duplicated, {copies[key]} rows"]))
    first = {key: row for key, row in zip(reversed(matches), reversed(rows), strict=True) if key}
    problems = [replace(first[key], id=key, answer=known[key].answer) for key in known if key in first]
    note = f"; every problem stands {copies.most_common(1)[0][1]} times, taken once" if even and len(rows) > len(known) else ""
    return CopyCheck(name, len(rows), problems, faults, warnings, note)


def _check_size(name: str, rows: list[Problem]) -> CopyCheck:
    problems, _, num_conflicts = deduplicate(rows)
    faults = {}
    if len(problems) != BENCHMARKS[name].size:
        faults[name] = f"{len(problems)} distinct problems, expected {BENCHMARKS[name].size}"
    if num_conflicts:
        faults[f"{name} answers"] = f"{num_conflicts} repeated problems carry another answer"
    return CopyCheck(name, len(rows), problems, faults, {}, "; texts and answers not checked: no facts of it ship")


def _canonical_answer(name: str) -> Callable[[str], str]:
    """AIME and GSM8K answers are compared as integers: "025" and "336^\\circ" are 25 and 336."""
    if not BENCHMARKS[name].integer:
        return str.strip
    return lambda answer: read_integer(answer) or answer.strip()


def _judge(rows, matches, known, canonical) -> tuple[dict[str, str], dict[str, str]]:
    """(faults, warnings) of the rows themselves: other answers, unknown rows, other wordings."""
    faults: dict[str, str] = {}
    warnings: dict[str, str] = {}
    for number, (row, key) in enumerate(zip(rows, matches, strict=True), 1):
        if key is None:
            faults[f"row {number} ({row.id})"] = "unknown: neither text, id nor answer fits a problem that is not there already"
            continue
        if canonical(row.answer) != known[key].answer:
            faults[key] = f"changed answer: {row.answer}, expected {known[key].answer}"
        if text_hash(row.text) != known[key].text_hash:
            warnings[key] = "reworded"
    return faults, warnings


def _match(rows: list[Problem], known: list[Fact], canonical: Callable[[str], str]) -> list[str | None]:
    """For each row the id of the problem it is a copy of: by text, then by similar words, by id, by an answer that one
    problem alone, not yet found, carries; None where nothing fits."""
    by_text = {fact.text_hash: fact.id for fact in known}
    matches = [by_text.get(text_hash(row.text)) for row in rows]
    for find in (_similar, _same_id, _same_answer):
        absent = [fact for fact in known if fact.id not in matches]
        for index, row in enumerate(rows):
            if matches[index] is None:
                matches[index] = find(row, known, absent, canonical)
    return matches


def _similar(row, known, absent, canonical) -> str | None:
    own = sketch(row.text)
    best = max(known, key=lambda fact: similarity(own, fact.sketch))
    return best.id if similarity(own, best.sketch) >= MIN_SIMILARITY else None


def _same_id(row, known, absent, canonical) -> str | None:
    return next((fact.id for fact in known if fact.id == row.id), None)


def _same_answer(row, known, absent, canonical) -> str | None:
    fitting = [fact.id for fact in absent if fact.answer == canonical(row.answer)]
    return fitting[0] if len(fitting) == 1 else None
