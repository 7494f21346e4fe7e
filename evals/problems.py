"""Read problems from JSON Lines or Parquet, in the layouts of the usual hub copies, and find duplicates among them."""

import hashlib
import json
import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evals import hub
from evals.markers import last_box
from evals.prompts import untemplate
from evals.records import Problem

__all__ = ["Problem", "deduplicate", "fingerprint", "json_lines", "normalise", "read_problems", "read_rows", "text_hash"]

TEXT_COLUMNS = ("problem", "question", "prompt")
ANSWER_COLUMNS = ("answer", "final_answer", "expected_answer", "ground_truth", "reward_model", "solution")
WORKED = "solution"  # holds the whole way to the answer, which must be marked in it
ID_COLUMNS = ("id", "unique_id", "problem_id")
SOURCE_COLUMNS = ("source", "data_source")
MAX_DUPLICATES = 0.01

log = logging.getLogger(__name__)


def read_problems(path: str | Path, allow_duplicates: bool = False) -> list[Problem]:
    """The distinct problems of a file (or of `hub:OWNER/NAME@REVISION:FILE`), in order of first appearance.

    More than 1 % repeated rows are refused, as are equal texts with different answers: both are signs of a broken copy.
    `allow_duplicates` accepts them and keeps the first row of each text.
    """
    unique, num_rows, num_conflicts = deduplicate(iterate_rows(path))
    num_repeated = num_rows - len(unique)
    counts = f"{path}: {num_rows} rows, {len(unique)} unique problems, {num_conflicts} repeated with another answer"
    if (num_repeated > MAX_DUPLICATES * num_rows or num_conflicts) and not allow_duplicates:
        raise ValueError(f"{counts}; clean the file, or allow duplicates (allow_duplicates=true) to keep the first of each")
    if num_repeated:
        log.warning("%s; the first of each is kept", counts)
    check_ids(unique, path)
    return unique


def check_ids(problems: Iterable[Problem], path: str | Path) -> None:
    """ValueError if two problems have one id: their samples would be counted as one's."""
    counts = Counter(problem.id for problem in problems)
    repeated = sorted(identity for identity, count in counts.items() if count > 1)
    if repeated:
        shown = ", ".join(map(repr, repeated[:5])) + (f" and {len(repeated) - 5} more" if len(repeated) > 5 else "")
        raise ValueError(f"{path}: different problems with the same id {shown}; give each its own, or leave the column out")


def read_rows(path: str | Path) -> list[Problem]:
    """Every row of a .jsonl or .parquet file as a problem, repeated ones included."""
    return list(iterate_rows(path))


def iterate_rows(path: str | Path) -> Iterator[Problem]:
    """The rows one after the other: the hub's DAPO-Math-17k repeats 17 thousand problems in 1.8 million rows."""
    path = hub.local(path)
    readers = {".jsonl": json_lines, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise ValueError(f"cannot read {path}: expected a .jsonl or .parquet file")
    if not path.is_file():
        raise ValueError(f"no file {path}")
    number = 0
    for number, row in readers[path.suffix](path):
        yield _problem(row, f"{path}:{number}", f"row-{number:05d}")  # not the file's name: a renamed file is the same data
    if not number:
        raise ValueError(f"{path} holds no problems")


def deduplicate(problems: Iterable[Problem]) -> tuple[list[Problem], int, int]:
    """(the first problem of each normalised text, number of rows, number of later ones that carry another answer)."""
    first: dict[str, Problem] = {}
    same_text: dict[str, Problem] = {}  # spares normalising what is repeated letter by letter
    num_rows = num_conflicts = 0
    for problem in problems:
        if problem.text not in same_text:
            same_text[problem.text] = first.setdefault(text_hash(problem.text), problem)
        num_rows += 1
        num_conflicts += same_text[problem.text].answer != problem.answer
    return list(first.values()), num_rows, num_conflicts


def fingerprint(problems: Iterable[Problem]) -> str:
    """SHA-256 (16 hex digits) of texts and answers in order: what a model sees, wherever the file lies."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.text, problem.answer]).encode())
    return digest.hexdigest()[:16]


def normalise(text: str) -> str:
    """The text with what copies differ in taken out: compatibility forms, case, dollars, LaTeX spacing, white space.

    >>> normalise("Find  $x\\,+ 1$.")
    'find x + 1 .'
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"\\left\b|\\right\b|\\[,;:! ()\[\]]|\$|\\displaystyle\b", " ", text).replace("\\dfrac", "\\frac")
    return " ".join(re.findall(r"\w+|[^\w\s]", text))


def text_hash(text: str) -> str:
    """First 16 hex digits of the SHA-256 of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:16]


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) for each line that is not blank; a line that does not parse is named. A byte order mark is no text."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: not JSON ({error}); expected one object a line") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet as parquet

    number = 0
    for batch in parquet.ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _problem(row: Any, place: str, default_id: str) -> Problem:
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected an object with a problem and an answer, found {type(row).__name__}")
    text = untemplate(_text(_first(row, TEXT_COLUMNS, place)[1], place))
    answer = _answer(*_first(row, ANSWER_COLUMNS, place), place)
    identity = next((str(row[name]) for name in ID_COLUMNS if row.get(name) not in (None, "")), default_id)
    source = next((str(row[name]) for name in SOURCE_COLUMNS if row.get(name)), "")
    if not text or not answer.strip():
        raise ValueError(f"{place}: empty {'answer' if text else 'problem'}")
    return Problem(identity, text, answer, source)


def _first(row: dict, columns: tuple[str, ...], place: str) -> tuple[str, Any]:
    """Name and value of the first of the columns that the row holds."""
    for name in columns:
        if row.get(name) is not None:
            return name, row[name]
    raise ValueError(f"{place}: none of the columns {', '.join(columns)}; found {', '.join(row)}")


def _text(value: Any, place: str) -> str:
    """Plain text, or the last user turn of a chat, [{"role": "user", "content": …}]."""
    if isinstance(value, list):
        turns = [turn.get("content") for turn in value if isinstance(turn, dict) and turn.get("role") == "user"]
        value = turns[-1] if turns else None
    if not isinstance(value, str):
        raise ValueError(f"{place}: the problem is neither text nor a chat with a user turn")
    return value


def _answer(column: str, value: Any, place: str) -> str:
    r"""The bare answer: 25, 25.0, "025", {"ground_truth": "25"}, "… #### 25" and "… \boxed{25}" all give "25"."""
    if isinstance(value, dict):
        value = value.get("ground_truth")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not finite:
        raise ValueError(f"{place}: the answer is {value!r}; expected text or a finite number")
    _, mark, text = str(value).rpartition("####")
    box = last_box(text)
    if column == WORKED and not (mark or box):
        raise ValueError(f"{place}: no \\boxed{{}} or #### in {column}; give the answer in a column of its own")
    return re.sub(r"^0+(?=\d+$)", "", text.strip() if box is None else box)
