"""Apply other rules to recorded minibatches: `python -m harness.replay RUN… --methods cppo,"cppo method.delta=0.1"`.

A method is a registered rule, a preset of one or a plug-in, optionally with overrides of its settings. Rules and settings need
not have existed when the run was made. docs/recordings.md explains the columns.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from harness.files import strict, write_json
from harness.settings.command import exit_with
from harness.settings.compose import compose_rule, shipped_rules
from harness.store import RunFolder, by_step, find_runs
from harness.telemetry.recording import read_minibatch
from harness.telemetry.shadow import OWN, bucket_sums, summary
from methods.base import Rule

COLUMNS = {"kept": "kept", "mass_kept": "mass kept", "mass_of_is": "mass of IS", "jaccard": "agreement"}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.replay", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or folders that hold them")
    parser.add_argument(
        "--methods", help='comma-separated, such as cppo,cppo_kl,"cppo method.delta=0.1" (default: every registered rule)'
    )
    parser.add_argument("--by-position", action="store_true", help="also the kept share by tenths of the response")
    parser.add_argument("--out", metavar="FILE.json", help="one row per run, step and method, as in shadow.jsonl")
    options = parser.parse_args(argv)
    rules = shipped_rules() if options.methods is None else {words: asked_rule(words) for words in split_methods(options.methods)}
    if missing := [run for run in options.runs if not Path(run).is_dir()]:
        raise ValueError(f"{', '.join(missing)}: no such folder; name run folders, or folders that hold them")
    rows = [row for folder in find_runs(*options.runs) for row in replay_run(folder, rules, options.by_position)]
    if not rows:
        raise ValueError("no recorded minibatches there: runs record them with record.batches_every=N")
    if options.out:
        write_json(Path(options.out), strict(rows))
    return 0


def split_methods(text: str) -> list[str]:
    """Split a list at the commas outside of brackets; empty entries are left out.

    >>> split_methods("cppo,dppo method.delta=0.1")
    ['cppo', 'dppo method.delta=0.1']
    """
    return [words.strip() for words in re.split(r",(?![^\[\]]*\])", text) if words.strip()]


def asked_rule(words: str) -> Rule:
    preset, *overrides = words.split()
    return compose_rule(preset, overrides)


def replay_run(folder: RunFolder, rules: dict[str, Rule], by_position: bool) -> list[dict]:
    """Rows of one run. Also prints its table, whose shares come from sums over all steps."""
    rows, pooled = [], {}
    for facts, name, sums in replay_sums(folder, rules):
        when = {key: facts[key] for key in ("step", "update", "num_dropped")}
        rows.append({"run": str(folder.path), "rule": name} | when | summary(sums))
        pooled[name] = pooled[name] + sums if name in pooled else sums
    if rows:
        steps = sorted({row["step"] for row in rows})
        print(f"{folder.path}\nsteps {', '.join(map(str, steps))}; own = {facts['preset']}")
        print(table({name: summary(sums) for name, sums in pooled.items()}, by_position) + "\n")
    return rows


def replay_sums(folder: RunFolder, rules: dict[str, Rule]) -> Iterator[tuple[dict, str, Tensor]]:
    """(metadata, method, bucket_sums) of each recorded step and method, the run's own decision first."""
    for path in by_step(folder.path / "batches", ".safetensors").values():
        minibatch, facts = read_minibatch(path)
        yield facts, OWN, bucket_sums(minibatch, minibatch.own)
        for name, rule in rules.items():
            yield facts, name, bucket_sums(minibatch, minibatch.decide(rule))


def table(summaries: dict[str, dict], by_position: bool) -> str:
    width = max(map(len, summaries))
    tenths = "  kept by tenths of the response" if by_position else ""
    lines = [f"{'method':<{width}}  " + "".join(f"{name:>11}" for name in COLUMNS.values()) + tenths]
    for name, row in summaries.items():
        values = [row[key] for key in COLUMNS]
        kept = row["by_position"]["kept"] if by_position else []
        cells = "".join(f"{percent(value):>11}" for value in values) + "  " + "".join(f"{percent(value):>7}" for value in kept)
        lines.append(f"{name:<{width}}  {cells}".rstrip())
    return "\n".join([*lines, "in percent; agreement: Jaccard index of what the method and the run's own rule drop"])


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    exit_with(main)
