"""Grade stored samples again, without a model: `python -m harness.rescore RUNS… [--grader math_verify]`.

For each samples/step=<n>.jsonl.gz below the folders it writes step=<n>.<grader>-<version>.jsonl.gz beside it: a row for each
sample with the new verdict and the old one. Stored samples and evals.jsonl are never changed. It prints what changed.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evals.graders import Grader, make_grader
from harness.evaluation import Sample, grade_samples, read_samples, write_lines
from harness.settings.command import exit_with

ORIGINAL = re.compile(r"step=\d+\.jsonl\.gz")
MAX_TAIL = 60  # characters of a response shown in an example


@dataclass
class Change:
    """Changes of verdict for the samples of one benchmark, from one old grader to one new grader."""

    counts: Counter = field(default_factory=Counter)  # (old verdict, new verdict) -> samples
    examples: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, before: Sample, after: Sample, num_examples: int) -> None:
        verdicts = (before.verdict, after.verdict)
        self.counts[verdicts] += 1
        if before.verdict != after.verdict and len(self.examples[verdicts]) < num_examples:
            self.examples[verdicts].append(example(before, after))

    def lines(self, title: str) -> Iterator[str]:
        """Lines of text: how often each verdict changed into which other one, with examples."""
        total = self.counts.total()
        shares = (sum(n for verdicts, n in self.counts.items() if verdicts[i] == "correct") / total for i in (0, 1))
        changed = {verdicts: n for verdicts, n in self.counts.most_common() if verdicts[0] != verdicts[1]}
        correct = " → ".join(f"{share:.2%}" for share in shares)
        yield f"{title}: {total} samples, correct {correct}, {sum(changed.values())} verdicts changed"
        for (old, new), count in changed.items():
            yield f"  {old} → {new}: {count}"
            yield from (f"    {line}" for line in self.examples[old, new])


def example(before: Sample, after: Sample) -> str:
    read = f"{before.extracted!r} → {after.extracted!r}" if before.extracted != after.extracted else repr(after.extracted)
    tail = before.response[-MAX_TAIL:]
    return f"step {after.step}, {after.problem_id} #{after.sample}, gold {after.answer!r}, read {read}, response …{tail!r}"


def sample_files(roots: Sequence[Path]) -> list[Path]:
    """Every stored evaluation at or below the folders, in a stable order."""
    paths = [path for root in roots for path in root.rglob("samples/step=*.jsonl.gz") if ORIGINAL.fullmatch(path.name)]
    if not paths:
        where = ", ".join(map(str, roots))
        raise ValueError(f"no samples/step=<n>.jsonl.gz under {where}: runs with record.samples=true keep them")
    return sorted(set(paths))


def rescore(path: Path, graders: dict[str, Grader], wanted: str | None) -> list[tuple[Sample, Sample]]:
    """(before, after) of each sample of one file. Writes the new verdicts to a file beside it."""
    before = read_samples(path)
    name = wanted or grader_name(before[0].grader)
    if name not in graders:
        graders[name] = make_grader(name)
    after = grade_samples(before, graders[name])
    version = graders[name].version.replace("/", "-")
    rows = [
        {
            "benchmark": new.benchmark,
            "problem_id": new.problem_id,
            "sample": new.sample,
            "verdict": new.verdict,
            "extracted": new.extracted,
            "reason": new.reason,
            "grader": new.grader,
            "verdict_before": old.verdict,
            "grader_before": old.grader,
        }
        for old, new in zip(before, after, strict=True)
    ]
    write_lines(path.with_name(path.name.replace(".jsonl.gz", f".{version}.jsonl.gz")), rows)
    return list(zip(before, after, strict=True))


def grader_name(version: str) -> str:
    """Name for make_grader of the grader with this version.

    >>> grader_name("integer/1+math_dapo/1")
    'integer+math_dapo'
    """
    return "+".join(part.partition("/")[0] for part in version.split("+"))


def main(words: list[str]) -> int:
    style = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m harness.rescore", description=__doc__, formatter_class=style)
    parser.add_argument("roots", nargs="+", type=Path, metavar="RUNS", help="folders of runs or evaluations, or above them")
    parser.add_argument("--grader", help="default: for each file the one that graded it, in its present version")
    parser.add_argument("--examples", type=int, default=3, help="shown for each kind of change (default 3)")
    arguments = parser.parse_args(words)
    files, graders, changes = sample_files(arguments.roots), {}, defaultdict(Change)
    try:
        for path in files:
            for old, new in rescore(path, graders, arguments.grader):
                changes[f"{new.benchmark}, {old.grader} → {new.grader}"].add(old, new, arguments.examples)
    finally:
        for grader in graders.values():
            grader.close()
    for title, change in sorted(changes.items()):
        print("\n".join(change.lines(title)))
    print(f"{len(files)} files graded; the new verdicts stand beside them")
    return 0


if __name__ == "__main__":
    exit_with(main)
