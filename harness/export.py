"""Write a run's checkpoint as a Hugging Face folder: `python -m harness.export RUN --step best|last|N [--out FOLDER]`."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from harness.learning.model import load_tokenizer
from harness.runs.trained import Trained, find_trained
from harness.settings.command import exit_with


def export(trained: Trained, out: Path) -> None:
    """Write weights, config, generation config and tokenizer for from_pretrained. An existing folder `out` must be empty."""
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: give a new folder")
    model = trained.load()
    tokenizer = load_tokenizer(trained.model_config.path, trained.model_config.revision)
    aside = out.resolve().with_name(f".{out.resolve().name}.{os.getpid()}.tmp")  # half a model never has the name `out`
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        os.replace(aside, out.resolve())
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.export", description=__doc__)
    parser.add_argument("run", metavar="RUN", help="a run's folder")
    parser.add_argument("--step", default="last", help="last (default), best (by its evaluations), or a number")
    parser.add_argument("--out", type=Path, help="a new or empty folder (default: RUN/export/step=N)")
    arguments = parser.parse_args(words)
    trained = find_trained(arguments.run, arguments.step)
    out = arguments.out or trained.run / "export" / f"step={trained.step}"
    export(trained, out)
    print(f"step {trained.step} of {trained.config['run_id']} → {out}, for from_pretrained or model={out}")
    return 0


if __name__ == "__main__":
    exit_with(main)
