"""Parses the command line of `python -m analysis`, and holds the options that its subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from analysis.output import FIGURE_FORMATS, TABLE_FORMATS
from analysis.scores import PRIMARY_RULE, SELECTION_RULES


class Options(argparse.Namespace):
    roots: list[Path]
    out: Path
    only: tuple[str, ...]
    formats: tuple[str, ...]
    select: str
    t_stop: int | None
    allow_mixed: bool
    paper: bool

    def chosen(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self.only or name in self.only]


def parse(argv: list[str], known: Iterable[str]) -> Options:
    """The options of `python -m analysis`. `known`: the names that --only may contain."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Tables, figures and a verdict from run folders.",
        epilog="Also: python -m analysis power -h (how many seeds?), python -m analysis diff -h (two sweeps side by side), "
        "python -m analysis serve -h (the page while runs go on), python -m analysis pack -h and unpack -h (runs as small "
        "files), python -m analysis --study -h (the study's tables from its packs).",
    )
    parser.add_argument("roots", nargs="+", type=folder, metavar="RUNS", help="run folders, or folders that hold them")
    parser.add_argument("--out", type=new_folder, default=Path("results"), help="where to write (default: results)")
    parser.add_argument("--only", type=names, default=(), help="comma-separated names, such as table1,fig4 (default: everything)")
    add_formats(parser)
    rules = ", ".join(f"{name}: {rule.meaning}" for name, rule in SELECTION_RULES.items())
    parser.add_argument("--select", choices=list(SELECTION_RULES), default=PRIMARY_RULE, help=f"score of a run ({rules})")
    parser.add_argument("--t-stop", type=int, help="last step that counts (default: the shortest planned run of each group)")
    parser.add_argument("--paper", action="store_true", help="print the published single-run numbers beside ours")
    parser.add_argument(
        "--allow-mixed", action="store_true", help="compare runs whose shared settings differ, and say so everywhere"
    )
    options = parser.parse_args(argv, Options())
    for unknown in set(options.only) - set(known):
        parser.error(f"--only {unknown}: choose from {', '.join(known)}")
    return options


def names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


FORMATS = TABLE_FORMATS + FIGURE_FORMATS


def add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", type=formats, default=FORMATS, dest="formats", help=f"of {', '.join(FORMATS)} (default: all)")


def formats(text: str) -> tuple[str, ...]:
    for unknown in set(names(text)) - set(FORMATS):
        raise argparse.ArgumentTypeError(f"{unknown}: choose from {', '.join(FORMATS)}")
    return names(text)


def new_folder(text: str) -> Path:
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file: give a folder")
    return Path(text)


def folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder: give run folders or a folder that holds them")
    return Path(text)
